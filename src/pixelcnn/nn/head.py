"""The two ends of a network: integers to floats at the input, features to the outputs of a likelihood at the end.

Shapes: B batch, C data channels, H rows, W columns, F features, K outputs per sub-pixel.
"""

import torch
from torch import Tensor, nn

from pixelcnn.likelihoods.base import Likelihood
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours


def check_sizes(data_channels: int, **sizes: int) -> None:
    """Raise ValueError for a number of features that does not divide into the data's channels."""
    for key, size in sizes.items():
        if size % data_channels:
            raise ValueError(f"{key}: {size} is not a multiple of the data's {data_channels} channels")


class Scale(nn.Module):
    """Integers 0 ... L-1 to floats in [-1, 1]: the only place where an image becomes floating point."""

    like: Tensor

    def __init__(self, levels: int):
        super().__init__()
        self.levels, self.step = levels, 2 / (levels - 1)
        self.register_buffer("like", torch.tensor(-1.0), persistent=False)  # has the dtype of the network's weights

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.like.dtype) * self.step - 1

    def write(self, x: Tensor, out: Tensor) -> None:
        """The same in one operation, within rounding, to where it is wanted."""
        torch.add(self.like, x, alpha=self.step, out=out)


class Head(nn.Sequential):
    """ReLU, 1x1, ReLU, 1x1, with mask B: features (B, F, H, W) -> outputs (B, K, C, H, W).

    As in arXiv:1601.06759, table 1; K is the likelihood's.
    """

    def __init__(self, features: int, hidden: int, data_channels: int, likelihood: Likelihood):
        sizes = features, hidden, likelihood.num_outputs * data_channels
        inputs, inner, outputs = (colours(size, data_channels) for size in sizes)
        super().__init__(
            nn.ReLU(),
            RowConv(colour_mask(inner, inputs, "B")),
            nn.ReLU(),
            RowConv(colour_mask(outputs, inner, "B")),
        )
        self.data_channels, self.float32_outputs = data_channels, likelihood.float32_outputs

    def forward(self, features: Tensor) -> Tensor:
        hidden = self[1](self[0](features))
        if self.float32_outputs:
            with torch.autocast(hidden.device.type, enabled=False):
                outputs = self[3](self[2](hidden.to(self[3].weight.dtype)))
        else:
            outputs = self[3](self[2](hidden))
        b, _, height, width = outputs.shape
        # The weights are colour-major: (B, C*K, H, W) -> (B, C, K, H, W) -> (B, K, C, H, W)
        return outputs.view(b, self.data_channels, -1, height, width).transpose(1, 2)
