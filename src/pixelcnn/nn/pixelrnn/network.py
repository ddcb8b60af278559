"""The PixelRNN (van den Oord et al. 2016, arXiv:1601.06759, section 3), of one kind of recurrent layer or another.

A first convolution with mask A, `num_layers` recurrent layers with residual connections (figure 5, right), then the
head.

Shapes: B batch, C data channels, H rows, W columns, h hidden channels (the stream between layers has 2h), K outputs per
sub-pixel.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixelcnn.nn.causal_conv import CausalConv, CausalState
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.interfaces import Network, Spec
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours, fold_masks
from pixelcnn.nn.pixelrnn.config import PixelRNNSizes
from pixelcnn.nn.stack_stepper import Layer, LayerState, StackStepper


class Recurrent(nn.Module):
    """A recurrent layer: (B, 2h, H, W) -> (B, h, H, W)."""

    def state(self, batch: int, width: int) -> LayerState:  # noqa: ARG002
        """Its state, to evaluate it pixel by pixel."""
        raise AssertionError(f"{type(self).__name__} defines no state")


MakeLayer = Callable[[int, int, int], Recurrent]  # inputs, hidden, data_channels


class Residual(nn.Module):
    """A recurrent layer from 2h to h features, 1x1 back to 2h, and the residual connection. The caller recurs."""

    def __init__(self, layer: Recurrent, hidden: int, data_channels: int):
        super().__init__()
        self.layer = layer
        self.up = RowConv(colour_mask(colours(2 * hidden, data_channels), colours(hidden, data_channels), "B"))

    def forward(self, x: Tensor, recur: Layer) -> Tensor:
        return x + self.up(recur(x))


class PixelRNN(Network):
    """Images (B, C, H, W) uint8 of any size -> outputs (B, K, C, H, W), each of the sub-pixels that precede its own."""

    incremental = True
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
        self.layers = nn.ModuleList(layers)
        self.head = Head(wide, sizes.head_channels, channels, spec.likelihood)

    def forward_with(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        """From the scaled image to the outputs: with the network's own layers, or with a stepper's."""
        h = layers[0](x)
        for residual, recur in zip(self.layers, layers[1:], strict=True):
            h = residual(h, recur)
        return self.head(h)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self.condition(cond)
        return self.forward_with([self.first, *self.recurrent()], self.scale(x))

    def recurrent(self) -> list[Recurrent]:
        """The recurrent layers, without the residual connections around them."""
        return [residual.layer for residual in cast(list[Residual], list(self.layers))]

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> StackStepper:
        """The state of `batch` images not yet begun."""
        self.condition(cond)
        folded = fold_masks(self)
        first, others = CausalState(folded.first, batch, width), [x.state(batch, width) for x in folded.recurrent()]
        return StackStepper(folded, first, others, (batch, self.data_channels, height, width))
