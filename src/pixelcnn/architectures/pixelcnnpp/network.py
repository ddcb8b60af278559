"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): a causal U-Net of gated resnets in two streams, on whole pixels.

The downsampling pass halves the resolution `num_resolutions - 1` times, the upsampling pass doubles it again, and each
block of the upsampling pass has a skip connection from its counterpart (sections 2.3 and 2.4, figure 2). The outputs at
a pixel depend on earlier pixels only: the likelihood factorises the channels of a pixel (section 2.2).

Receptive field with one resolution and n resnets: 4n+1 pixels to the left, 4n+1 columns to the right in the row above.

Shapes: B batch, C data channels, H rows, W columns, F hidden features, K outputs per pixel, D condition features.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.config import Config
from pixelcnn.architectures.pixelcnnpp.layers import GatedResnet, NormedConv, NormedUpsampling
from pixelcnn.architectures.pixelcnnpp.stepper import PixelCNNPlusPlusStepper
from pixelcnn.architectures.pixelcnnpp.unet import FirstLayer, LowerResolution, UNet
from pixelcnn.nn.head import Scale
from pixelcnn.nn.interfaces import Network, Spec


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

    def regions(self) -> Iterable[nn.Module]:
        """The gated resnets, the layers between resolutions, and both ends."""
        inner = list(self.trunk.modules())
        halves = [
            half for lower in inner if isinstance(lower, LowerResolution) for half in (lower.halve_u, lower.halve_ul)
        ]
        repeated = [module for module in inner if isinstance(module, GatedResnet | NormedUpsampling)]
        return [self.first, *repeated, *halves, self.out]

    @torch.no_grad()
    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> PixelCNNPlusPlusStepper:
        """The state of `batch` images not yet begun."""
        assert not self.training, "a stepper evaluates: call network.eval() first"
        self._check_size(height, width)
        shape = (batch, self.data_channels, height, width)
        period = 2 ** (self.num_resolutions - 1)
        return PixelCNNPlusPlusStepper(self.first, self.trunk, self.out, self.scale, self.cond_map, cond, shape, period)

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
