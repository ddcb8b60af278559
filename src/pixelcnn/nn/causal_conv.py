"""The k x k masked convolution of arXiv:1601.06759, section 3.4, cropped: what its mask would zero is not computed.

Shapes: B batch, I input features, O output features, H rows, W columns, p = kernel_size // 2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.nn.masked_conv import RowConv


class CausalConv(nn.Module):
    """The p rows above a pixel in full, p pixels to its left in full, the pixel itself by `centre_mask` (O, I)."""

    def __init__(self, centre_mask: Tensor, kernel_size: int):
        assert kernel_size % 2, f"{kernel_size} is not odd: a masked kernel has a centre"
        assert kernel_size >= 3, f"{kernel_size} is not at least 3: 1 is a RowConv"
        super().__init__()
        outputs, inputs = centre_mask.shape
        self.reach = kernel_size // 2
        self.above = nn.Conv2d(inputs, outputs, (self.reach, kernel_size), bias=False)
        self.row = RowConv(centre_mask, left=self.reach)

    def forward(self, x: Tensor) -> Tensor:
        """Whole images (B, I, H, W) -> (B, O, H, W)."""
        p = self.reach
        return self.above(F.pad(x[:, :, :-1], (p, p, p, 0))) + self.row(F.pad(x, (p, 0)))


class CausalState:
    """A CausalConv fed pixel by pixel: p rows of its inputs above, and the current row so far.

    Zeros, the padding of `forward`, are the state of an image not yet begun.
    """

    def __init__(self, conv: CausalConv, batch: int, width: int):
        self.conv, self.column = conv, 0
        p, inputs, zeros = conv.reach, conv.above.in_channels, conv.above.weight.new_zeros
        self.above = zeros(batch, inputs, p, p + width + p)
        self.left = zeros(batch, inputs, 1, p + width)

    def begin_row(self) -> None:
        """The current row is finished: it is the row above from now on. (Before the first row it is zeros.)"""
        p = self.conv.reach
        finished = F.pad(self.left[..., p:], (p, p))
        self.above = torch.cat([self.above[:, :, 1:], finished], dim=2)
        self.link = self.conv.above(self.above)

    def write(self, pixel: Tensor) -> None:
        """The input at the current column is `pixel` (B, I, 1, 1)."""
        here = self.conv.reach + self.column
        self.left[..., here : here + 1] = pixel

    def __call__(self, pixel: Tensor) -> Tensor:
        """The convolution at the current column, whose input is `pixel` (B, I, 1, 1): (B, O, 1, 1)."""
        self.write(pixel)
        j = self.column
        return self.link[..., j : j + 1] + self.conv.row(self.left[..., j : j + self.conv.reach + 1])
