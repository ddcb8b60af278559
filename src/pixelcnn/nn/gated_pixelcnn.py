"""The Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328, section 2), unconditional or conditional.

A first layer with mask A, `num_layers` in all, then the head: ReLU, 1x1, ReLU, 1x1, both masked by colour
(as in PixelRNN, arXiv:1601.06759, table 1). No batch normalisation: it would let an image's NLL depend on the batch.

Shapes: B batch, C data channels, H rows, W columns, F hidden features, L levels.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.nn.gated_layer import GatedLayer
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

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> "Stepper":
        """The state of `batch` images not yet begun (see pixelcnn.sampling.walk)."""
        return Stepper(self, batch, height, width, cond)


class Stepper:
    """A Gated PixelCNN evaluated sub-pixel by sub-pixel, by the layers' own methods on windows of its state.

    The vertical stack runs once per row, the horizontal stack once per sub-pixel, on the pixel and its left context.
    State: per layer p rows of vertical and one row of horizontal inputs, O(layers x W x F); zeros, the padding of
    `forward`, are the state of an image not yet begun.
    """

    def __init__(self, network: GatedPixelCNN, batch: int, height: int, width: int, cond: Tensor | None):
        assert not network.training, "a stepper evaluates: call network.eval() first"
        self.network = network
        self.layers = cast(list[GatedLayer], list(network.layers))
        self.shape = (batch, network.data_channels, height, width)
        cond_map = network.condition(cond)
        self.biases = [layer.biases(cond_map) for layer in self.layers]
        zeros = next(network.parameters()).new_zeros
        inputs = [layer.vertical.in_channels for layer in self.layers]
        reaches = [layer.reach for layer in self.layers]
        self.above = [zeros(batch, n, p, p + width + p) for n, p in zip(inputs, reaches, strict=True)]
        self.left = [zeros(batch, n, 1, p + width) for n, p in zip(inputs, reaches, strict=True)]
        self.links: list[Tensor] = []
        self.column = 0

    def begin_row(self, i: int) -> None:
        """Run the vertical stack on the rows above i."""
        row = self.left[0][..., self.layers[0].reach :].clone()  # of the image, finished: row i-1
        if i == 0:
            row = row[:, :, :0]
        self.links = []
        for n, layer in enumerate(self.layers):
            p = layer.reach
            window = torch.cat([self.above[n], F.pad(row, (p, p))], dim=2)
            window = window[:, :, -layer.vertical.kernel_size[0] :]
            self.above[n] = window[:, :, window.shape[2] - p :]
            bias_v, bias_h = (_row(bias, i) for bias in self.biases[n])
            row, link = layer.step_vertical(window, bias_v)
            self.links.append(link + bias_h)
            self.left[n][..., p:] = 0

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column = j

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        """(B, L, C): the logits of the current pixel, right for colour c when its earlier colours have been fed."""
        j = self.column
        h = self.left[0][..., :0]
        for n, layer in enumerate(self.layers):
            here = layer.reach + j
            if n:
                self.left[n][..., here : here + 1] = h
            h = layer.step_horizontal(self.left[n][..., j : here + 1], self.links[n][..., j : j + 1])
        return self.network.head(h)[..., 0, 0]

    def feed(self, c: int, value: Tensor) -> None:
        """Colour c of the current pixel is `value` (B,) integers."""
        self.left[0][:, c, 0, self.layers[0].reach + self.column] = self.network.scale(value)


def _row(bias: Tensor | float, i: int) -> Tensor | float:
    """Row i of a bias that may be a map."""
    return bias[:, :, i : i + 1] if isinstance(bias, Tensor) and bias.shape[2] > 1 else bias
