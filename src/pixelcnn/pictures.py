"""Integer images as pictures for people: grids, large enough to be looked at."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

SHORTEST_WIDTH = 640  # a grid of tiny images is enlarged, pixel by pixel, to at least about this many


def grid(images: Tensor, columns: int, levels: int) -> Image.Image:
    """Images (N, C, H, W) of integers 0 ... levels-1, C 1 or 3, row by row in `columns` columns, as one picture."""
    from torchvision.utils import make_grid  # seconds to import: only where pictures are made

    pixels = (images.cpu().float() * (255 / (levels - 1))).round().to(torch.uint8)
    array = make_grid(pixels, nrow=columns, padding=1, pad_value=255).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    factor = max(1, round(SHORTEST_WIDTH / picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def save_grid(path: Path, images: Tensor, columns: int, levels: int) -> None:
    """Write `grid(images, columns, levels)` as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(images, columns, levels).save(path)
