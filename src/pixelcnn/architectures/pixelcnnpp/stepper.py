"""A PixelCNN++ evaluated pixel by pixel: a batch of images for a few forward passes, instead of one for each pixel.

Stream `u` knows rows above only, so per row it runs once, through both passes and all resolutions; stream `ul` follows
pixel by pixel, linked to it. Coarse (i, j) knows what precedes fine (2i, 2j), so it is evaluated between the two passes
of that fine pixel, and what is doubled from it serves the fine pixels (2i, 2j) to (2i+1, 2j+1). The order of blocks and
what happens in one are those of `forward`; only the convolutions read a state instead of a padded image.

State: the last inputs of each convolution, O(convolutions x W x F) per image. Zeros, the padding of `forward`, are the
state of an image not yet begun.

Shapes: B batch, C data channels, H rows, W columns of the resolution at hand, I input features, O output features,
F hidden features, P outputs per pixel, D condition features. Rows are (B, F, 1, W), pixels (B, F).
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.layers import (
    Convolve,
    NormedConv,
    NormedUpsampling,
    U,
    down_and_up,
    halved,
    link_of_ul,
)

if TYPE_CHECKING:  # the network makes its stepper
    from pixelcnn.architectures.pixelcnnpp.network import Block, Coarser, PixelCNNPlusPlus, Resolution


def fixed(conv: NormedConv | NormedUpsampling) -> Convolve:
    """A convolution whose weights are normalised once, not at each call."""
    return partial(conv.convolve, kernel=conv.kernel())


def fixed_on_pixels(conv: NormedConv) -> Convolve:
    """A 1x1 convolution for pixels (B, I) -> (B, O), normalised once."""
    return partial(F.linear, weight=conv.kernel().flatten(1), bias=conv.bias)


class RowState:
    """A convolution of stream `u`, fed row by row: the window of rows under its kernel, with a column on both sides."""

    def __init__(self, conv: NormedConv, batch: int, width: int):
        self.convolve = fixed(conv)
        self.window = conv.weight.new_zeros(batch, conv.in_channels, U.kernel[0], U.left + width + U.right)

    def write(self, row: Tensor) -> None:
        """The next row of inputs, (B, I, 1, W)."""
        self.window[:, :, :1] = self.window[:, :, 1:]
        self.window[:, :, 1:, U.left : -U.right] = row

    def __call__(self, row: Tensor) -> Tensor:
        """The convolution at the next row, whose inputs are (B, I, 1, W)."""
        self.write(row)
        return self.convolve(self.window)


class PixelState:
    """A convolution of stream `ul`, fed pixel by pixel: the inputs of the row so far, with a column on their left.

    What the row above contributes is convolved once per row. Features lie last, so that the two columns under the
    kernel are one stretch of memory.
    """

    def __init__(self, conv: NormedConv, batch: int, width: int):
        above, here = conv.kernel().unbind(2)  # (O, I, 2) each
        self.above, self.bias = above.flatten(1), conv.bias
        self.here = here.transpose(1, 2).flatten(1)
        self.row = above.new_zeros(batch, 1 + width, conv.in_channels)
        self.from_above: Sequence[Tensor] = ()

    def begin_row(self) -> None:
        """The row is finished: it is the row above from now on. (Before the first row it is zeros.)"""
        windows = self.row.unfold(1, 2, 1).flatten(2)  # (B, W, 2I)
        self.from_above = F.linear(windows, self.above, self.bias).unbind(1)

    def write(self, j: int, pixel: Tensor) -> None:
        """The input at column j is `pixel` (B, I)."""
        self.row[:, j + 1] = pixel

    def __call__(self, j: int, pixel: Tensor) -> Tensor:
        """The convolution at column j, whose input is `pixel` (B, I): (B, O)."""
        self.write(j, pixel)
        return torch.addmm(self.from_above[j], self.row[:, j : j + 2].flatten(1), self.here.t())


class BlockState:
    """A block's four convolutions and, for the current row, what its stream `ul` gets from `u` and the condition."""

    def __init__(self, block: "Block", batch: int, width: int):
        self.u, self.ul = block.u, block.ul
        self.first_u, self.second_u = (RowState(conv, batch, width) for conv in (self.u.first, self.u.second))
        self.first_ul, self.second_ul = (PixelState(conv, batch, width) for conv in (self.ul.first, self.ul.second))
        self.link_u = None if self.u.link is None else fixed(self.u.link)
        self.link_ul = None if self.ul.link is None else fixed_on_pixels(self.ul.link)
        self.row: Sequence[Tensor] = ()
        self.gates: Sequence[Tensor | None] = ()

    def begin_row(self, u: Tensor, short_cut: Tensor | None = None, *, cond: Tensor | None) -> Tensor:
        """Stream `u` of the next row, (B, F, 1, W); the condition's row is (B, D, 1, 1 or W)."""
        self.first_ul.begin_row()
        self.second_ul.begin_row()
        width, gates = u.shape[3], self.ul.gates(cond)
        self.gates = [None] * width if gates is None else gates[:, :, 0].expand(-1, -1, width).unbind(2)
        u = self.u.through(self.first_u, self.link_u, self.second_u, u, short_cut, self.u.gates(cond))
        self.row = u[:, :, 0].unbind(2)
        return u

    def pixel(self, j: int, ul: Tensor, short_cut: Tensor | None = None) -> Tensor:
        """Stream `ul` at column j, (B, F)."""
        first, second = partial(self.first_ul, j), partial(self.second_ul, j)
        linked = link_of_ul(self.row[j], short_cut)
        return self.ul.through(first, self.link_ul, second, ul, linked, self.gates[j])


class ResolutionState:
    """Both passes at one resolution, with the coarser ones between them; cond is a map of this resolution's size."""

    def __init__(self, resolution: "Resolution", cond: Tensor | None, batch: int, width: int):
        self.cond = cond
        self.down, self.up = (
            [BlockState(cast("Block", block), batch, width) for block in blocks]
            for blocks in (resolution.down, resolution.up)
        )
        coarser = resolution.coarser
        self.coarser = None if coarser is None else CoarserState(coarser, halved(cond), batch, width)

    def begin_row(self, i: int, u: Tensor) -> Tensor:
        """Stream `u` of row i, (B, F, 1, W)."""
        cond = self.cond
        if cond is not None and cond.shape[2] > 1:
            cond = cond[:, :, i : i + 1]
        down, up = ([partial(block.begin_row, cond=cond) for block in blocks] for blocks in (self.down, self.up))
        return down_and_up(u, down, None if self.coarser is None else partial(self.coarser.begin_row, i), up)

    def pixel(self, i: int, j: int, ul: Tensor) -> Tensor:
        """Stream `ul` at (i, j), (B, F)."""
        down, up = ([partial(block.pixel, j) for block in blocks] for blocks in (self.down, self.up))
        return down_and_up(ul, down, None if self.coarser is None else partial(self.coarser.pixel, i, j), up)


class CoarserState:
    """Half the resolution: fed with every fine row and pixel, evaluated where both row and column are even.

    u, ul (B, F, 2, W): what was doubled last, for the fine rows 2i and 2i+1.
    """

    def __init__(self, coarser: "Coarser", cond: Tensor | None, batch: int, width: int):
        self.halve_u = RowState(coarser.halve_u, batch, width)
        self.halve_ul = PixelState(coarser.halve_ul, batch, width)
        self.inner = ResolutionState(coarser.inner, cond, batch, width // 2)
        self.double_u, self.double_ul = fixed(coarser.double_u), fixed(coarser.double_ul)
        self.u = self.ul = coarser.double_ul.weight.new_zeros(batch, coarser.double_ul.out_channels, 2, width)

    def begin_row(self, i: int, u: Tensor) -> Tensor:
        """Stream `u` of the fine row i on the pass down -> on the pass up, (B, F, 1, W) each."""
        if i % 2:
            self.halve_u.write(u)
            return self.u[:, :, 1:]
        self.halve_ul.begin_row()
        self.u = self.double_u(self.inner.begin_row(i // 2, self.halve_u(u)))
        return self.u[:, :, :1]

    def pixel(self, i: int, j: int, ul: Tensor) -> Tensor:
        """Stream `ul` at the fine (i, j) on the pass down -> on the pass up, (B, F) each."""
        if i % 2 or j % 2:
            self.halve_ul.write(j, ul)
        else:
            inner = self.inner.pixel(i // 2, j // 2, self.halve_ul(j, ul))
            self.ul[..., j : j + 2] = self.double_ul(inner[:, :, None, None])
        return self.ul[:, :, i % 2, j]


class Stepper:
    """The state of a batch of images not yet begun (see pixelcnn.generation.sampling.walk), with the weights as they are now."""

    @torch.no_grad()
    def __init__(self, network: "PixelCNNPlusPlus", batch: int, height: int, width: int, cond: Tensor | None):
        network = copy.deepcopy(network)
        first, inputs = network.first, network.first.u.in_channels
        self.first_u, self.above, self.left = fixed(first.u), fixed(first.above), fixed(first.left)
        self.trunk = ResolutionState(network.trunk, network.cond_map(cond), batch, width)
        self.out, self.scale = fixed_on_pixels(network.out), network.scale
        self.shape = (batch, inputs - 1, height, width)
        self.image = network.out.weight.new_zeros(batch, inputs, 3, 1 + width + 1)  # rows i-2, i-1 and i
        self.row = self.column = 0
        self.from_above = self.of_pixel = torch.empty(0)

    @torch.no_grad()
    def begin_row(self, i: int) -> None:
        """Run stream `u` of row i, and what else depends on rows above only."""
        self.row = i
        self.image[:, :, :2] = self.image[:, :, 1:].clone()
        self.image[:, -1:, 2, 1:-1] = 1  # the ones of `PixelCNNPlusPlus.inputs`; what lies right of a pixel is not read
        self.from_above = self.above(self.image[:, :, 1:2])
        self.trunk.begin_row(i, self.first_u(self.image[:, :, :2]))

    @torch.no_grad()
    def begin_pixel(self, j: int) -> None:
        """Run stream `ul` at column j: the outputs depend on none of the pixel's own colours."""
        self.column = j
        ul = self.from_above[..., j : j + 1] + self.left(self.image[:, :, 1:, j : j + 1])
        self.of_pixel = self.out(F.elu(self.trunk.pixel(self.row, j, ul[:, :, 0, 0])))

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        """(B, P): the outputs of the current pixel, the same for each of its colours."""
        return self.of_pixel

    def feed(self, c: int, value: Tensor) -> None:
        """Colour c of the current pixel is `value` (B,) integers."""
        self.image[:, c, 2, 1 + self.column] = self.scale(value)
