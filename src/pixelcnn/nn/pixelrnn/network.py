"""The PixelRNN (van den Oord et al. 2016, arXiv:1601.06759, section 3), of one kind of recurrent layer or another.

A first convolution with mask A, `num_layers` recurrent layers with residual connections (figure 5, right), then the
head.

Shapes: B batch, C data channels, H rows, W columns, h hidden channels (the stream between layers has 2h), K outputs per
sub-pixel.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pixelcnn.nn.causal_conv import CausalConv
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.interfaces import Network, Spec
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours
from pixelcnn.nn.pixelrnn.config import PixelRNNSizes

MakeLayer = Callable[[int, int, int], nn.Module]  # inputs, hidden, data_channels


class Residual(nn.Module):
    """A recurrent layer from 2h to h features, 1x1 back to 2h, and the residual connection."""

    def __init__(self, layer: nn.Module, hidden: int, data_channels: int):
        super().__init__()
        self.layer = layer
        self.up = RowConv(colour_mask(colours(2 * hidden, data_channels), colours(hidden, data_channels), "B"))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.layer(x))


class PixelRNN(Network):
    """Images (B, C, H, W) uint8 of any size -> outputs (B, K, C, H, W), each of the sub-pixels that precede its own."""

    memory_format = torch.contiguous_format  # states are rows and diagonals, copied from any other layout

    def __init__(self, sizes: PixelRNNSizes, spec: Spec, make_layer: MakeLayer):
        channels, hidden = spec.shape[0], sizes.hidden_channels
        check_sizes(channels, hidden_channels=hidden, head_channels=sizes.head_channels)
        super().__init__()
        self.data_channels, self.likelihood, self.condition = channels, spec.likelihood, spec.condition
        self.scale = Scale(spec.levels)
        wide = 2 * hidden
        mask = colour_mask(colours(wide, channels), colours(channels, channels), "A")
        self.first = CausalConv(mask, sizes.first_kernel_size)
        layers = (Residual(make_layer(wide, hidden, channels), hidden, channels) for _ in range(sizes.num_layers))
        self.layers = nn.Sequential(*layers)
        self.head = Head(wide, sizes.head_channels, channels, spec.likelihood)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self.condition(cond)
        return self.head(self.layers(self.first(self.scale(x))))
