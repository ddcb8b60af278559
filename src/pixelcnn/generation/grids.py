"""Integer images as pictures for people and as image files: grids to look at, and exact files to keep.

A level k of L is the grey value round(255 k / (L - 1)), of each colour alike. No two levels share a grey value, so what
`write` writes, `read` returns.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor

SHORTEST_WIDTH = 640  # a grid of tiny images is enlarged, pixel by pixel, to at least about this many
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}  # 8 bits a channel, but for some PNGs
SUFFIXES = (*FORMATS.values(), ".jpeg")
MODES = {1: "L", 3: "RGB"}
TEXT_SIZE = 16


def greys(levels: int) -> Tensor:
    """The grey value of each level, (levels,) uint8, ascending."""
    return (torch.arange(levels, dtype=torch.float64) * 255 / (levels - 1)).round().to(torch.uint8)


def write(path: Path, image: Tensor, levels: int) -> None:
    """An image (C, H, W) of integers 0 ... levels-1 as a PNG file."""
    pixels = greys(levels)[image.cpu().long()].permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(path, format="PNG")


def read(path: Path, channels: int, levels: int) -> Tensor:
    """An image file as integers (C, H, W) uint8. Nothing is converted that could lose something.

    Raises ValueError for files that are no images, and for those with other channels, 16 bits, a palette, transparency,
    several frames, or grey values that are no levels.
    """
    try:
        with Image.open(path, formats=list(FORMATS)) as image:
            _refuse_what_would_be_lost(path, image, channels)
            pixels = torch.from_numpy(np.array(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{path}: is not an image of {', '.join(FORMATS)} that can be read: {error}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    pixels = pixels.view(*pixels.shape[:2], channels).permute(2, 0, 1).contiguous()
    level = torch.bucketize(pixels, greys(levels)).to(torch.uint8).clamp_(max=levels - 1)
    strange = pixels[greys(levels)[level.long()] != pixels]
    if len(strange):
        raise ValueError(f"{path}: the grey value {int(strange[0])} is not that of one of the {levels} levels")
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


def grid(images: Tensor, columns: int, levels: int, row_names: Sequence[str] = ()) -> Image.Image:
    """Images (N, C, H, W) of integers 0 ... levels-1, C 1 or 3, row by row in `columns` columns, as one picture.

    row_names: written to the left of each row.
    """
    pixels = greys(levels)[images.cpu().long()].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    num, height, width, _ = pixels.shape
    columns = min(columns, num)
    picture = Image.new("RGB", (columns * (width + 1) + 1, -(-num // columns) * (height + 1) + 1), "white")
    for n, image in enumerate(pixels):
        row, column = divmod(n, columns)
        picture.paste(Image.fromarray(image), (column * (width + 1) + 1, row * (height + 1) + 1))
    factor = max(1, round(SHORTEST_WIDTH / picture.width))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return _with_names(picture, row_names) if row_names else picture


def _with_names(picture: Image.Image, names: Sequence[str]) -> Image.Image:
    """The picture with a name at the middle of each of its len(names) rows, in a margin on the left."""
    font = ImageFont.load_default(TEXT_SIZE)
    margin = int(max(font.getlength(name) for name in names)) + TEXT_SIZE
    page = Image.new("RGB", (picture.width + margin, picture.height), "white")
    page.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(page)
    for row, name in enumerate(names):
        place = (margin - TEXT_SIZE // 2, (row + 0.5) * picture.height / len(names))
        draw.text(place, name, fill="black", font=font, anchor="rm")
    return page


def save_grid(path: Path, images: Tensor, columns: int, levels: int, row_names: Sequence[str] = ()) -> None:
    """Write `grid(images, columns, levels, row_names)` as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(images, columns, levels, row_names).save(path, format="PNG")
