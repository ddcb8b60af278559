"""Evaluate one run: the NLL of each image of test, of validation and of a part of train.

Writes OUT.scores.json (scores by split), OUT.json (what `dvc metrics show` prints), OUT.parquet (the NLL of every
image) and OUT.npz (the likeliest and the least likely test images, with the bits of each pixel).

python -m pixelcnn.stages.evaluate RUN --model models/RUN --data data/prepared/DATASET --out reports/evaluate/RUN
"""

from pathlib import Path

import torch
from torch import Tensor

from pixelcnn import checkpoint, files
from pixelcnn.data.dataset import Split, SplitName, chosen, read_counted, read_rows, read_split
from pixelcnn.device import default, prepare
from pixelcnn.evaluation import extremes
from pixelcnn.evaluation.measure import measure, scores_of
from pixelcnn.model import Model
from pixelcnn.schemas import EvaluateReport, Metrics
from pixelcnn.stages import parse, parser, read_params, run
from pixelcnn.tracking import runs


def main() -> None:
    args = parse(
        parser(
            __doc__,
            "an entry of `runs`",
            model="the run's model",
            data="the prepared data set",
            out="path of the scores and of the NLLs, without ending",
        )
    )
    settings = read_params().evaluate
    device = default()
    prepare(device)
    model = checkpoint.load_for(args.data, args.model, device)
    num_images = read_counted(args.data).splits["train"].num_images
    splits = _splits(args.data, chosen(num_images, settings.num_train_images, settings.seed))
    table = measure(model, splits, settings.batch_size, args.name)
    table.attrs = {"weights_sha256": checkpoint.identity(model)}  # pixelcnn.tracking.model_package compares it
    scores = EvaluateReport(**scores_of(table, model.dims))

    nlls = args.out.with_suffix(".parquet")
    with files.atomic(nlls) as file:
        table.to_parquet(file, index=False)
    of_test = torch.from_numpy(table[table.split == "test"].bits_per_dim.to_numpy(copy=True))
    extremes.write(args.out.with_suffix(".npz"), model, splits["test"], of_test)
    scores.write(args.out.with_suffix(".scores.json"))
    Metrics.of(scores).write(args.out.with_suffix(".json"))
    _track(args.name, model, scores, nlls)


def _splits(data: Path, of_train: Tensor) -> dict[SplitName, Split]:
    """The whole test and validation splits, and the images `of_train` (N,) of the train split."""
    return {
        "test": read_split(data, "test"),
        "validation": read_split(data, "validation"),
        "train": read_rows(data, "train", of_train),
    }


def _track(name: str, model: Model, scores: EvaluateReport, nlls: Path) -> None:
    """Log to the MLflow run that trained the model, and print the test score."""
    with runs.run_of_weights(model.data.dataset, checkpoint.identity(model), name) as log:
        log.measured(scores.model_dump(), model.given)
        log.log_files({"evaluation": nlls})
    test, bound = scores.test, "" if model.network.exact else "<= "
    error = "" if test.standard_error is None else f" +- {test.standard_error:.4f}"
    print(f"{name}: {bound}{test.bits_per_dim:.4f}{error} bits/dim on {test.num_images} test images")


if __name__ == "__main__":
    run(main)
