"""One layer of the Gated PixelCNN: a vertical and a horizontal stack (arXiv:1606.05328, figure 2, equations 2, 4, 5).

The receptive field of the vertical features at (i, j) is in the rows above i; that of the horizontal ones also includes
row i to the left of j and the earlier colours of the pixel itself. The first layer alone shifts the vertical stack up
by one row: its vertical kernel ends above the current row. A shift in every layer would bring back the blind spot of
the PixelCNN. Only the horizontal stack needs colour masks: everything a vertical feature depends on precedes row i.

Shapes: B batch, I input features, F hidden features, H rows, W columns, D condition features,
p = kernel_size // 2 (the kernel's half-width).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours


def gated_activation(features: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b) of the two halves a, b of the features (equation 2): (B, 2F, ...) -> (B, F, ...)."""
    a, b = features.chunk(2, dim=1)  # (B, F, ...) each
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """Both stacks of one layer.

    first: the input is the image (mask A, no residual connection); otherwise features (mask B).
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        data_channels: int,
        kernel_size: int,
        cond_channels: int,
        dropout: float,
        first: bool,
    ):
        super().__init__()
        self.reach = kernel_size // 2  # half-width of the kernel
        self.first = first
        hidden_colours = colours(hidden, data_channels)
        gate_colours = hidden_colours.repeat(2)  # (2F,): each half of the gate is colour-major
        rows = self.reach + (0 if first else 1)  # the first layer leaves out the current row
        self.vertical = nn.Conv2d(inputs, 2 * hidden, (rows, kernel_size))
        self.link = nn.Conv2d(2 * hidden, 2 * hidden, 1)  # from the vertical to the horizontal stack
        mask = colour_mask(gate_colours, colours(inputs, data_channels), "A" if first else "B")
        self.horizontal = RowConv(mask, left=self.reach)
        self.out = RowConv(colour_mask(hidden_colours, hidden_colours, "B"))
        self.dropout = nn.Dropout(dropout)
        # V of equations 4 and 5, one for each stack; the two halves of its outputs are V_f and V_g
        self.cond_vertical = nn.Conv2d(cond_channels, 2 * hidden, 1, bias=False) if cond_channels else None
        self.cond_horizontal = nn.Conv2d(cond_channels, 2 * hidden, 1, bias=False) if cond_channels else None

    def biases(self, cond: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """What the condition adds to each stack before its gate: (B, D, 1 or H, 1 or W) -> (B, 2F, ...) each, or 0."""
        if cond is None or self.cond_vertical is None or self.cond_horizontal is None:
            return 0.0, 0.0
        cond = cond.to(self.cond_vertical.weight.dtype)  # one-hot labels are integers
        return self.cond_vertical(cond), self.cond_horizontal(cond)

    def step_vertical(self, window: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor]:
        """The vertical stack on a window with its context: the rows under the kernel, and p columns on both sides.

        Returns the features (B, F, H, W), and the input (B, 2F, H, W) of the horizontal stack through the link, which
        branches off before the gate.
        """
        features = self.vertical(window)  # (B, 2F, H, W)
        return self.dropout(gated_activation(features + bias)), self.link(features)

    def step_horizontal(self, window: Tensor, link: Tensor) -> Tensor:
        """The horizontal stack on a window (B, I, H, p+W) with p columns of context on its left: (B, F, H, W).

        link: (B, 2F, H, W), the sum of what the vertical stack and the condition contribute.
        """
        h = self.out(self.dropout(gated_activation(self.horizontal(window) + link)))  # (B, F, H, W)
        return h if self.first else h + window[..., self.reach :]

    def forward(self, v: Tensor, h: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Whole images, zero-padded: inputs v and h of the two stacks, (B, I, H, W) each, to (B, F, H, W) each."""
        p = self.reach
        bias_v, bias_h = self.biases(cond)
        above = v[:, :, :-1] if self.first else v  # the first layer's kernel ends above the current row
        v, link = self.step_vertical(F.pad(above, (p, p, p, 0)), bias_v)  # (B, F, H, W) and (B, 2F, H, W)
        return v, self.step_horizontal(F.pad(h, (p, 0)), link + bias_h)
