"""The PixelCNN (van den Oord et al. 2016, arXiv:1601.06759, sections 3.3 to 3.5): the Gated PixelCNN's predecessor.

A first convolution with mask A, `num_layers` residual blocks (figure 5, left), then the head. One stack of masked
convolutions has a blind spot, which is part of the model: each block reaches one kernel further up and, in the rows
above, further to the right, but never to the right without going up. What lies in the row above is seen up to the
reach of one kernel only, however deep the network; arXiv:1606.05328 has its second stack for that reason.

Shapes: B batch, C data channels, H rows, W columns, h hidden channels (the stream between blocks has 2h), L levels.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixelcnn.nn.causal_conv import CausalConv, CausalState
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours

Convolve = Callable[[Tensor], Tensor]


class ResidualBlock(nn.Module):
    """ReLU, 1x1 2h -> h, ReLU, the convolution, ReLU, 1x1 h -> 2h, and what came in. The caller convolves."""

    def __init__(self, hidden: int, data_channels: int):
        super().__init__()
        narrow, wide = colours(hidden, data_channels), colours(2 * hidden, data_channels)
        self.down = RowConv(colour_mask(narrow, wide, "B"))
        self.up = RowConv(colour_mask(wide, narrow, "B"))

    def forward(self, x: Tensor, convolve: Convolve) -> Tensor:
        inner = convolve(self.down(x.relu()).relu())
        return x + self.up(inner.relu())


class PixelCNN(nn.Module):
    """Images (B, C, H, W) uint8 of any size -> logits (B, L, C, H, W), each of what precedes its sub-pixel."""

    def __init__(
        self,
        data_channels: int,
        levels: int,
        condition: nn.Module,
        num_layers: int,
        hidden_channels: int,
        kernel_size: int,
        first_kernel_size: int,
        head_channels: int,
    ):
        check_sizes(data_channels, hidden_channels=hidden_channels, head_channels=head_channels)
        super().__init__()
        self.data_channels, self.condition, self.scale = data_channels, condition, Scale(levels)
        sizes = data_channels, hidden_channels, 2 * hidden_channels
        image, narrow, wide = (colours(size, data_channels) for size in sizes)
        first = CausalConv(colour_mask(wide, image, "A"), first_kernel_size)
        later = (CausalConv(colour_mask(narrow, narrow, "B"), kernel_size) for _ in range(num_layers))
        self.convolutions = nn.ModuleList([first, *later])
        self.blocks = nn.ModuleList(ResidualBlock(hidden_channels, data_channels) for _ in range(num_layers))
        self.head = Head(2 * hidden_channels, head_channels, data_channels, levels)

    def through(self, convolutions: Sequence[Convolve], x: Tensor) -> Tensor:
        """The network from the scaled image to the logits: with its own convolutions, or with a stepper's."""
        h = convolutions[0](x)
        for block, convolve in zip(self.blocks, convolutions[1:], strict=True):
            h = block(h, convolve)
        return self.head(h)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self.condition(cond)
        return self.through(list(self.convolutions), self.scale(x))

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> "Stepper":
        """The state of `batch` images not yet begun (see pixelcnn.generation.sampling.walk)."""
        return Stepper(self, batch, height, width, cond)


class Stepper:
    """A PixelCNN evaluated sub-pixel by sub-pixel, on the state of its convolutions: O(layers x W x h)."""

    def __init__(self, network: PixelCNN, batch: int, height: int, width: int, cond: Tensor | None):
        network.condition(cond)
        self.network = network
        self.shape = (batch, network.data_channels, height, width)
        self.states = [CausalState(conv, batch, width) for conv in cast(list[CausalConv], list(network.convolutions))]
        self.pixel = torch.empty(0)

    def begin_row(self, i: int) -> None:  # noqa: ARG002
        """Go on to row i: convolve the rows above it."""
        for state in self.states:
            state.begin_row()

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        for state in self.states:
            state.column = j
        batch, channels, _, _ = self.shape
        self.pixel = self.states[0].left.new_zeros(batch, channels, 1, 1)

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        """(B, L, C): the logits of the current pixel, right for colour c when its earlier colours have been fed."""
        return self.network.through(self.states, self.pixel)[..., 0, 0]

    def feed(self, c: int, value: Tensor) -> None:
        """Colour c of the current pixel is `value` (B,) integers."""
        self.pixel[:, c, 0, 0] = self.network.scale(value)
        self.states[0].write(self.pixel)
