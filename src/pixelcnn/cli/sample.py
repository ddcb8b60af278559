"""`pixelcnn sample`: draw images from a model."""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelcnn.checkpoint import identity
from pixelcnn.cli import operands, output
from pixelcnn.config import Given
from pixelcnn.generation import film, sample_folder
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.sampling import in_float64, sample_batches
from pixelcnn.model import Model
from pixelcnn.progress import progress

Row = tuple[str, Tensor | None]  # its name and the condition of its images


def run(args: argparse.Namespace) -> None:
    """Draw the images and write them."""
    if args.film:
        film.check(args.film)
        if not args.out.suffix:
            raise ValueError(f"--film: shows a grid; name a .png file as --out, not the folder {args.out}")
    model = operands.load_model(args.model, args.device)
    rows = _rows(model, args.label, args.embedding)[: args.num]
    columns = -(-args.num // len(rows))
    conds = [cond for _, cond in rows if cond is not None]
    cond = torch.stack(conds).repeat_interleave(columns, 0) if conds else None
    num, several = len(rows) * columns, len(rows) > 1
    names = [name for name, _ in rows]
    if args.out.suffix:
        images = torch.cat(list(_draw(model, num, cond, args)))
        wide = columns if several else math.ceil(math.sqrt(columns))
        shown = images, wide, model.data.levels, names if several else ()
        save_grid(args.out, *shown)
        if args.film:
            film.save(args.film, *shown)
            print(f"{args.film}: the images being drawn")
    else:
        _write_folder(model, rows, num, cond, args)
    order = f", {columns} of each: {', '.join(names)}" if several else ""
    print(f"{args.out}: {num} images{order}")


def _write_folder(model: Model, rows: list[Row], num: int, cond: Tensor | None, args: argparse.Namespace) -> None:
    """Draw what the folder lacks of `num` images."""
    each = num // len(rows) if len(rows) > 1 else None  # of one condition, a folder may be continued to any number
    content = {
        "model": identity(model),
        "seed": args.seed,
        "temperature": args.temperature,
        "conditions": sample_folder.names_of(rows),
        "each": each,
    }
    drawn = sample_folder.begin(args.out, content)
    if drawn < num:
        if drawn:
            print(f"{args.out}: continued after {drawn} images", file=sys.stderr)
        batches = sample_folder.one_ahead(_draw(model, num, cond, args, drawn), model.device)
        sample_folder.write(args.out, content, drawn, batches, model.data.levels)


def _draw(model: Model, num: int, cond: Tensor | None, args: argparse.Namespace, skipped: int = 0) -> Iterator[Tensor]:
    output.note_if_slow(model)
    num_rows = -(-(num - skipped) // args.batch_size) * model.shape[1]
    generator = torch.Generator().manual_seed(args.seed)
    with progress("sample", num_rows, "rows") as bar:
        yield from sample_batches(
            in_float64(model), num, generator, cond, args.temperature, lambda _: bar.update(1), args.batch_size, skipped
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
            raise ValueError("--embedding: missing; this model is conditioned on embeddings")
    raise ValueError(f"MODEL: this model draws images of a {model.given}; `pixelcnn reconstruct` makes it of an image")


def _of_embeddings(model: Model, files: list[str]) -> list[Row]:
    if model.given is not Given.EMBEDDING:
        raise ValueError(f"--embedding: this model takes none (its condition is {model.config.condition!r})")
    rows: list[Row] = []
    for file in files:
        values = np.load(file, allow_pickle=False)
        if values.ndim not in (1, 2) or values.dtype.kind != "f":
            raise ValueError(f"{file}: {values.dtype} {values.shape} is not floats of shape (D,) or (N, D)")
        if not np.isfinite(values).all():
            raise ValueError(f"{file}: contains non-finite numbers")
        each = torch.from_numpy(np.atleast_2d(values)).float()  # (N, D)
        rows += [(f"{Path(file).stem} {n}" if len(each) > 1 else Path(file).stem, h) for n, h in enumerate(each)]
    return rows
