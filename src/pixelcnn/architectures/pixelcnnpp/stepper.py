"""Incremental evaluation of a PixelCNN++: a batch of images, pixel by pixel, for the cost of a few forward passes.

Stream `u` depends on the rows above only, so it runs once per row, through both passes and all resolutions; stream `ul`
runs pixel by pixel. Features at (i, j) of a lower resolution depend on what precedes (2i, 2j) of the next higher one:
they are evaluated between the two passes at that pixel, and their upsampled values are used by the pixels (2i, 2j) to
(2i+1, 2j+1). So rows repeat with the period 2 ** (num_resolutions - 1).

Stream `u` is evaluated by the blocks' own arithmetic, on windows of a state instead of a padded image. In `ul` a block
is two matrix products per pixel, since what the row above, stream `u` and the condition contribute is added up once per
row, and since what enters one sum lies side by side:

    first product: concat_elu of x at columns j-1 and j, and of the skip connection    -> F features
    second product: concat_elu of those features at columns j-1 and j                  -> a and b of the gate

Features are carried as the pair (x, -x), so that concat_elu is a single ELU, written to where the product reads it. The
number of operations is what counts: on a GPU each is a kernel that takes about as long whatever it computes.

State: the last inputs of each convolution, O(convolutions x W x F) per image. It starts with zeros, the padding of
`forward`, and is updated in place.

Shapes: B batch, C data channels, H rows, W columns of the resolution at hand, I input features, O output features,
S features of a skip connection's input (0 without), F hidden features, K outputs per pixel, D condition features. Rows
are (B, F, 1, W), pairs (B, 2, F).
"""

import copy
from collections.abc import Callable
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
    concat_elu,
    halve_condition,
    unet_passes,
)
from pixelcnn.architectures.pixelcnnpp.unet import Block, FirstLayer, LowerResolution, UNet
from pixelcnn.nn.head import Scale

# Those of torch.nn.functional, which take no `out`
elu: Callable[..., Tensor] = torch._C._nn.elu
glu: Callable[..., Tensor] = torch._C._nn.glu


def frozen(conv: NormedConv | NormedUpsampling) -> Convolve:
    """The convolution with its weights normalised now, instead of at each call."""
    return partial(conv.convolve, kernel=conv.kernel())


def bias_of(conv: NormedConv | NormedUpsampling) -> Tensor:
    """The bias (O,)."""
    assert conv.bias is not None
    return conv.bias


class Sign:
    """Makes pairs of features: (B, 1, F) -> (B, 2, F), x and -x."""

    def __init__(self, like: Tensor):
        self.signs = like.new_tensor([[1.0], [-1.0]])  # (2, 1)

    def pair(self, x: Tensor, out: Tensor) -> Tensor:
        """x and -x; of any x (..., 1, F)."""
        return torch.mul(x, self.signs, out=out)

    def add(self, pair: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """The pair of y + x, of the pair of y and x (B, 1, F)."""
        return torch.addcmul(pair, x, self.signs, out=out)


class RowState:
    """The state of a convolution of stream `u`: the window of rows under its kernel, with a column on both sides."""

    def __init__(self, conv: NormedConv, batch: int, width: int):
        self.convolve = frozen(conv)
        # Both rows under the kernel, padded: (B, I, 2, 1+W+1)
        self.window = conv.weight.new_zeros(batch, conv.in_channels, U.kernel[0], U.left + width + U.right)

    def reset(self) -> None:
        """Back to the zeros of the start."""
        self.window.zero_()

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

    skip (O, S): the weights of a skip connection, whose input is added to the sum. In memory a column is that input and
    then the convolution's, so that what a pixel depends on in its row is contiguous: x at j-1, the skip connection's
    input at j, x at j.
    """

    def __init__(self, conv: NormedConv, batch: int, width: int, stride: int = 1, skip: Tensor | None = None):
        above, here = conv.kernel().unbind(2)  # (O, I, 2) each
        parts = [here[:, :, 0], here[:, :, 1]] if skip is None else [here[:, :, 0], skip, here[:, :, 1]]
        self.here = torch.cat(parts, dim=1).t().contiguous()  # (I+S+I, O)
        self.above, self.bias = above.transpose(1, 2).flatten(1).t().contiguous(), bias_of(conv)  # (2*I, O)
        outputs, inputs, extra = len(here), conv.in_channels, 0 if skip is None else skip.shape[1]
        size = extra + inputs
        self.row = above.new_zeros(batch, 1 + width, size)  # (B, 1+W, S+I)
        self.x = self.row[..., extra:].view(batch, 1 + width, inputs)
        flat, columns = self.row.view(batch, -1), range(width)
        # W times (B, I+S+I); W times (B, S) and (B, I)
        self.windows = [flat[:, j * size + extra : (j + 2) * size] for j in columns]
        self.skips, self.columns = self.row[:, 1:, :extra].unbind(1), self.x[:, 1:].unbind(1)
        # What the rows above and stream `u` contribute, (B, W/stride, O): each place is overwritten by its sum
        self.sums = above.new_zeros(batch, width // stride, outputs)
        self.stride, self.at = stride, self.sums.unbind(1)

    def reset(self) -> None:
        """Back to the zeros of the start."""
        self.row.zero_()

    def begin_row(self) -> None:
        """Convolve the finished row, which is the row above from now on. (Before the first row it is zeros.)"""
        windows = self.x.unfold(1, 2, self.stride).transpose(2, 3)  # (B, W/stride, 2, I)
        inputs, sums = windows.reshape(-1, len(self.above)), self.sums.view(-1, self.sums.shape[2])
        torch.addmm(self.bias, inputs, self.above, out=sums)

    def __call__(self, j: int) -> Tensor:
        """Convolve at column j, where the input has been written to `columns` and `skips`: (B, O)."""
        return self.at[j // self.stride].addmm_(self.windows[j], self.here)


class BlockState:
    """The state of a block's four convolutions; `gates` are what the condition adds in the current row."""

    def __init__(self, block: Block, sign: Sign, batch: int, width: int):
        self.block, self.sign, hidden = block, sign, block.ul.first.out_channels
        self.u_first, self.u_second = (RowState(conv, batch, width) for conv in (block.u.first, block.u.second))
        self.u_link = None if block.u.link is None else frozen(block.u.link)
        link = block.ul.link
        assert link is not None
        # concat_elu of (u, skip) is elu of u, skip, -u, -skip: (O, 2, 1 or 2, F)
        weights = link.kernel().view(hidden, 2, -1, hidden).unbind(2)
        self.from_u = weights[0].flatten(1).t()  # (2F, O)
        skip = weights[1].flatten(1) if len(weights) > 1 else None  # (O, 2F)
        self.link_bias = bias_of(link)
        self.first = PixelState(block.ul.first, batch, width, skip=skip)
        self.second = PixelState(block.ul.second, batch, width)
        halves = partial(torch.unflatten, dim=1, sizes=(2, hidden))
        self.first_in, self.second_in = ([halves(x) for x in state.columns] for state in (self.first, self.second))
        self.skip_in = [halves(x) for x in self.first.skips] if skip is not None else []
        self.first_out = [x.unsqueeze(1) for x in self.first.at]  # W times (B, 1, F)
        self.inner, self.out = (link.weight.new_zeros(batch, 2, hidden) for _ in range(2))
        self.gated = link.weight.new_zeros(batch, hidden)
        self.gated_once = self.gated.unsqueeze(1)  # (B, 1, F)

    def reset(self) -> None:
        """Back to the zeros of the start."""
        for state in (self.u_first, self.u_second, self.first, self.second):
            state.reset()

    def begin_row(self, u: Tensor, skip: Tensor | None = None, *, cond: Tensor | None) -> Tensor:
        """Evaluate stream `u` in the next row, (B, F, 1, W); cond is the row of a condition map, (B, D, 1, 1 or W)."""
        self.first.begin_row()
        self.second.begin_row()
        gates = self.block.ul.gates(cond)  # (B, 2F, 1, 1 or W)
        if gates is not None:
            self.second.sums.add_(gates[:, :, 0].transpose(1, 2))
        resnet = self.block.u
        u = resnet.forward_with(self.u_first, self.u_link, self.u_second, u, skip, resnet.gates(cond))
        inputs = concat_elu(u)[:, :, 0].transpose(1, 2)  # (B, W, 2F)
        self.first.sums.add_(torch.addmm(self.link_bias, inputs.flatten(0, 1), self.from_u).view_as(self.first.sums))
        return u

    def pixel(self, j: int, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Evaluate stream `ul` at column j: pairs (B, 2, F) of the input and of the skip connection, to one."""
        elu(x, out=self.first_in[j])
        if skip is not None:
            elu(skip, out=self.skip_in[j])
        self.first(j)
        elu(self.sign.pair(self.first_out[j], self.inner), out=self.second_in[j])
        glu(self.second(j), 1, out=self.gated)  # a * sigmoid(b), (B, F)
        return self.sign.add(x, self.gated_once, self.out)


class UNetState:
    """The state of both passes at one resolution and of the lower ones; cond: a condition map of this resolution."""

    def __init__(self, unet: UNet, sign: Sign, cond: Tensor | None, batch: int, width: int):
        self.down, self.up = (
            [BlockState(cast(Block, block), sign, batch, width) for block in blocks] for blocks in (unet.down, unet.up)
        )
        self.cond = None if cond is None else cond.clone()
        self.row = self.cond if cond is None or cond.shape[2] == 1 else cond[:, :, :1].clone()  # (B, D, 1, 1 or W)
        lower = unet.coarser
        self.lower = None if lower is None else LowerResolutionState(lower, sign, halve_condition(cond), batch, width)

    def reset(self, cond: Tensor | None) -> None:
        """Back to the zeros of the start, with another condition map."""
        for block in (*self.down, *self.up):
            block.reset()
        if self.cond is not None and cond is not None:
            self.cond.copy_(cond)
        if self.lower is not None:
            self.lower.reset(halve_condition(cond))

    def locate(self, i: int) -> None:
        """Fetch row i of the condition map, and rows i/2 ... of the lower resolutions'."""
        if self.cond is not None and self.row is not None and self.row is not self.cond:
            self.row.copy_(self.cond[:, :, i : i + 1])
        if self.lower is not None and i % 2 == 0:
            self.lower.inner.locate(i // 2)

    def begin_row(self, i: int, u: Tensor) -> Tensor:
        """Evaluate stream `u` in row i, (B, F, 1, W)."""
        down, up = ([partial(block.begin_row, cond=self.row) for block in blocks] for blocks in (self.down, self.up))
        return unet_passes(u, down, None if self.lower is None else partial(self.lower.begin_row, i), up)

    def pixel(self, i: int, j: int, x: Tensor) -> Tensor:
        """Evaluate stream `ul` at (i, j): a pair (B, 2, F) to another."""
        down, up = ([partial(block.pixel, j) for block in blocks] for blocks in (self.down, self.up))
        return unet_passes(x, down, None if self.lower is None else partial(self.lower.pixel, i, j), up)


class LowerResolutionState:
    """The state of a lower resolution: it is given every row and pixel, and evaluated at even rows and columns.

    u (B, F, 2, W) and ul (B, 2, W, 2, F), as pairs: the latest upsampled features, for rows i and i+1 of the higher
    resolution, i even.
    """

    def __init__(self, lower: LowerResolution, sign: Sign, cond: Tensor | None, batch: int, width: int):
        self.sign, up = sign, lower.double_ul
        self.halve_u = RowState(lower.halve_u, batch, width)
        self.halve_ul = PixelState(lower.halve_ul, batch, width, stride=2)
        self.inner = UNetState(lower.inner, sign, cond, batch, width // 2)
        self.double_u = frozen(lower.double_u)
        # An input pixel makes 2x2 output pixels, which none other adds to: (I, O, 2, 2) -> (I, 2*2*O), and (2*2*O,)
        self.double_ul, self.bias = up.kernel().permute(0, 2, 3, 1).flatten(1), bias_of(up).repeat(4)
        zeros = up.weight.new_zeros
        self.halved = zeros(batch, 2, up.in_channels)
        self.u, self.ul = zeros(batch, up.out_channels, 2, width), zeros(batch, 2, width, 2, up.out_channels)
        self.at = [row.unbind(1) for row in self.ul.unbind(1)]  # 2 times W times (B, 2, F)
        self.squares = self.ul.split(2, dim=2)  # W/2 times (B, 2, 2, 2, F)

    def reset(self, cond: Tensor | None) -> None:
        """Back to the zeros of the start, with another condition map."""
        self.halve_u.reset()
        self.halve_ul.reset()
        self.inner.reset(cond)

    def begin_row(self, i: int, u: Tensor) -> Tensor:
        """Stream `u` in row i of the higher resolution, from the pass down to the pass up: (B, F, 1, W) each."""
        if i % 2:
            self.halve_u.write(u)  # an odd row is only an input of the next even one
            return self.u[:, :, 1:]
        self.halve_ul.begin_row()
        self.u.copy_(self.double_u(self.inner.begin_row(i // 2, self.halve_u(u))))  # (B, F, 1, W/2) -> (B, F, 2, W)
        return self.u[:, :, :1]

    def pixel(self, i: int, j: int, x: Tensor) -> Tensor:
        """Stream `ul` at (i, j) of the higher resolution, from the pass down to the pass up: pairs (B, 2, F) each."""
        self.halve_ul.columns[j].copy_(x[:, 0])
        if i % 2 == 0 and j % 2 == 0:
            inner = self.inner.pixel(i // 2, j // 2, self.sign.pair(self.halve_ul(j).unsqueeze(1), self.halved))
            doubled = torch.addmm(self.bias, inner[:, 0], self.double_ul)  # (B, F) -> (B, 2*2*F)
            self.sign.pair(doubled.view(len(x), 2, 2, 1, -1), self.squares[j // 2])
        return self.at[i % 2][j]


class PixelCNNPlusPlusStepper:
    """The state of a batch of images not yet begun (pixelcnn.nn.interfaces.Stepper), on normalised weights.

    cond_map: conditions to a map of floats.
    """

    @torch.no_grad()
    def __init__(
        self,
        first: FirstLayer,
        trunk: UNet,
        out: NormedConv,
        scale: Scale,
        cond_map: Callable[[Tensor | None], Tensor | None],
        cond: Tensor | None,
        shape: tuple[int, int, int, int],
        period: int,
    ):
        # A copy, so that later changes of the weights do not change the outputs
        first, trunk, out = copy.deepcopy(first), copy.deepcopy(trunk), copy.deepcopy(out)
        batch, channels, _, width = self.shape = shape
        self.period, self.cond_map, self.scale, self.sign = period, cond_map, scale, Sign(out.weight)
        self.trunk = UNetState(trunk, self.sign, cond_map(cond), batch, width)
        self.out, self.out_bias = out.kernel().flatten(1).t().contiguous(), bias_of(out)  # (F, K)
        self.first_u = frozen(first.u)
        self._freeze(first)
        zeros = out.weight.new_zeros
        # The scaled rows i-2 and i-1, (B, C+1, 2, 1+W+1); the current one, (B, 1+W, C+1); what of the first layer is
        # left of a pixel in its row; and what the rows above contribute to it, (B, W, F), overwritten by the sum
        self.image = zeros(batch, channels + 1, 2, 1 + width + 1)
        self.row = zeros(batch, 1 + width, channels + 1)
        self.sums = zeros(batch, width, len(self.left[0]))
        self.at, self.lefts = self.sums.unbind(1), self.row[:, :-1].unbind(1)
        self.here = self.row[:, 1:, :channels].unbind(1)  # W times (B, C)
        self.features = zeros(batch, 2, len(self.left[0]))
        self.kind = self.column = 0
        self.of_pixel = torch.empty(0)

    def _freeze(self, first: FirstLayer) -> None:
        """Separate the first layer's taps of stream `ul` by row: three in the row above, one to the left."""
        above, left = first.above.kernel()[:, :, 0], first.left.kernel()[..., 0]  # (F, C+1, 3) and (F, C+1, 2)
        above = above.clone()
        above[:, :, 0] += left[:, :, 0]  # both are column j-1 of row i-1
        self.above = above.permute(2, 1, 0).flatten(0, 1)  # (3*(C+1), F)
        self.left = left[:, :, 1].t().contiguous()  # (C+1, F)
        self.bias = bias_of(first.above) + bias_of(first.left)

    @torch.no_grad()
    def reset(self, cond: Tensor | None = None) -> None:
        """Go back to images not begun, given other conditions."""
        self.trunk.reset(self.cond_map(cond))
        self.image.zero_()
        self.row.zero_()

    @torch.no_grad()
    def locate(self, i: int) -> None:
        """Fetch row i of the condition map."""
        self.trunk.locate(i)

    @torch.no_grad()
    def begin_row(self, i: int) -> None:
        """Go on to the next row: evaluate stream `u`, and what else depends on the rows above only."""
        self.kind = i % self.period
        self.image[:, :, 0] = self.image[:, :, 1]
        self.image[:, :, 1, 1:-1] = self.row[:, 1:].transpose(1, 2)
        # The ones of `PixelCNNPlusPlus.inputs`; the other channels of the row are overwritten before they are read
        self.row[:, 1:, -1] = 1
        windows = self.image[:, :, 1].unfold(2, 3, 1).permute(0, 2, 3, 1)  # (B, C+1, W, 3) -> (B, W, 3, C+1)
        inputs = windows.reshape(-1, len(self.above))
        torch.addmm(self.bias, inputs, self.above, out=self.sums.view(len(inputs), -1))
        self.trunk.begin_row(self.kind, self.first_u(self.image))

    @torch.no_grad()
    def begin_pixel(self, j: int) -> None:
        """Go on to column j: evaluate stream `ul` and the outputs, which depend on no channel of the pixel itself."""
        self.column = j
        first = self.at[j].addmm_(self.lefts[j], self.left)  # (B, F)
        ul = self.trunk.pixel(self.kind, j, self.sign.pair(first.unsqueeze(1), self.features))  # (B, 2, F)
        self.of_pixel = torch.addmm(self.out_bias, F.elu(ul[:, 0]), self.out)  # (B, K)

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        """(B, K): the outputs of the current pixel, the same for each of its channels."""
        return self.of_pixel

    def feed(self, c: int, value: Tensor) -> None:
        """Channel c of the current pixel is `value` (B,) integers; or the channels from c on, (B, D)."""
        value = value.view(len(value), -1)
        self.scale.write(value, self.here[self.column][:, c : c + value.shape[1]])
