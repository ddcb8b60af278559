"""The PixelCNN (van den Oord et al. 2016, arXiv:1601.06759, sections 3.3 to 3.5): the Gated PixelCNN's predecessor.

A first convolution with mask A, `num_layers` residual blocks (figure 5, left), then the head. One stack of masked
convolutions has a blind spot, which is part of the model: each block extends the receptive field by one kernel upwards
and, in the rows above, to the right, but never to the right without going up. The row above is seen within the reach of
one kernel only, however deep the network; arXiv:1606.05328 has its second stack for that reason.

Shapes: B batch, C data channels, H rows, W columns, h hidden channels (the stream between blocks has 2h), K outputs per
sub-pixel.
"""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from pixelcnn.architectures.pixelcnn.config import Config
from pixelcnn.nn.causal_conv import CausalConv, CausalState
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.interfaces import Network, Spec
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours

Convolve = Callable[[Tensor], Tensor]


class ResidualBlock(nn.Module):
    """ReLU, 1x1 2h -> h, ReLU, k x k, ReLU, 1x1 h -> 2h, and the residual connection. The caller convolves k x k."""

    def __init__(self, hidden: int, data_channels: int):
        super().__init__()
        narrow, wide = colours(hidden, data_channels), colours(2 * hidden, data_channels)
        self.down = RowConv(colour_mask(narrow, wide, "B"))
        self.up = RowConv(colour_mask(wide, narrow, "B"))

    def forward(self, x: Tensor, convolve: Convolve) -> Tensor:
        inner = convolve(self.down(x.relu()).relu())
        return x + self.up(inner.relu())


class PixelCNN(Network):
    """Images (B, C, H, W) uint8 of any size -> outputs (B, K, C, H, W), each of the sub-pixels that precede its own."""

    incremental = True

    def __init__(self, config: Config, spec: Spec):
        channels, hidden = spec.shape[0], config.hidden_channels
        check_sizes(channels, hidden_channels=hidden, head_channels=config.head_channels)
        super().__init__()
        self.data_channels, self.likelihood, self.condition = channels, spec.likelihood, spec.condition
        self.scale = Scale(spec.levels)
        image, narrow, wide = (colours(size, channels) for size in (channels, hidden, 2 * hidden))
        first = CausalConv(colour_mask(wide, image, "A"), config.first_kernel_size)
        later = (CausalConv(colour_mask(narrow, narrow, "B"), config.kernel_size) for _ in range(config.num_layers))
        self.convolutions = nn.ModuleList([first, *later])
        self.blocks = nn.ModuleList(ResidualBlock(hidden, channels) for _ in range(config.num_layers))
        self.head = Head(2 * hidden, config.head_channels, channels, spec.likelihood)

    def forward_with(self, convolutions: Sequence[Convolve], x: Tensor) -> Tensor:
        """From the scaled image to the outputs: with the network's own convolutions, or with a stepper's."""
        h = convolutions[0](x)
        for block, convolve in zip(self.blocks, convolutions[1:], strict=True):
            h = block(h, convolve)
        return self.head(h)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self.condition(cond)
        return self.forward_with(list(self.convolutions), self.scale(x))

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> "PixelCNNStepper":
        """The state of `batch` images not yet begun."""
        self.condition(cond)
        return PixelCNNStepper(self, batch, height, width)


class PixelCNNStepper:
    """A PixelCNN evaluated sub-pixel by sub-pixel, on the state of its convolutions: O(layers x W x h) per image."""

    def __init__(self, network: PixelCNN, batch: int, height: int, width: int):
        self.network, self.period = network, 1
        self.shape = (batch, network.data_channels, height, width)
        self.states = [CausalState(conv, batch, width) for conv in cast(list[CausalConv], list(network.convolutions))]
        self.pixel = self.states[0].left.new_zeros(batch, network.data_channels, 1, 1)

    def reset(self, cond: Tensor | None = None) -> None:
        """Go back to images not begun."""
        self.network.condition(cond)
        for state in self.states:
            state.reset()

    def locate(self, i: int) -> None:
        """All rows are alike."""

    def begin_row(self, i: int) -> None:  # noqa: ARG002
        """Go on to row i: convolve the rows above it."""
        for state in self.states:
            state.begin_row()

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        for state in self.states:
            state.column = j
        self.pixel.zero_()

    def outputs(self, c: int) -> Tensor:
        """(B, K): the outputs of channel c of the current pixel."""
        return self.network.forward_with(self.states, self.pixel)[:, :, c, 0, 0]

    def feed(self, c: int, value: Tensor) -> None:
        """Channel c of the current pixel is `value` (B,) or (B, 1) integers."""
        self.pixel[:, c, 0] = self.network.scale(value.view(-1, 1))
        self.states[0].write(self.pixel)


def build(config: Config, spec: Spec) -> PixelCNN:
    """The network that the section describes."""
    return PixelCNN(config, spec)
