"""The NLL of every test image of one run, of the validation split and of a part of train; and samples to look at.

python -m pixelcnn.stages.evaluate RUN --model models/RUN --data data/prepared/DATASET --out reports/evaluate/RUN
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from pixelcnn import checkpoint, config
from pixelcnn.data.dataset import Split, SplitName, read_card, read_rows, read_split
from pixelcnn.device import prepare
from pixelcnn.evaluation.nll import Score, nll, score
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.sample_grids import chosen, draw_pictures
from pixelcnn.likelihoods.categorical import bits_per_dim
from pixelcnn.model import Data, Model
from pixelcnn.progress import progress
from pixelcnn.stages import run
from pixelcnn.tracking import runs as tracking


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
    some = chosen(card.splits["train"].num_images, settings.num_train_images, settings.seed)
    splits["train"] = read_rows(args.data, "train", some)

    table = pd.concat([_measure(model, args.run, name, split, settings.batch_size) for name, split in splits.items()])
    scores: dict[str, dict[str, float]] = {name: asdict(_score(model, table[table.split == name])) for name in splits}
    files = {ending: args.out.with_suffix(f".{ending}") for ending in ("parquet", "json", "png")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sha256 = checkpoint.read_config(args.model)["weights_sha256"]
    table.attrs = {"weights_sha256": sha256}  # whose these are: pixelcnn.tracking.model_package asks
    table.to_parquet(files["parquet"], index=False)
    files["json"].write_text(json.dumps(scores, indent=2) + "\n")
    pictures = draw_pictures(model, splits["test"], settings, args.run)
    save_grid(files["png"], pictures.flatten(0, 1), pictures.shape[1], card.levels)

    with tracking.run_of_weights(card.dataset, sha256, args.run):
        tracking.measured(scores, {"samples": files["png"], "evaluation": files["parquet"]})
    test = scores["test"]
    value, error, num = test["bits_per_dim"], test["standard_error"], test["num_images"]
    print(f"{args.run}: {value:.4f} +- {error:.4f} bits/dim on {num} test images")


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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="an entry of params.yaml's runs")
    parser.add_argument("--model", type=Path, required=True, help="the run's model")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="the reports' path, without ending")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
