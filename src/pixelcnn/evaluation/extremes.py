"""The likeliest and the least likely images of a split under a model, and where in them their bits lie.

Shapes: K images, C channels, H rows, W columns.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelcnn import files
from pixelcnn.data.dataset import Split
from pixelcnn.likelihoods.base import bits_per_pixel
from pixelcnn.model import Model

EACH = 8  # images of either kind


def write(path: Path, model: Model, split: Split, bits_per_dim: Tensor) -> None:
    """Write the EACH images with the lowest and the EACH with the highest bits/dim (N,) to an .npz file; all, if fewer.

    image (K,): indices in the split, the likeliest first. bits_per_dim (K,). pixels (K, C, H, W) uint8. bits (K, H, W)
    float32: of each pixel, its channels together; not there where a network's NLL is no sum over pixels.
    """
    order = bits_per_dim.argsort(stable=True)
    image = order if len(order) <= 2 * EACH else torch.cat([order[:EACH], order[-EACH:]])
    shown = split.part(image)
    arrays = {"image": image, "bits_per_dim": bits_per_dim[image], "pixels": shown.images}
    if model.network.has_nll_map:
        arrays["bits"] = _bits_of_pixels(model, shown)
    with files.atomic(path) as file:
        np.savez(file, **{name: array.numpy() for name, array in arrays.items()})  # type: ignore[arg-type]


def _bits_of_pixels(model: Model, split: Split) -> Tensor:
    """-log2 p of each pixel given those before it, (K, H, W) float32."""
    cond = model.conditions(split)
    with torch.inference_mode():
        nats = model.nll_map(split.images.to(model.device), None if cond is None else cond.to(model.device))
    return bits_per_pixel(nats).float().cpu()
