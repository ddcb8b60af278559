"""What the verbs that draw or write images share: their arguments, the check of --out, PNG files and grids.

Shapes: N images, C channels, H rows, W columns.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pixelcnn.cli import operands, places
from pixelcnn.data import image_files
from pixelcnn.generation.grids import save_grid
from pixelcnn.model import Model


def drawing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every verb that draws images."""
    parser.add_argument(
        "-o", "--out", type=places.out, required=True, help="a .png for a grid, or a folder for a PNG each"
    )
    parser.add_argument("--seed", type=operands.seed, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--temperature",
        type=operands.temperature,
        default=1.0,
        help="below 1: likelier, less diverse images (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=operands.count, default=64, help="images drawn together (default: %(default)s)"
    )


def check_out(out: Path) -> None:
    """Before any work: raise ValueError unless --out is a .png file or can be a folder."""
    if out.suffix not in ("", ".png"):
        raise ValueError(f"--out: {out} is neither a .png file nor a folder (whose name has no dot)")


def check_stems(out: Path, stems: Sequence[str], names: Sequence[str]) -> None:
    """Before any work: where --out is a folder, raise ValueError unless each image gets files of its own there."""
    if not out.suffix:
        operands.check_stems(stems, names)


def note_if_slow(model: Model, coding: bool = False) -> None:
    """Print a note for networks without an efficient stepper, which need many forward passes over the whole image.

    coding: those that code need one for each pixel or sub-pixel; to sample, fewer will do (generation.fixed_point).
    """
    if not model.network.incremental:
        each = f"{'a' if coding else 'up to a'} forward pass for each"
        passes = "pixel" if model.network.whole_pixels else "sub-pixel"
        print(f"note: {model.config.name} needs {each} {passes}: slow", file=sys.stderr)


def write_images(folder: Path, images: dict[str, Tensor], levels: int) -> None:
    """Write each image (C, H, W) as NAME.png, from which `pixelcnn.data.image_files.read` returns the same integers.

    Where one cannot be written, the new ones before it are removed, so that the command can be repeated.
    """
    made = []
    try:
        for name, image in images.items():
            path = folder / f"{name}.png"
            is_new = not path.exists()
            image_files.write(path, image, levels)
            made += [path] if is_new else []
    except OSError:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def write_rows(
    out: Path, rows: Sequence[Tensor], drawn: Tensor, names: Sequence[str], stems: Sequence[str], levels: int
) -> None:
    """Write what was drawn for each of N operands: as one grid, or as a PNG for each drawn image, by --out.

    rows: the parts of the grid's rows from left to right, (N, any, C, H, W) each; names: of the rows. drawn
    (N, num, C, H, W): the images that the model drew, written to a folder as STEM-0.png, STEM-1.png, ...
    """
    if out.suffix:
        grid = torch.cat([*rows], dim=1)  # (N, columns, C, H, W)
        save_grid(out, grid.flatten(0, 1), grid.shape[1], levels, names)
    else:
        each = zip(stems, drawn, strict=True)
        write_images(out, {f"{stem}-{n}": image for stem, row in each for n, image in enumerate(row)}, levels)
