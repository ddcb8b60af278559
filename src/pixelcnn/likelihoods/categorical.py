"""What a network's output means: a distribution over the levels of every sub-pixel, given those before it.

Networks, training, evaluation, sampling and coding know a likelihood by its four methods alone. Drawing takes one
uniform number per sub-pixel and its `log_pmf_of`, so that any likelihood samples and codes alike.

Shapes: B batch, N pixels (any), L levels, C channels, H rows, W columns.
"""

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Likelihood(Protocol):
    """`output` is what a network returns for integers x (B, C, H, W); `at_pixel` the same of N pixels, no H and W."""

    levels: int

    def num_outputs(self, data_channels: int) -> int:
        """Network outputs per pixel."""

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats per image, (B,), in float32 at least."""

    def log_pmf(self, output: Tensor, x: Tensor) -> Tensor:
        """log p of every level of every sub-pixel, given the earlier channels of its pixel in x: (B, L, C, H, W)."""

    def log_pmf_of(self, channel: int, at_pixel: Tensor, earlier: Tensor) -> Tensor:
        """log p (N, L) of every level of one channel, given the pixels' earlier channels (N, channel)."""


class Categorical:
    """A softmax over `levels` values per sub-pixel (arXiv:1601.06759, section 2.2). Outputs: logits (B, L, C, H, W)."""

    def __init__(self, levels: int):
        self.levels = levels

    def num_outputs(self, data_channels: int) -> int:
        """Network outputs per pixel."""
        return self.levels * data_channels

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats per image, (B,); x (B, C, H, W) integers. In float32 at least, whatever autocast does."""
        # classes last: free for channels-last features, and several times faster than a strided softmax
        rows = logits.permute(0, 3, 4, 2, 1)
        dtype = torch.promote_types(rows.dtype, torch.float32)
        nats = F.cross_entropy(rows.reshape(-1, self.levels).to(dtype), _flat(x), reduction="none")
        return nats.view(len(x), -1).sum(1)

    def log_pmf(self, logits: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        """log p of every level, (B, L, C, H, W) float64; what precedes a sub-pixel is in its logits already."""
        return F.log_softmax(logits.double(), dim=1)

    def log_pmf_of(self, channel: int, at_pixel: Tensor, earlier: Tensor) -> Tensor:  # noqa: ARG002
        """log p (N, L) of every level of one channel, float64, of logits (N, L, C)."""
        return F.log_softmax(at_pixel[:, :, channel].double(), dim=1)


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1).long()


def draw(log_pmf: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """Inverse-CDF draws: log_pmf (B, L, ...) and uniforms in [0, 1) of shape (B, ...) -> integers (B, ...).

    A temperature below 1 sharpens: p ** (1 / temperature), normalised. In float64, so that the same numbers draw the
    same image by any arrangement of the same mathematics.
    """
    pmf = torch.softmax(log_pmf.double() / temperature, dim=1)
    below = pmf.cumsum(1) <= uniforms.unsqueeze(1)
    return below.sum(1).clamp_(max=log_pmf.shape[1] - 1)


def bits_per_dim(nats: Tensor | float, dims: int) -> Tensor | float:
    """nats / (dims * ln 2): the one place where nats per image become bits per sub-pixel."""
    return nats / (dims * math.log(2))
