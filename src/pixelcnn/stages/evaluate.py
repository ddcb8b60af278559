"""The NLL of every test image of one run, of the validation split and of a part of train; and samples to look at.

python -m pixelcnn.stages.evaluate RUN --model models/RUN --data data/prepared/DATASET --out reports/evaluate/RUN
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from pixelcnn import checkpoint, config, tracking
from pixelcnn.arrangement import prepare
from pixelcnn.between import interpolate, reconstruct
from pixelcnn.data.datasets import Split, SplitName, read_card, read_rows, read_split
from pixelcnn.evaluation import Score, nll, score
from pixelcnn.likelihood import bits_per_dim
from pixelcnn.model import Data, Model
from pixelcnn.pictures import save_grid
from pixelcnn.progress import progress
from pixelcnn.sampling import sample
from pixelcnn.stages import run


def main() -> None:
    args = _arguments()
    settings = config.load(Path("params.yaml")).evaluate
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepare(device)
    model = checkpoint.load(args.model, device)
    card = read_card(args.data)
    if Data.of(card) != model.data:
        raise ValueError(f"{args.model}: trained on other data than {args.data} holds; train {args.run} again")
    splits: dict[SplitName, Split] = {"test": read_split(args.data, "test")}
    splits["validation"] = read_split(args.data, "validation")
    some = _chosen(card.splits["train"].num_images, settings.num_train_images, settings.seed)
    splits["train"] = read_rows(args.data, "train", some)

    table = pd.concat([_measure(model, args.run, name, split, settings.batch_size) for name, split in splits.items()])
    scores = {name: _score(model, table[table.split == name]) for name in splits}
    files = {ending: args.out.with_suffix(f".{ending}") for ending in ("parquet", "json", "png")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(files["parquet"], index=False)
    files["json"].write_text(json.dumps({name: asdict(s) for name, s in scores.items()}, indent=2) + "\n")
    pictures = draw_pictures(model, splits["test"], settings, args.run)
    save_grid(files["png"], pictures.flatten(0, 1), pictures.shape[1], card.levels)

    sha256 = checkpoint.read_config(args.model)["weights_sha256"]
    with tracking.run_of_weights(card.dataset, sha256, args.run):
        tracking.measured(
            {f"{name}_bits_per_dim": s.bits_per_dim for name, s in scores.items()}
            | {"test_standard_error": scores["test"].standard_error},
            [{"split": name} | asdict(s) for name, s in scores.items()],
            {"samples": files["png"], "evaluation": files["parquet"]},
        )
    test = scores["test"]
    print(f"{args.run}: {test.bits_per_dim:.4f} +- {test.standard_error:.4f} bits/dim on {test.num_images} test images")


def draw_pictures(model: Model, test: Split, settings: config.Evaluate, name: str) -> Tensor:
    """The grid (rows, columns, C, H, W): samples, a row for each class or for each of some test images.

    A row of a model given embeddings or codes begins with the test image whose embedding or code it is. Below those of
    embeddings as many rows lead from one test image to the next, along the line between their embeddings.
    """
    columns, device = settings.samples_per_class, model.device
    if model.given == "none":
        return draw_samples(model, None, columns, columns, settings, name)
    if model.given == "label":
        labels = torch.arange(len(model.data.classes), device=device)
        return draw_samples(model, labels, len(labels), columns, settings, name)
    columns = max(columns, 4)  # two ends of a line and their images
    shown = test.part(_chosen(len(test.images), columns, settings.seed))
    if model.given == "code":
        drawn = reconstruct(model, shown.images, columns - 1, settings.seed, settings.temperature)
        return torch.cat([shown.images.unsqueeze(1), drawn], dim=1)
    embeddings = model.conditions(shown)
    assert embeddings is not None
    drawn = draw_samples(model, embeddings.to(device), columns, columns - 1, settings, name)
    ends = embeddings, embeddings.roll(-1, 0)
    lines = interpolate(model, *ends, columns - 2, settings.seed, settings.temperature)
    originals = shown.images.unsqueeze(1)
    between = torch.cat([originals, lines, originals.roll(-1, 0)], dim=1)
    return torch.cat([torch.cat([originals, drawn], dim=1), between])


def draw_samples(
    model: Model, conds: Tensor | None, rows: int, columns: int, settings: config.Evaluate, name: str
) -> Tensor:
    """Samples (rows, columns, C, H, W), the condition of each row's being its own."""
    cells = torch.arange(rows * columns, device=model.device) // columns
    generator = torch.Generator().manual_seed(settings.seed)
    batches = cells.split(settings.batch_size)
    drawn = []
    with progress(f"{name}, samples", len(batches) * model.shape[1], "rows") as bar:
        for batch in batches:
            cond = None if conds is None else conds[batch]
            drawn.append(sample(model, len(batch), generator, cond, settings.temperature, lambda _: bar.update(1)))
    return torch.cat(drawn).unflatten(0, (rows, columns)).cpu()


def _measure(model: Model, run_name: str, name: str, split: Split, batch_size: int) -> pd.DataFrame:
    """A row per image: split, its place in the split, label if there are any, nats and bits/dim."""
    with progress(f"{run_name}, NLL of {name}", len(split.images), "images") as bar:
        nats = nll(model, split, batch_size, bar.update)
    table = pd.DataFrame({"split": name, "image": range(len(nats)), "nats": nats.numpy()})
    table["bits_per_dim"] = bits_per_dim(nats, model.dims).numpy()  # type: ignore[union-attr]
    if split.labels is not None:
        table["label"] = split.labels.numpy()
    return table


def _score(model: Model, rows: pd.DataFrame) -> Score:
    return score(torch.from_numpy(rows.nats.to_numpy(copy=True)), model.dims)


def _chosen(total: int, num: int, seed: int) -> Tensor:
    """At most `num` of a split's `total` images, chosen by seed."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:num]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="an entry of params.yaml's runs")
    parser.add_argument("--model", type=Path, required=True, help="the run's model")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="the reports' path, without ending")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
