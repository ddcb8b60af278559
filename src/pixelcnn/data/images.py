"""The one check of images that come from outside: from Python, a command, MLflow's pyfunc or a stage.

Images are integers, uint8 (N, C, H, W), everywhere outside a network. Shapes: N images, C channels, H rows, W columns.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelcnn.data.image_files import levels_of

MOST_CHANNELS = 16  # pixelcnn.config.Shape
MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
Size = tuple[int, int]


def check_images(images: Any, channels: int, levels: int, size: Size | None = None, name: str = "images") -> Tensor:
    """Images as a uint8 tensor (N, C, H, W), by the one reading that they have, or ValueError with what would be right.

    images: uint8 with values 0 ... levels-1, a tensor, a numpy array, a PIL image, or a list of single ones of these.
    size: H and W, None for any. Where it is known, channels may come last, as in image files, one image is a batch of
    one, and grey images may lack the axis of their channel. Where channels first and channels last would both fit,
    C = H = W, they are first. name: how messages call the images.
    """
    if isinstance(images, list | tuple) and images and not isinstance(images[0], list | tuple):
        each = [check_images(image, channels, levels, size, f"{name}[{n}]") for n, image in enumerate(images)]
        if several := [n for n, image in enumerate(each) if len(image) != 1 or image.shape != each[0].shape]:
            raise ValueError(
                f"{name}[{several[0]}]: {tuple(each[several[0]].shape)} is not a single image like the others"
            )
        return torch.cat(each)
    found, values = _as_tensor(images, channels, levels, name)
    right = f"uint8 (N, {channels}, {', '.join(map(str, size)) if size else 'H, W'})"
    if values is None:
        raise ValueError(f"{name}: {found} is not a tensor or array of {right}")
    if values.dtype != torch.uint8:
        raise ValueError(f"{name}: {found} is not {right} with integers 0 ... {levels - 1}{_remedy(values, levels)}")
    ordered = _channels_first(values, channels, size)
    if ordered is None:
        raise ValueError(f"{name}: {found} is not {right}")
    if not ordered.numel():
        raise ValueError(f"{name}: {found} holds no pixels")
    if int(ordered.max()) >= levels:
        raise ValueError(f"{name}: values must be 0 ... {levels - 1}, but there is {int(ordered.max())}")
    return ordered


def _as_tensor(images: Any, channels: int, levels: int, name: str) -> tuple[str, Tensor | None]:
    """What was found, in words, and its values where there are any."""
    if isinstance(images, Image.Image):
        if images.mode != MODES.get(channels) or "transparency" in images.info:
            wanted = repr(MODES[channels]) if channels in MODES else f"{channels} channels"
            raise ValueError(f"{name}: a PIL image of mode {images.mode!r} is not one of {wanted}; convert it first")
        pixels = torch.from_numpy(np.array(images)).view(images.height, images.width, channels)
        return f"a PIL image of {images.width} x {images.height}", levels_of(pixels, levels, name).permute(2, 0, 1)
    if isinstance(images, np.ma.MaskedArray):
        return "an array with a mask, which would be lost,", None
    if isinstance(images, np.ndarray):
        is_number = images.dtype.kind in "buif" and images.dtype.itemsize <= 8
        found = f"{images.dtype} {images.shape}"
        return found, torch.from_numpy(np.array(images, images.dtype.newbyteorder("="))) if is_number else None
    if isinstance(images, Tensor):
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        is_dense = images.layout == torch.strided and not images.is_meta
        return found if is_dense else f"{found} without dense values", images if is_dense else None
    which = "an empty" if isinstance(images, list | tuple) and not images else "a"
    return f"{which} {type(images).__name__}", None


def _channels_first(x: Tensor, channels: int, size: Size | None) -> Tensor | None:
    """The images as (N, C, H, W), by the first of these readings that fits their shape."""
    if size is None:
        x = x[None] if x.ndim == 3 else x
        return x if x.ndim == 4 and x.shape[1] == channels else None
    shape = tuple(x.shape)
    if shape[-3:] == (channels, *size) and x.ndim in (3, 4):
        return x[None] if x.ndim == 3 else x
    if shape[-3:] == (*size, channels) and x.ndim in (3, 4):
        return x.movedim(-1, -3)[None] if x.ndim == 3 else x.movedim(-1, -3)
    if channels == 1 and shape[-2:] == size and x.ndim in (2, 3):
        return x[None, None] if x.ndim == 2 else x[:, None]
    return None


def _remedy(values: Tensor, levels: int) -> str:
    """What makes integers of floats in [0, 1], such as torchvision's ToTensor makes."""
    if not values.is_floating_point() or not values.numel() or not 0 <= float(values.min()) <= float(values.max()) <= 1:
        return ""
    return f"; of floats in [0, 1] (x * {levels - 1}).round().to(torch.uint8) makes them, as PILToTensor does"


def shape_of(images: Any, single: bool, name: str = "images") -> tuple[int, int, int]:
    """C, H, W of images of which nothing else is known: of one (`single`), or of a batch.

    Channels are first, unless the last axis alone has 1 or 3. Raises ValueError for what has no such shape.
    """
    if isinstance(images, Image.Image):
        return len(images.getbands()), images.height, images.width
    shape = tuple(getattr(images, "shape", ()))[0 if single else 1 :]
    match shape:
        case (height, width):
            return 1, height, width
        case (height, width, (1 | 3) as channels) if height not in (1, 3):
            return channels, height, width
        case (channels, height, width) if channels <= MOST_CHANNELS:
            return channels, height, width
    kind = getattr(images, "shape", None) and f"shape {tuple(images.shape)}"
    wanted = "(C, H, W), (H, W, C) or (H, W)" if single else "(N, C, H, W), (N, H, W, C) or (N, H, W)"
    raise ValueError(f"{name}: {kind or f'a {type(images).__name__}'} is not {wanted}")
