"""The one check of images that come from outside: from Python, a command, MLflow's pyfunc or a stage.

Images are integers, uint8 (N, C, H, W), everywhere outside a network. Shapes: N images, C channels, H rows, W columns.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_images(
    images: Any, channels: int, levels: int, size: tuple[int, int] | None = None, name: str = "images"
) -> Tensor:
    """Images as a uint8 tensor (N, C, H, W); one image (C, H, W) becomes a batch of one.

    images: a tensor or numpy array of uint8 with values 0 ... levels-1. size: H and W, None for any. name: how messages
    call the images. Raises ValueError for another type, dtype, shape or range, with what would be right.
    """
    right = f"uint8 (N, {channels}, {', '.join(map(str, size)) if size else 'H, W'})"
    if isinstance(images, np.ndarray):
        found = f"{images.dtype} {images.shape}"
        images = torch.from_numpy(np.array(images)) if images.dtype == np.uint8 else None
    elif isinstance(images, Tensor):
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    else:
        raise ValueError(f"{name}: a {type(images).__name__} is no tensor or array of {right}")
    if images is None or images.dtype != torch.uint8:
        raise ValueError(f"{name}: {found} is not {right} with integers 0 ... {levels - 1}")
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != channels or (size is not None and tuple(images.shape[2:]) != size):
        raise ValueError(f"{name}: {found} is not {right}")
    if not images.numel():
        raise ValueError(f"{name}: {found} holds no pixels")
    if int(images.max()) >= levels:
        raise ValueError(f"{name}: values are 0 ... {levels - 1}, but {int(images.max())} is among them")
    return images
