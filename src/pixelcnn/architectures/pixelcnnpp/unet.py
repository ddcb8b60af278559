"""The blocks of PixelCNN++ put together (Salimans et al. 2017, arXiv:1701.05517, sections 2.3 and 2.4, figure 2).

A first layer that shifts both streams off the pixel, then a U-Net: a pass down that halves the resolution, a pass up
that doubles it again, and skip connections from each block of the pass down to its counterpart.

Shapes: B batch, I input features, F hidden features, H rows, W columns, D condition features.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.layers import (
    UL,
    GatedResnet,
    NormedConv,
    NormedUpsampling,
    Streams,
    U,
    halve_condition,
    ul_link,
    unet_passes,
)


class FirstLayer(nn.Module):
    """The image (B, I, H, W) to both streams, shifted off the pixel: its kernels end above the pixel or left of it."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.u = NormedConv(inputs, hidden, (2, 3))  # rows i-2 and i-1, columns j-1 to j+1
        self.above = NormedConv(inputs, hidden, (1, 3))  # row i-1, columns j-1 to j+1
        self.left = NormedConv(inputs, hidden, (2, 1))  # rows i-1 and i, column j-1

    def forward(self, x: Tensor) -> Streams:
        rows_above, columns_left = x[:, :, :-1], x[..., :-1]  # (B, I, H-1, W) and (B, I, H, W-1)
        u = self.u(F.pad(rows_above, (1, 1, 2, 0)))  # (B, I, 2+H-1, 1+W+1) -> (B, F, H, W)
        ul = self.above(F.pad(rows_above, (1, 1, 1, 0))) + self.left(F.pad(columns_left, (1, 0, 1, 0)))  # (B, F, H, W)
        return u, ul


class Block(nn.Module):
    """A gated resnet of each stream. `ul` has a link from `u`; with `skip`, both have one from a skip connection."""

    def __init__(self, hidden: int, cond_channels: int, dropout: float, skip: bool):
        super().__init__()
        self.u = GatedResnet(hidden, U, hidden if skip else 0, cond_channels, dropout)
        self.ul = GatedResnet(hidden, UL, 2 * hidden if skip else hidden, cond_channels, dropout)

    def forward(self, streams: Streams, skip: Streams | None = None, *, cond: Tensor | None) -> Streams:
        u, ul = streams
        u_skip, ul_skip = (None, None) if skip is None else skip
        u = self.u(u, u_skip, cond)
        return u, self.ul(ul, ul_link(u, ul_skip), cond)


class UNet(nn.Module):
    """The downsampling and upsampling passes at one resolution, with the lower resolutions between them."""

    def __init__(self, hidden: int, num_resnets: int, num_resolutions: int, cond_channels: int, dropout: float):
        super().__init__()
        sizes = (hidden, cond_channels, dropout)
        lower = num_resolutions > 1
        self.down = nn.ModuleList(Block(*sizes, skip=False) for _ in range(num_resnets))
        inner = hidden, num_resnets, num_resolutions - 1, cond_channels, dropout
        self.coarser = LowerResolution(*inner) if lower else None
        # One block more than the pass down has, for the skip connection from its input. At the lowest resolution as
        # many, since the output of its last block is the input of the pass up
        self.up = nn.ModuleList(Block(*sizes, skip=True) for _ in range(num_resnets + lower))

    def forward(self, streams: Streams, cond: Tensor | None) -> Streams:
        down, up = ([partial(block, cond=cond) for block in blocks] for blocks in (self.down, self.up))
        lower = None if self.coarser is None else partial(self.coarser, cond=cond)
        return unet_passes(streams, down, lower, up)


class LowerResolution(nn.Module):
    """Downsampling by 2, a U-Net at that resolution, and upsampling by 2.

    Features at (i, j) of the lower resolution depend on what precedes (2i, 2j) of the higher one.
    """

    def __init__(self, hidden: int, num_resnets: int, num_resolutions: int, cond_channels: int, dropout: float):
        super().__init__()
        self.halve_u, self.halve_ul = (NormedConv(hidden, hidden, stream.kernel, stride=2) for stream in (U, UL))
        self.inner = UNet(hidden, num_resnets, num_resolutions, cond_channels, dropout)
        self.double_u, self.double_ul = (NormedUpsampling(hidden, hidden, stream) for stream in (U, UL))

    def forward(self, streams: Streams, cond: Tensor | None) -> Streams:
        u, ul = streams
        halves = self.halve_u(U.pad(u)), self.halve_ul(UL.pad(ul))  # (B, F, H/2, W/2) each
        u, ul = self.inner(halves, halve_condition(cond))
        return self.double_u(u), self.double_ul(ul)  # (B, F, H, W) each
