"""The Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328, section 2), unconditional or conditional.

A first layer with mask A, `num_layers` in all, then the head: ReLU, 1x1, ReLU, 1x1, both masked by colour
(as in PixelRNN, arXiv:1601.06759, table 1). No batch normalisation: it would let an image's NLL depend on the batch.

Shapes: B batch, C data channels, H rows, W columns, F hidden features, L levels.
"""

from typing import cast

from torch import Tensor, nn

from pixelcnn.nn.gated_pixelcnn.layer import GatedLayer
from pixelcnn.nn.gated_pixelcnn.stepper import Stepper
from pixelcnn.nn.head import Head, Scale, check_sizes


class GatedPixelCNN(nn.Module):
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
        dropout: float,
    ):
        check_sizes(data_channels, hidden_channels=hidden_channels, head_channels=head_channels)
        super().__init__()
        self.data_channels, self.condition, self.scale = data_channels, condition, Scale(levels)
        self.layers = nn.ModuleList(
            GatedLayer(
                inputs=hidden_channels if n else data_channels,
                hidden=hidden_channels,
                data_channels=data_channels,
                kernel_size=kernel_size if n else first_kernel_size,
                cond_channels=cast(int, condition.channels),
                dropout=dropout,
                first=n == 0,
            )
            for n in range(num_layers)
        )
        self.head = Head(hidden_channels, head_channels, data_channels, levels)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        cond_map = self.condition(cond)
        v = h = self.scale(x)
        for layer in self.layers:
            v, h = layer(v, h, cond_map)
        return self.head(h)

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> Stepper:
        """The state of `batch` images not yet begun (see pixelcnn.generation.sampling.walk)."""
        assert not self.training, "a stepper evaluates: call network.eval() first"
        layers = cast(list[GatedLayer], list(self.layers))
        shape = (batch, self.data_channels, height, width)
        return Stepper(layers, self.head, self.scale, self.condition(cond), shape)
