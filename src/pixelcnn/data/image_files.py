"""Read and write single image files without loss: an image of integer levels as a PNG, and back.

Level k of L is stored as the grey value round(255 k / (L - 1)), the same in every channel. No two levels share a grey
value, so `read` returns exactly what `write` has written.

Shapes: C channels, H rows, W columns, L levels.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}  # 8 bits a channel, except for some PNGs
SUFFIXES = (*FORMATS.values(), ".jpeg")
MODES = {1: "L", 3: "RGB"}  # Pillow's name of 8 bits a channel, by the number of channels


def greys(levels: int) -> Tensor:
    """The grey value of each level, (L,) uint8, ascending."""
    return (torch.arange(levels, dtype=torch.float64) * 255 / (levels - 1)).round().to(torch.uint8)


def write(path: Path, image: Tensor, levels: int) -> None:
    """Write an image (C, H, W) of integers 0 ... levels-1 as a PNG file."""
    pixels = greys(levels)[image.cpu().long()].permute(1, 2, 0).numpy()  # (H, W, C)
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(path, format="PNG")


def read(path: Path, channels: int, levels: int) -> Tensor:
    """An image file as integers (C, H, W) uint8, without any conversion that could lose information.

    Raises ValueError for files that are not images, and for images with other channels, 16 bits, a palette,
    transparency, several frames, or grey values that are not levels.
    """
    try:
        with Image.open(path, formats=list(FORMATS)) as image:
            _refuse_what_would_be_lost(path, image, channels)
            pixels = torch.from_numpy(np.array(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{path}: is not an image of {', '.join(FORMATS)} that can be read: {error}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    pixels = pixels.view(*pixels.shape[:2], channels).permute(2, 0, 1).contiguous()  # (C, H, W)
    level = torch.bucketize(pixels, greys(levels)).to(torch.uint8).clamp_(max=levels - 1)
    wrong = pixels[greys(levels)[level.long()] != pixels]
    if len(wrong):
        raise ValueError(f"{path}: the grey value {int(wrong[0])} is not that of one of the {levels} levels")
    return level


def _refuse_what_would_be_lost(path: Path, image: Image.Image, channels: int) -> None:
    wanted = MODES[channels]
    found = image.mode + (" with transparency" if "transparency" in image.info else "")
    if any("16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        found += " of 16 bits"
    if getattr(image, "n_frames", 1) > 1:
        found += ", several frames"
    if found != wanted:
        raise ValueError(f"{path}: its pixels are {found}, not {wanted} of 8 bits; convert the file first")
