"""The two ends of every network: integers to floats at the input, features to logits at the output.

Shapes: B batch, C data channels, H rows, W columns, F features, L levels.
"""

import torch
from torch import Tensor, nn

from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours


def check_sizes(data_channels: int, **sizes: int) -> None:
    """Raise ValueError for a number of features that does not divide into the data's colours."""
    for key, size in sizes.items():
        if size % data_channels:
            raise ValueError(f"{key}: {size} is not a multiple of the data's {data_channels} channels")


class Scale(nn.Module):
    """Integers 0 ... L-1 to floats in [-1, 1]: the only place where an image becomes floating point."""

    like: Tensor

    def __init__(self, levels: int):
        super().__init__()
        self.levels, self.step = levels, 2 / (levels - 1)
        self.register_buffer("like", torch.empty(0), persistent=False)  # has the dtype of the network's weights

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.like.dtype) * self.step - 1


class Head(nn.Sequential):
    """ReLU, 1x1, ReLU, 1x1, masked by colour: features (B, F, H, W) -> logits (B, L, C, H, W).

    As in arXiv:1601.06759, table 1.
    """

    def __init__(self, features: int, hidden: int, data_channels: int, levels: int):
        sizes = features, hidden, levels * data_channels
        inputs, inner, outputs = (colours(size, data_channels) for size in sizes)
        super().__init__(
            nn.ReLU(),
            RowConv(colour_mask(inner, inputs, "B")),
            nn.ReLU(),
            RowConv(colour_mask(outputs, inner, "B")),
        )
        self.data_channels, self.levels = data_channels, levels

    def forward(self, features: Tensor) -> Tensor:
        b, _, height, width = features.shape
        return super().forward(features).view(b, self.data_channels, self.levels, height, width).transpose(1, 2)
