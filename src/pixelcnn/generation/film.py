"""A film of images being drawn, sub-pixels in their one order: rows, then columns.

Each frame is a grid of the same images, of which the pixels up to a place are shown and the later ones are blank. That
is how ancestral sampling draws them, so the film is made of the finished images.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, features
from torch import Tensor

from pixelcnn import files
from pixelcnn.generation.grids import grid

FORMATS = {".gif": "GIF", ".webp": "WEBP"}
FRAMES = 64  # between the blank and the finished images
SECONDS, AT_THE_END = 4.0, 2.0  # of drawing; for which the finished images are shown


def frames(images: Tensor, columns: int, levels: int, row_names: Sequence[str] = ()) -> list[Image.Image]:
    """The frames of images (N, C, H, W) of integers 0 ... levels-1, from blank to finished; grids as `grids.grid`."""
    height, width = images.shape[2:]
    order = torch.arange(height * width).view(height, width)
    steps = torch.linspace(0, height * width, min(FRAMES, height * width) + 1).round().long()
    blank = torch.tensor(levels // 2, dtype=torch.uint8)
    shown = (torch.where(order < step, images.cpu(), blank) for step in steps)
    return [grid(each, columns, levels, row_names) for each in shown]


def check(path: Path) -> Path:
    """A path, if a film can be written there. Raises ValueError for another ending than .gif or .webp."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--film: {path} ends neither in .gif nor in .webp")
    if path.suffix.lower() == ".webp" and not features.check("webp"):
        raise ValueError(f"--film: {path}: this Pillow writes no WebP; .gif will do")
    return path


def save(path: Path, images: Tensor, columns: int, levels: int, row_names: Sequence[str] = ()) -> None:
    """Write the film of `frames` as a GIF or WebP file, by the path's ending; it is repeated for ever."""
    shown = frames(images, columns, levels, row_names)
    kind = FORMATS[check(path).suffix.lower()]
    if kind == "GIF":  # one palette for all frames, so that no pixel changes its colour after it was drawn
        both = Image.new("RGB", (shown[0].width, 2 * shown[0].height))
        both.paste(shown[0])
        both.paste(shown[-1], (0, shown[0].height))
        palette = both.quantize(256, dither=Image.Dither.NONE)
        shown = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    each = round(1000 * SECONDS / (len(shown) - 1))
    times = [each] * (len(shown) - 1) + [round(1000 * AT_THE_END)]
    options = {"lossless": True} if kind == "WEBP" else {}
    with files.atomic(path) as file:
        shown[0].save(file, kind, save_all=True, append_images=shown[1:], duration=times, loop=0, **options)
