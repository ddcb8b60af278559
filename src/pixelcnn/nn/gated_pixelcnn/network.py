"""The Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328, section 2), unconditional or conditional.

A first layer with mask A, `num_layers` in all, then the head: ReLU, 1x1, ReLU, 1x1, both with mask B (as in PixelRNN,
arXiv:1601.06759, table 1). No batch normalisation: it would let an image's NLL depend on its batch.

Shapes: B batch, C data channels, H rows, W columns, F hidden features, K outputs per sub-pixel.
"""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from pixelcnn.nn.gated_pixelcnn.config import GatedSizes
from pixelcnn.nn.gated_pixelcnn.layer import GatedLayer
from pixelcnn.nn.gated_pixelcnn.stepper import GatedStepper
from pixelcnn.nn.head import Head, Scale, check_sizes
from pixelcnn.nn.interfaces import Network, Spec


class GatedPixelCNN(Network):
    """Images (B, C, H, W) uint8 of any size -> outputs (B, K, C, H, W), each of the sub-pixels that precede its own."""

    incremental = True

    def __init__(self, sizes: GatedSizes, spec: Spec):
        channels, hidden = spec.shape[0], sizes.hidden_channels
        check_sizes(channels, hidden_channels=hidden, head_channels=sizes.head_channels)
        super().__init__()
        self.data_channels, self.likelihood, self.condition = channels, spec.likelihood, spec.condition
        self.scale = Scale(spec.levels)
        self.layers = nn.ModuleList(
            GatedLayer(
                inputs=hidden if n else channels,
                hidden=hidden,
                data_channels=channels,
                kernel_size=sizes.kernel_size if n else sizes.first_kernel_size,
                cond_channels=spec.condition.channels,
                dropout=sizes.dropout,
                first=n == 0,
            )
            for n in range(sizes.num_layers)
        )
        self.head = Head(hidden, sizes.head_channels, channels, spec.likelihood)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        cond_map = self.condition(cond)
        v = h = self.scale(x)  # (B, C, H, W): the input of both stacks
        for layer in self.layers:
            v, h = layer(v, h, cond_map)  # (B, F, H, W) each
        return self.head(h)

    def regions(self) -> Iterable[nn.Module]:
        """The layers, and the head."""
        return [*self.layers, self.head]

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> GatedStepper:
        """The state of `batch` images not yet begun, on packed weights."""
        assert not self.training, "a stepper evaluates: call network.eval() first"
        layers = cast(list[GatedLayer], list(self.layers))
        shape = (batch, self.data_channels, height, width)
        return GatedStepper(layers, self.head, self.scale, self.condition, cond, shape)
