"""The NLL of a model on a split: per image, then its mean and standard error. Float32 at least, never autocast.

Shapes: N images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.data.dataset import Split
from pixelcnn.likelihoods.categorical import bits_per_dim
from pixelcnn.model import Model


@dataclass(frozen=True)
class Score:
    """Mean NLL over a split's images, in bits per sub-pixel, with the standard error of that mean."""

    bits_per_dim: float
    standard_error: float
    num_images: int


def nll(model: Model, split: Split, batch_size: int, on_batch: Callable[[int], object] = lambda _: None) -> Tensor:
    """-log p in nats of each image of a split, (N,) float64 on the CPU. Calls on_batch with each batch's images.

    The network is in evaluation mode meanwhile (no dropout) and is given back as it was.
    """
    conditions, device = model.conditions(split), model.device
    was_training = model.network.training
    model.network.eval()
    nats = []
    try:
        with torch.inference_mode():
            for start in range(0, len(split.images), batch_size):
                part = slice(start, start + batch_size)
                cond = None if conditions is None else conditions[part].to(device)
                nats.append(model.nll(split.images[part].to(device), cond).double().cpu())
                on_batch(len(nats[-1]))
    finally:
        model.network.train(was_training)
    return torch.cat(nats)


def score(nats: Tensor, dims: int) -> Score:
    """The mean of per-image NLLs (N,) in nats, as bits per sub-pixel, with its standard error."""
    bits = bits_per_dim(nats.double(), dims)
    assert isinstance(bits, Tensor)
    error = float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else math.nan
    return Score(float(bits.mean()), error, len(bits))
