"""`pixelcnn score`: bits/dim of images under a model, lower is better; their mean and its standard error.

Of an auto-encoder: bits/dim given each image's own code, whose bits are not counted. A ≤ marks upper bounds, of models
whose NLL is not exact.
"""

import argparse
from pathlib import Path

import pandas as pd

from pixelcnn import files
from pixelcnn.cli import operands, places
from pixelcnn.evaluation.nll import nll
from pixelcnn.evaluation.scores import score
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.progress import progress

MAX_ROWS = 20  # printed on the terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    parser.add_argument("-o", "--out", type=places.out, help="the table as a .parquet or .csv file")
    parser.add_argument("--label", help="the images' class, by name or number; a prepared split has its own labels")
    parser.add_argument(
        "--batch-size", type=operands.count, default=64, help="images evaluated together (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Score the images, write or print the table, and print the mean."""
    if args.out and args.out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out: {args.out} ends neither in .parquet nor in .csv")
    model = operands.load_model(args.model)
    given = operands.read_images(args.images, model)
    split = operands.as_split(given, model, args.label)
    with progress("score", len(split.images), "images") as bar:
        nats = nll(model, split, args.batch_size, bar.update)
    total = score(nats, model.dims)  # refuses what are no NLLs before anything is written
    table = pd.DataFrame({"image": given.names, "nats": nats, "bits_per_dim": bits_per_dim(nats, model.dims)})
    if split.labels is not None:
        table["label"] = [model.data.classes[n] for n in split.labels] if model.data.classes else split.labels
    _show(table, args.out)
    error = "" if total.standard_error is None else f" +- {total.standard_error:.4f}"
    bound = "" if model.network.exact else "≤ "
    print(f"{bound}{total.bits_per_dim:.4f}{error} bits/dim, the mean of {total.num_images:,} image(s)")


def _show(table: pd.DataFrame, out: Path | None) -> None:
    """Write the table, or print its first rows."""
    if out is None:
        print(table[:MAX_ROWS].to_string(index=False, float_format="{:.4f}".format))
        if len(table) > MAX_ROWS:
            print(f"... and {len(table) - MAX_ROWS:,} more; -o scores.parquet writes them all")
        return
    with files.atomic(out) as file:
        if out.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)
    print(f"{out}: {len(table):,} rows")
