"""What the verbs that write images share: the check that nothing is overwritten, PNG files and grids.

Shapes: N images, C channels, H rows, W columns.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from pixelcnn.cli import operands
from pixelcnn.data import image_files
from pixelcnn.generation.grids import save_grid
from pixelcnn.model import Model


def check_rows(out: Path, stems: Sequence[str], names: Sequence[str]) -> None:
    """Before any work: where --out is a folder, raise ValueError unless `write_rows` makes a new file of each image."""
    if not out.suffix:
        operands.check_stems(stems, names)
        check_new(out, (f"{stem}-0" for stem in stems))


def check_new(folder: Path, stems: Iterable[str]) -> None:
    """Before any work: raise ValueError for files STEM.png that are there already, of another command or seed."""
    for stem in stems:
        if (path := folder / f"{stem}.png").exists():
            raise ValueError(f"--out: {path} already exists; choose another folder")


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

    All of them or, where one cannot be written, none.
    """
    with all_or_none() as made:
        for name, image in images.items():
            made.append(folder / f"{name}.png")
            image_files.write(made[-1], image, levels)


@contextmanager
def all_or_none() -> Iterator[list[Path]]:
    """A list for the files that a command makes: after an exception they are removed, so that it can be repeated."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
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
