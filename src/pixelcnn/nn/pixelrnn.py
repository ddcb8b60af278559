"""The PixelRNN (van den Oord et al. 2016, arXiv:1601.06759, section 3) of Row LSTM or Diagonal BiLSTM layers.

A first convolution with mask A, `num_layers` recurrent layers with residual connections (figure 5, right), then the
head. Row LSTM layers see a triangle above a pixel, which depth widens. Diagonal BiLSTM layers see all that precedes it,
even a single one, but for one sub-pixel: the last of the row above is no input to any state of that row, so it is seen
within the reach of the first convolution only.

Shapes: B batch, C data channels, H rows, W columns, h hidden channels (the stream between layers has 2h), L levels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from pixelcnn.nn.causal_conv import CausalConv
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.lstm import DiagonalBiLSTM, RowLSTM
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours


class Residual(nn.Module):
    """A recurrent layer from 2h to h features, 1x1 back to 2h, and what came in."""

    def __init__(self, layer: nn.Module, hidden: int, data_channels: int):
        super().__init__()
        self.layer = layer
        self.up = RowConv(colour_mask(colours(2 * hidden, data_channels), colours(hidden, data_channels), "B"))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.layer(x))


class PixelRNN(nn.Module):
    """Images (B, C, H, W) uint8 of any size -> logits (B, L, C, H, W), each of what precedes its sub-pixel.

    `layer(inputs, hidden, data_channels)` makes a recurrent layer.
    """

    def __init__(
        self,
        layer: Callable[[int, int, int], nn.Module],
        data_channels: int,
        levels: int,
        condition: nn.Module,
        num_layers: int,
        hidden_channels: int,
        first_kernel_size: int,
        head_channels: int,
    ):
        check_sizes(data_channels, hidden_channels=hidden_channels, head_channels=head_channels)
        super().__init__()
        self.data_channels, self.condition, self.scale = data_channels, condition, Scale(levels)
        wide = 2 * hidden_channels
        mask = colour_mask(colours(wide, data_channels), colours(data_channels, data_channels), "A")
        self.first = CausalConv(mask, first_kernel_size)
        self.layers = nn.Sequential(
            *(
                Residual(layer(wide, hidden_channels, data_channels), hidden_channels, data_channels)
                for _ in range(num_layers)
            )
        )
        self.head = Head(wide, head_channels, data_channels, levels)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self.condition(cond)
        return self.head(self.layers(self.first(self.scale(x))))


def row_lstm(kernel_size: int, **sizes: Any) -> PixelRNN:
    """A PixelRNN of Row LSTM layers, whose kernels are 1 x kernel_size; `sizes` are the other keywords of PixelRNN."""
    return PixelRNN(layer=partial(RowLSTM, kernel_size=kernel_size), **sizes)


def diagonal_bilstm(**sizes: Any) -> PixelRNN:
    """A PixelRNN of Diagonal BiLSTM layers; `sizes` are the keywords of PixelRNN."""
    return PixelRNN(layer=DiagonalBiLSTM, **sizes)
