"""Read and write single image files without loss: an image of integer levels as a PNG, and back.

Level k of L is stored as the grey value round(255 k / (L - 1)), the same in every channel. No two levels share a grey
value, so `read` returns exactly what `write` has written.

Shapes: C channels, H rows, W columns, L levels.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pixelcnn import files
from pixelcnn.data.decoding import MAX_BYTES, decode_picture


def greys(levels: int) -> Tensor:
    """The grey value of each level, (L,) uint8, ascending."""
    return (torch.arange(levels, dtype=torch.float64) * 255 / (levels - 1)).round().to(torch.uint8)


def write(path: Path, image: Tensor, levels: int) -> None:
    """Write an image (C, H, W) of integers 0 ... levels-1 as a PNG file, atomically."""
    pixels = greys(levels)[image.cpu().long()].permute(1, 2, 0).numpy()  # (H, W, C)
    with files.atomic(path) as file:
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, format="PNG")


def read(
    path: Path,
    channels: int,
    levels: int,
    size: tuple[int, int] | None = None,
    note: Callable[[str], object] = str,
) -> Tensor:
    """An image file as integers (C, H, W) uint8, without any conversion that could lose information.

    size: H and W, None for any. note: called with each conversion that lost none, such as "palette to RGB". Raises
    ValueError as `pixelcnn.data.decoding.decode_picture`, and for grey values that are not levels.
    """
    picture = decode_picture(files.read_bytes(path, MAX_BYTES), str(path), channels, size)
    for change in picture.changes:
        note(change)
    return levels_of(torch.from_numpy(picture.pixels).permute(2, 0, 1).contiguous(), levels, str(path))  # (C, H, W)


def levels_of(pixels: Tensor, levels: int, where: str) -> Tensor:
    """The levels of grey values of any shape, uint8. Raises ValueError for a grey value that is that of no level."""
    level = torch.bucketize(pixels, greys(levels)).to(torch.uint8).clamp_(max=levels - 1)
    wrong = pixels[greys(levels)[level.long()] != pixels]
    if len(wrong):
        raise ValueError(f"{where}: the grey value {int(wrong[0])} is not one of the {levels} levels")
    return level
