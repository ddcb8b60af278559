"""The PixelCNN (van den Oord et al. 2016, arXiv:1601.06759, sections 3.3 to 3.5): the Gated PixelCNN's predecessor.

A first convolution with mask A, `num_layers` residual blocks (figure 5, left), then the head. One stack of masked
convolutions has a blind spot, which is part of the model: each block extends the receptive field by one kernel upwards
and, in the rows above, to the right, but never to the right without going up. The row above is seen within the reach of
one kernel only, however deep the network; arXiv:1606.05328 has its second stack for that reason.

Shapes: B batch, C data channels, H rows, W columns, h hidden channels (the stream between blocks has 2h), K outputs per
sub-pixel.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from pixelcnn.architectures.pixelcnn.config import Config
from pixelcnn.nn.causal_conv import CausalConv, CausalState
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.interfaces import Network, Spec
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours, fold_masks
from pixelcnn.nn.stack_stepper import Layer, StackStepper


class ResidualBlock(nn.Module):
    """ReLU, 1x1 2h -> h, ReLU, k x k, ReLU, 1x1 h -> 2h, and the residual connection. The caller convolves k x k."""

    def __init__(self, hidden: int, data_channels: int):
        super().__init__()
        narrow, wide = colours(hidden, data_channels), colours(2 * hidden, data_channels)
        self.down = RowConv(colour_mask(narrow, wide, "B"))
        self.up = RowConv(colour_mask(wide, narrow, "B"))

    def forward(self, x: Tensor, convolve: Layer) -> Tensor:
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

    def forward_with(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        """From the scaled image to the outputs: with the network's own convolutions, or with a stepper's."""
        h = layers[0](x)
        for block, convolve in zip(self.blocks, layers[1:], strict=True):
            h = block(h, convolve)
        return self.head(h)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self.condition(cond)
        return self.forward_with(list(self.convolutions), self.scale(x))

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> StackStepper:
        """The state of `batch` images not yet begun."""
        self.condition(cond)
        folded = fold_masks(self)
        convolutions = cast(list[CausalConv], list(folded.convolutions))
        first, *others = (CausalState(conv, batch, width) for conv in convolutions)
        return StackStepper(folded, first, others, (batch, self.data_channels, height, width))


def build(config: Config, spec: Spec) -> PixelCNN:
    """The network that the section describes."""
    return PixelCNN(config, spec)
