"""Incremental evaluation of a PixelCNN++: a batch of images, pixel by pixel, for the cost of a few forward passes.

Stream `u` depends on the rows above only, so it runs once per row, through both passes and all resolutions; stream `ul`
runs pixel by pixel. Features at (i, j) of a lower resolution depend on what precedes (2i, 2j) of the next higher one:
they are evaluated between the two passes at that pixel, and their upsampled values are used by the pixels (2i, 2j) to
(2i+1, 2j+1). The order of the blocks and the arithmetic in one are shared with `forward`; only the convolutions read a
state instead of a padded image.

State: the last inputs of each convolution, O(convolutions x W x F) per image. It starts with zeros, the padding of
`forward`.

Shapes: B batch, C data channels, H rows, W columns of the resolution at hand, I input features, O output features,
F hidden features, K outputs per pixel, D condition features. Rows are (B, F, 1, W), pixels (B, F).
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.layers import (
    Convolve,
    NormedConv,
    NormedUpsampling,
    U,
    halve_condition,
    ul_link,
    unet_passes,
)
from pixelcnn.architectures.pixelcnnpp.unet import Block, FirstLayer, LowerResolution, UNet
from pixelcnn.nn.head import Scale


def frozen(conv: NormedConv | NormedUpsampling) -> Convolve:
    """The convolution with its weights normalised now, instead of at each call."""
    return partial(conv.convolve, kernel=conv.kernel())


def frozen_1x1(conv: NormedConv) -> Convolve:
    """The same for a 1x1 convolution, as a linear layer on pixels: (B, I) -> (B, O)."""
    return partial(F.linear, weight=conv.kernel().flatten(1), bias=conv.bias)


class RowState:
    """The state of a convolution of stream `u`: the window of rows under its kernel, with a column on both sides."""

    def __init__(self, conv: NormedConv, batch: int, width: int):
        self.convolve = frozen(conv)
        # Both rows under the kernel, padded: (B, I, 2, 1+W+1)
        self.window = conv.weight.new_zeros(batch, conv.in_channels, U.kernel[0], U.left + width + U.right)

    def write(self, row: Tensor) -> None:
        """Move the window down by one row, whose inputs are `row` (B, I, 1, W), in place."""
        self.window[:, :, :1] = self.window[:, :, 1:]
        self.window[:, :, 1:, U.left : -U.right] = row

    def __call__(self, row: Tensor) -> Tensor:
        """Convolve at the next row, whose inputs are `row` (B, I, 1, W): (B, O, 1, W), or W/2 with stride 2."""
        self.write(row)
        return self.convolve(self.window)


class PixelState:
    """The state of a convolution of stream `ul`: the inputs of the current row so far, with a column on their left.

    What the row above contributes is convolved once per row. The state is channels-last, so that the two columns under
    the kernel are contiguous.
    """

    def __init__(self, conv: NormedConv, batch: int, width: int):
        above, here = conv.kernel().unbind(2)  # (O, I, 2) each
        self.above, self.bias = above.flatten(1), conv.bias  # (O, I*2), as `unfold` lays out its windows
        self.here = here.transpose(1, 2).flatten(1)  # (O, 2*I), as the columns lie in `row`
        self.row = above.new_zeros(batch, 1 + width, conv.in_channels)  # (B, 1+W, I)
        self.from_above: Sequence[Tensor] = ()  # W times (B, O)

    def begin_row(self) -> None:
        """Convolve the finished row, which is the row above from now on. (Before the first row it is zeros.)"""
        windows = self.row.unfold(1, 2, 1).flatten(2)  # (B, W, I, 2) -> (B, W, I*2)
        self.from_above = F.linear(windows, self.above, self.bias).unbind(1)

    def write(self, j: int, pixel: Tensor) -> None:
        """Set the input at column j to `pixel` (B, I), in place."""
        self.row[:, j + 1] = pixel

    def __call__(self, j: int, pixel: Tensor) -> Tensor:
        """Convolve at column j, whose input is `pixel` (B, I): (B, O)."""
        self.write(j, pixel)
        return torch.addmm(self.from_above[j], self.row[:, j : j + 2].flatten(1), self.here.t())  # (B, 2*I) x (2*I, O)


class BlockState:
    """The state of a block's four convolutions, and the features of `u` and the gates' condition in the current row."""

    def __init__(self, block: Block, batch: int, width: int):
        self.u, self.ul = block.u, block.ul
        self.first_u, self.second_u = (RowState(conv, batch, width) for conv in (self.u.first, self.u.second))
        self.first_ul, self.second_ul = (PixelState(conv, batch, width) for conv in (self.ul.first, self.ul.second))
        self.link_u = None if self.u.link is None else frozen(self.u.link)
        self.link_ul = None if self.ul.link is None else frozen_1x1(self.ul.link)
        self.row: Sequence[Tensor] = ()  # `u`: W times (B, F)
        self.gates: Sequence[Tensor | None] = ()  # what the condition adds in `ul`: W times (B, 2F)

    def begin_row(self, u: Tensor, skip: Tensor | None = None, *, cond: Tensor | None) -> Tensor:
        """Evaluate stream `u` in the next row, (B, F, 1, W); cond is the row of a condition map, (B, D, 1, 1 or W)."""
        self.first_ul.begin_row()
        self.second_ul.begin_row()
        width, gates = u.shape[3], self.ul.gates(cond)
        # (B, 2F, 1 or W) -> W times (B, 2F)
        self.gates = [None] * width if gates is None else gates[:, :, 0].expand(-1, -1, width).unbind(2)
        u = self.u.forward_with(self.first_u, self.link_u, self.second_u, u, skip, self.u.gates(cond))
        self.row = u[:, :, 0].unbind(2)
        return u

    def pixel(self, j: int, ul: Tensor, skip: Tensor | None = None) -> Tensor:
        """Evaluate stream `ul` at column j, (B, F)."""
        first, second = partial(self.first_ul, j), partial(self.second_ul, j)
        linked = ul_link(self.row[j], skip)  # (B, F or 2F)
        return self.ul.forward_with(first, self.link_ul, second, ul, linked, self.gates[j])


class UNetState:
    """The state of both passes at one resolution and of the lower ones; cond: a condition map of this resolution."""

    def __init__(self, unet: UNet, cond: Tensor | None, batch: int, width: int):
        self.cond = cond
        self.down, self.up = (
            [BlockState(cast(Block, block), batch, width) for block in blocks] for blocks in (unet.down, unet.up)
        )
        lower = unet.coarser
        self.lower = None if lower is None else LowerResolutionState(lower, halve_condition(cond), batch, width)

    def begin_row(self, i: int, u: Tensor) -> Tensor:
        """Evaluate stream `u` in row i, (B, F, 1, W)."""
        cond = self.cond
        if cond is not None and cond.shape[2] > 1:
            cond = cond[:, :, i : i + 1]  # (B, D, 1, W)
        down, up = ([partial(block.begin_row, cond=cond) for block in blocks] for blocks in (self.down, self.up))
        return unet_passes(u, down, None if self.lower is None else partial(self.lower.begin_row, i), up)

    def pixel(self, i: int, j: int, ul: Tensor) -> Tensor:
        """Evaluate stream `ul` at (i, j), (B, F)."""
        down, up = ([partial(block.pixel, j) for block in blocks] for blocks in (self.down, self.up))
        return unet_passes(ul, down, None if self.lower is None else partial(self.lower.pixel, i, j), up)


class LowerResolutionState:
    """The state of a lower resolution: it is given every row and pixel, and evaluated at even rows and columns.

    u, ul (B, F, 2, W): the latest upsampled features, for rows i and i+1 of the higher resolution, i even.
    """

    def __init__(self, lower: LowerResolution, cond: Tensor | None, batch: int, width: int):
        self.halve_u = RowState(lower.halve_u, batch, width)
        self.halve_ul = PixelState(lower.halve_ul, batch, width)
        self.inner = UNetState(lower.inner, cond, batch, width // 2)
        self.double_u, self.double_ul = frozen(lower.double_u), frozen(lower.double_ul)
        self.u = self.ul = lower.double_ul.weight.new_zeros(batch, lower.double_ul.out_channels, 2, width)

    def begin_row(self, i: int, u: Tensor) -> Tensor:
        """Stream `u` in row i of the higher resolution, from the pass down to the pass up: (B, F, 1, W) each."""
        if i % 2:
            self.halve_u.write(u)  # an odd row is only an input of the next even one
            return self.u[:, :, 1:]
        self.halve_ul.begin_row()
        self.u = self.double_u(self.inner.begin_row(i // 2, self.halve_u(u)))  # (B, F, 1, W/2) -> (B, F, 2, W)
        return self.u[:, :, :1]

    def pixel(self, i: int, j: int, ul: Tensor) -> Tensor:
        """Stream `ul` at (i, j) of the higher resolution, from the pass down to the pass up: (B, F) each."""
        if i % 2 or j % 2:
            self.halve_ul.write(j, ul)
        else:
            inner = self.inner.pixel(i // 2, j // 2, self.halve_ul(j, ul))
            self.ul[..., j : j + 2] = self.double_ul(inner[:, :, None, None])  # (B, F, 1, 1) -> (B, F, 2, 2)
        return self.ul[:, :, i % 2, j]


class PixelCNNPlusPlusStepper:
    """The state of a batch of images not yet begun (pixelcnn.nn.interfaces.Stepper), on normalised weights."""

    @torch.no_grad()
    def __init__(
        self,
        first: FirstLayer,
        trunk: UNet,
        out: NormedConv,
        scale: Scale,
        cond_map: Tensor | None,
        shape: tuple[int, int, int, int],
    ):
        # A copy, so that later changes of the weights do not change the outputs
        first, trunk, out = copy.deepcopy(first), copy.deepcopy(trunk), copy.deepcopy(out)
        batch, channels, _, width = self.shape = shape
        self.first_u, self.above, self.left = frozen(first.u), frozen(first.above), frozen(first.left)
        self.trunk = UNetState(trunk, cond_map, batch, width)
        self.out, self.scale = frozen_1x1(out), scale
        # The scaled rows i-2, i-1 and i: (B, C+1, 3, 1+W+1)
        self.image = out.weight.new_zeros(batch, channels + 1, 3, 1 + width + 1)
        self.row = self.column = 0
        self.from_above = self.of_pixel = torch.empty(0)

    @torch.no_grad()
    def begin_row(self, i: int) -> None:
        """Go on to row i: evaluate stream `u`, and what else depends on the rows above only."""
        self.row = i
        self.image[:, :, :2] = self.image[:, :, 1:].clone()
        # The ones of `PixelCNNPlusPlus.inputs`; the other channels of that row are overwritten before they are read
        self.image[:, -1:, 2, 1:-1] = 1
        self.from_above = self.above(self.image[:, :, 1:2])  # (B, F, 1, W)
        self.trunk.begin_row(i, self.first_u(self.image[:, :, :2]))

    @torch.no_grad()
    def begin_pixel(self, j: int) -> None:
        """Go on to column j: evaluate stream `ul` and the outputs, which depend on no channel of the pixel itself."""
        self.column = j
        ul = self.from_above[..., j : j + 1] + self.left(self.image[:, :, 1:, j : j + 1])  # (B, F, 1, 1)
        self.of_pixel = self.out(F.elu(self.trunk.pixel(self.row, j, ul[:, :, 0, 0])))  # (B, K)

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        """(B, K): the outputs of the current pixel, the same for each of its channels."""
        return self.of_pixel

    def feed(self, c: int, value: Tensor) -> None:
        """Channel c of the current pixel is `value` (B,) integers."""
        self.image[:, c, 2, 1 + self.column] = self.scale(value)
