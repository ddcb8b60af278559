"""Completion: images of which some pixels are given and the others are drawn.

Shapes: N images, C channels, H rows, W columns.
"""

import torch
from torch import Tensor

from pixelcnn.data.images import check_images
from pixelcnn.generation.sampling import OnRow, fill_in_batches
from pixelcnn.model import Model


def complete(
    model: Model,
    images: Tensor,
    known: Tensor,
    generator: torch.Generator,
    cond: Tensor | None = None,
    temperature: float = 1.0,
    on_row: OnRow = lambda _: None,
    batch_size: int | None = None,
) -> Tensor:
    """Images (N, C, H, W) uint8 with every pixel that is not known drawn anew; for several each, repeat the images.

    known (H, W) or (N, H, W), bool: the pixels that keep their values. A drawn pixel is conditioned on the pixels that
    precede it, known or drawn, and on none that follow. So where all known pixels precede all others in the order of
    rows and columns (`is_prefix`), such as a top half, these are exact draws from p(rest | known). Elsewhere known
    pixels are clamped: those after a drawn one do not influence it.

    The other arguments are those of `sampling.sample`.
    """
    channels, height, width = model.shape
    images = check_images(images, channels, model.data.levels, (height, width))
    if known.dtype != torch.bool or tuple(known.shape) not in ((height, width), (len(images), height, width)):
        raise ValueError(
            f"known: {str(known.dtype).removeprefix('torch.')} {tuple(known.shape)} is not bool ({height}, {width}) or "
            f"({len(images)}, {height}, {width}): which pixels keep their values"
        )
    known = known.expand(len(images), height, width)
    parts = fill_in_batches(model, images, known, generator, cond, temperature, on_row, batch_size)
    return torch.cat(list(parts))


def is_prefix(known: Tensor) -> bool:
    """Whether in a mask (H, W) every known pixel precedes every other one, row by row."""
    flat = known.flatten()
    return bool(flat[: int(flat.sum())].all())
