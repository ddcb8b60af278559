"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): whole pixels, two streams, a pass down and a pass up.

The pass down halves the resolution `num_resolutions - 1` times, the pass up doubles it again, and each block of the
pass up has a short-cut from its counterpart of the pass down (sections 2.3 and 2.4, figure 2). The outputs at a pixel
depend on earlier pixels only: how its channels hang together is the likelihood's affair (section 2.2).

With one resolution and n resnets an output sees 4n+1 pixels to the left and 4n+1 columns to the right in the row above.

Shapes: B batch, C data channels, H rows, W columns, F hidden features, P outputs per pixel, D condition features.
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.layers import (
    UL,
    GatedResnet,
    NormedConv,
    NormedUpsampling,
    Streams,
    U,
    down_and_up,
    halved,
    link_of_ul,
)
from pixelcnn.architectures.pixelcnnpp.stepper import Stepper
from pixelcnn.nn.head import Scale


class FirstLayer(nn.Module):
    """The image (B, I, H, W) to both streams. Its kernels end above the pixel or left of it: the step off it."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.u = NormedConv(inputs, hidden, (2, 3))
        self.above = NormedConv(inputs, hidden, (1, 3))
        self.left = NormedConv(inputs, hidden, (2, 1))

    def forward(self, x: Tensor) -> Streams:
        rows_above, columns_left = x[:, :, :-1], x[..., :-1]
        u = self.u(F.pad(rows_above, (1, 1, 2, 0)))
        return u, self.above(F.pad(rows_above, (1, 1, 1, 0))) + self.left(F.pad(columns_left, (1, 0, 1, 0)))


class Block(nn.Module):
    """A gated resnet of each stream; `ul` is linked to `u`, and on the pass up both to their short-cuts."""

    def __init__(self, hidden: int, cond_channels: int, dropout: float, short_cut: bool):
        super().__init__()
        self.u = GatedResnet(hidden, U, hidden if short_cut else 0, cond_channels, dropout)
        self.ul = GatedResnet(hidden, UL, 2 * hidden if short_cut else hidden, cond_channels, dropout)

    def forward(self, streams: Streams, short_cut: Streams | None = None, *, cond: Tensor | None) -> Streams:
        u, ul = streams
        u_cut, ul_cut = (None, None) if short_cut is None else short_cut
        u = self.u(u, u_cut, cond)
        return u, self.ul(ul, link_of_ul(u, ul_cut), cond)


class Resolution(nn.Module):
    """Both passes at one resolution, with the coarser ones between them."""

    def __init__(self, hidden: int, num_resnets: int, num_resolutions: int, cond_channels: int, dropout: float):
        super().__init__()
        sizes = (hidden, cond_channels, dropout)
        coarser = num_resolutions > 1
        self.down = nn.ModuleList(Block(*sizes, short_cut=False) for _ in range(num_resnets))
        self.coarser = Coarser(hidden, num_resnets, num_resolutions - 1, cond_channels, dropout) if coarser else None
        # one more than on the pass down, unless it begins here: the short-cut from this resolution's own input
        self.up = nn.ModuleList(Block(*sizes, short_cut=True) for _ in range(num_resnets + coarser))

    def forward(self, streams: Streams, cond: Tensor | None) -> Streams:
        down, up = ([partial(block, cond=cond) for block in blocks] for blocks in (self.down, self.up))
        coarser = None if self.coarser is None else partial(self.coarser, cond=cond)
        return down_and_up(streams, down, coarser, up)


class Coarser(nn.Module):
    """Half the resolution, what is done there, and back. Coarse (i, j) knows what precedes fine (2i, 2j)."""

    def __init__(self, hidden: int, num_resnets: int, num_resolutions: int, cond_channels: int, dropout: float):
        super().__init__()
        self.halve_u, self.halve_ul = (NormedConv(hidden, hidden, stream.kernel, stride=2) for stream in (U, UL))
        self.inner = Resolution(hidden, num_resnets, num_resolutions, cond_channels, dropout)
        self.double_u, self.double_ul = (NormedUpsampling(hidden, hidden, stream) for stream in (U, UL))

    def forward(self, streams: Streams, cond: Tensor | None) -> Streams:
        u, ul = streams
        u, ul = self.inner((self.halve_u(U.pad(u)), self.halve_ul(UL.pad(ul))), halved(cond))
        return self.double_u(u), self.double_ul(ul)


class PixelCNNPlusPlus(nn.Module):
    """Images (B, C, H, W) uint8 -> outputs (B, P, H, W), each of the pixels that precede its own.

    The sides of the images are multiples of 2 ** (num_resolutions - 1).
    """

    def __init__(
        self,
        data_channels: int,
        levels: int,
        num_outputs: int,
        condition: nn.Module,
        hidden_channels: int,
        num_resnets: int,
        num_resolutions: int,
        dropout: float,
    ):
        super().__init__()
        self.scale, self.condition, self.num_resolutions = Scale(levels), condition, num_resolutions
        cond_channels = cast(int, condition.channels)
        self.first = FirstLayer(data_channels + 1, hidden_channels)
        self.trunk = Resolution(hidden_channels, num_resnets, num_resolutions, cond_channels, dropout)
        self.out = NormedConv(hidden_channels, num_outputs, (1, 1))

    def inputs(self, x: Tensor) -> Tensor:
        """Integers (B, C, H, W) to floats (B, C+1, H, W): beside them ones, which tell a grey pixel from padding."""
        x = self.scale(x)
        return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self._check_size(*x.shape[2:])
        _, ul = self.trunk(self.first(self.inputs(x)), self.cond_map(cond))
        # a mean in bfloat16 would be half a level of 256 coarse
        with torch.autocast(ul.device.type, enabled=False):
            return self.out(F.elu(ul.to(self.out.weight.dtype)))

    def cond_map(self, cond: Tensor | None) -> Tensor | None:
        """The condition as a map of floats, (B, D, 1 or H, 1 or W)."""
        cond_map: Tensor | None = self.condition(cond)
        return None if cond_map is None else cond_map.to(self.out.weight.dtype)

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> Stepper:
        """The state of `batch` images not yet begun (see pixelcnn.generation.sampling.walk)."""
        assert not self.training, "a stepper evaluates: call network.eval() first"
        self._check_size(height, width)
        return Stepper(self, batch, height, width, cond)

    def _check_size(self, height: int, width: int) -> None:
        step = 2 ** (self.num_resolutions - 1)
        if height % step or width % step:
            raise ValueError(
                f"num_resolutions: {self.num_resolutions} needs images with sides that are multiples of {step}, "
                f"not {height}x{width}"
            )
