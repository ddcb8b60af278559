"""Grids of integer images as one PNG.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pixelcnn import files
from pixelcnn.data.image_files import greys

SHORTEST_WIDTH = 640  # pixels; grids of small images are enlarged by a whole factor to about this width or more
WEIGHTS = "weights_sha256"  # the key of a PNG's text
TEXT_SIZE = 16  # points of the rows' names


def grid(images: Tensor, columns: int, levels: int, row_names: Sequence[str] = ()) -> Image.Image:
    """Images (N, C, H, W) of integers 0 ... levels-1, C 1 or 3, as an RGB picture of `columns` columns, row by row.

    row_names: written to the left of the rows.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images: {images.shape[1]} channels cannot be shown, only 1 or 3")
    pixels = greys(levels)[images.cpu().long()].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()  # (N, H, W, 3)
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
    """The picture with a margin on the left that has a name at the centre of each of the len(names) rows."""
    names = [files.excerpt(name) for name in names]
    font = ImageFont.load_default(TEXT_SIZE)
    margin = int(max(font.getlength(name) for name in names)) + TEXT_SIZE
    page = Image.new("RGB", (picture.width + margin, picture.height), "white")
    page.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(page)
    for row, name in enumerate(names):
        place = (margin - TEXT_SIZE // 2, (row + 0.5) * picture.height / len(names))
        draw.text(place, name, fill="black", font=font, anchor="rm")
    return page


def save_grid(
    path: Path, images: Tensor, columns: int, levels: int, row_names: Sequence[str] = (), weights_sha256: str = ""
) -> None:
    """Write `grid(images, columns, levels, row_names)` as a PNG file, with the identity of the model that drew it."""
    text = PngInfo()
    if weights_sha256:
        text.add_text(WEIGHTS, weights_sha256)
    with files.atomic(path) as file:
        grid(images, columns, levels, row_names).save(file, format="PNG", pnginfo=text)


def drawn_by(path: Path) -> str:
    """The sha256 of the weights that drew the grid in a PNG file; "" where `save_grid` was not given it."""
    with Image.open(path) as picture:
        return str(picture.info.get(WEIGHTS, ""))
