"""`pixelcnn sample`: draw images from a model.

The same seed gives the same images, whatever the batch size. A class-conditional model without --label gets a row for
each class, an embedding-conditional model a row for each embedding; --num is then rounded up to whole rows.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelcnn.cli import operands, output
from pixelcnn.config import Given
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.sampling import in_float64, sample
from pixelcnn.model import Model
from pixelcnn.progress import progress

Row = tuple[str, Tensor | None]  # its name and the condition of its images


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL)
    parser.add_argument("--num", type=operands.count, default=64, help="how many images (default: %(default)s)")
    output.drawing_arguments(parser)
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--label", action="append", help="a class, by name or number; repeat it for more rows")
    given.add_argument(
        "--embedding",
        action="append",
        metavar="FILE",
        help="a .npy file of one embedding (D,) or several (N, D), a row each; repeat it for more",
    )


def run(args: argparse.Namespace) -> None:
    """Draw the images and write them."""
    output.check_out(args.out)
    model = operands.load_model(args.model)
    rows = _rows(model, args.label, args.embedding)[: args.num]
    columns = -(-args.num // len(rows))
    conds = [cond for _, cond in rows if cond is not None]
    cond = torch.stack(conds).repeat_interleave(columns, 0) if conds else None
    images = _draw(model, len(rows) * columns, cond, args)
    names = [name for name, _ in rows]
    if args.out.suffix:
        wide = columns if len(rows) > 1 else math.ceil(math.sqrt(columns))
        save_grid(args.out, images, wide, model.data.levels, names if len(rows) > 1 else ())
    else:
        output.write_images(args.out, {f"{n:05d}": image for n, image in enumerate(images)}, model.data.levels)
    order = f", {columns} of each: {', '.join(names)}" if len(rows) > 1 else ""
    print(f"{args.out}: {len(images)} images{order}")


def _draw(model: Model, num: int, cond: Tensor | None, args: argparse.Namespace) -> Tensor:
    output.note_if_slow(model)
    num_rows = -(-num // args.batch_size) * model.shape[1]
    generator = torch.Generator().manual_seed(args.seed)
    with progress("sample", num_rows, "rows") as bar:
        return sample(
            in_float64(model), num, generator, cond, args.temperature, lambda _: bar.update(1), args.batch_size
        )


def _rows(model: Model, labels: list[str] | None, files: list[str] | None) -> list[Row]:
    """The rows of the grid; one without a name and a condition for an unconditional model."""
    classes = model.data.classes
    if labels is not None:
        chosen = [operands.label(model, text) for text in labels]
        return [(classes[n], torch.tensor(n)) for n in chosen]
    if files is not None:
        return _of_embeddings(model, files)
    match model.given:
        case Given.NONE:
            return [("", None)]
        case Given.LABEL:
            return [(name, torch.tensor(n)) for n, name in enumerate(classes)]
        case Given.EMBEDDING:
            raise ValueError("--embedding: missing; this model draws images of given embeddings")
    raise ValueError(f"MODEL: this model draws images of a {model.given}; `pixelcnn reconstruct` makes it of an image")


def _of_embeddings(model: Model, files: list[str]) -> list[Row]:
    if model.given is not Given.EMBEDDING:
        raise ValueError(f"--embedding: this model takes none (its condition is {model.config.condition!r})")
    rows: list[Row] = []
    for file in files:
        values = np.load(file, allow_pickle=False)
        if values.ndim not in (1, 2) or values.dtype.kind != "f":
            raise ValueError(f"{file}: {values.dtype} {values.shape} is not floats of shape (D,) or (N, D)")
        each = torch.from_numpy(np.atleast_2d(values)).float()  # (N, D)
        rows += [(f"{Path(file).stem} {n}" if len(each) > 1 else Path(file).stem, h) for n, h in enumerate(each)]
    return rows
