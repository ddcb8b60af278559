"""What a network is conditioned on, as a map: (B, D, 1, 1) for a vector, (B, D, H, W) for a location-dependent map.

With that one shape, equations 4 and 5 of arXiv:1606.05328 are one 1x1 convolution V per stack and layer: applied to a
vector it is V^T h, the same at every position; applied to a map it is V * s.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NoCondition(nn.Module):
    """An unconditional model: refuses a condition, since ignoring one would hide a mistake."""

    channels = 0

    def forward(self, cond: Tensor | None) -> None:
        if cond is not None:
            raise ValueError("cond: this model is unconditional, but a condition was given")


class LabelCondition(nn.Module):
    """Class labels (B,) int64 -> one-hot vectors (B, classes, 1, 1) int64, equation 4 with h one-hot."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.channels = num_classes

    def forward(self, cond: Tensor | None) -> Tensor:
        if cond is None:
            raise ValueError("cond: this model is class-conditional and needs a label per image, but none was given")
        if cond.dtype != torch.int64 or cond.ndim != 1:
            raise ValueError(f"cond: labels are int64 of shape (B,), not {cond.dtype} of shape {tuple(cond.shape)}")
        if cond.numel() and not 0 <= int(cond.min()) <= int(cond.max()) < self.channels:
            raise ValueError(f"cond: labels are 0 ... {self.channels - 1}, not {int(cond.min())} ... {int(cond.max())}")
        return F.one_hot(cond, self.channels)[:, :, None, None]
