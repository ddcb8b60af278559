"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): a causal U-Net of gated resnets in two streams, on whole pixels.

The downsampling pass halves the resolution `num_resolutions - 1` times, the upsampling pass doubles it again, and each
block of the upsampling pass has a skip connection from its counterpart (sections 2.3 and 2.4, figure 2). The outputs at
a pixel depend on earlier pixels only: the likelihood factorises the channels of a pixel (section 2.2).

Receptive field with one resolution and n resnets: 4n+1 pixels to the left, 4n+1 columns to the right in the row above.

Shapes: B batch, C data channels, H rows, W columns, F hidden features, K outputs per pixel, D condition features.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.config import Config
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
from pixelcnn.architectures.pixelcnnpp.stepper import PixelCNNPlusPlusStepper
from pixelcnn.nn.head import Scale
from pixelcnn.nn.interfaces import Network, Spec


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


class PixelCNNPlusPlus(Network):
    """Images (B, C, H, W) uint8 -> outputs (B, K, 1, H, W); those at a pixel depend on earlier pixels only.

    Height and width of the images are multiples of 2 ** (num_resolutions - 1); ValueError otherwise.
    """

    whole_pixels = True
    incremental = True

    def __init__(self, config: Config, spec: Spec):
        super().__init__()
        channels, hidden = spec.shape[0], config.hidden_channels
        self.data_channels, self.likelihood, self.num_resolutions = channels, spec.likelihood, config.num_resolutions
        self.scale, self.condition = Scale(spec.levels), spec.condition
        cond_channels = spec.condition.channels
        self.first = FirstLayer(channels + 1, hidden)
        self.trunk = UNet(hidden, config.num_resnets, config.num_resolutions, cond_channels, config.dropout)
        self.out = NormedConv(hidden, spec.likelihood.num_outputs, (1, 1))

    def inputs(self, x: Tensor) -> Tensor:
        """Integers (B, C, H, W) to floats (B, C+1, H, W): scaled, and a channel of ones that is zero in the padding."""
        x = self.scale(x)
        return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        self._check_size(*x.shape[2:])
        _, ul = self.trunk(self.first(self.inputs(x)), self.cond_map(cond))  # (B, F, H, W)
        # In float32: near 1, bfloat16 has steps of half of one of 256 levels, too coarse for a mean
        with torch.autocast(ul.device.type, enabled=False):
            return self.out(F.elu(ul.to(self.out.weight.dtype))).unsqueeze(2)  # (B, K, 1, H, W)

    def cond_map(self, cond: Tensor | None) -> Tensor | None:
        """The condition as a map of floats, (B, D, 1 or H, 1 or W)."""
        cond_map = self.condition(cond)
        return None if cond_map is None else cond_map.to(self.out.weight.dtype)

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> PixelCNNPlusPlusStepper:
        """The state of `batch` images not yet begun."""
        assert not self.training, "a stepper evaluates: call network.eval() first"
        self._check_size(height, width)
        return PixelCNNPlusPlusStepper(self, batch, height, width, cond)

    def _check_size(self, height: int, width: int) -> None:
        step = 2 ** (self.num_resolutions - 1)
        if height % step or width % step:
            raise ValueError(
                f"num_resolutions: {self.num_resolutions} needs images with sides that are multiples of {step}, "
                f"not {height}x{width}"
            )


def build(config: Config, spec: Spec) -> PixelCNNPlusPlus:
    """The network that the section describes."""
    return PixelCNNPlusPlus(config, spec)
