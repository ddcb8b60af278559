"""Masked convolutions for the raster-scan order of sub-pixels: rows, then columns, then the channels of a pixel.

The masks A and B are those of PixelRNN (arXiv:1601.06759, section 3.4) and Gated PixelCNN (arXiv:1606.05328, section
2). All convolutions here are *valid* ones: the caller supplies the context above and to the left. The `forward` of a
network pads with zeros, a sampler passes its state, so one implementation serves both. Only the centre tap needs a
mask, for the order of colours within a pixel; taps that a causal mask would zero entirely are cropped from the kernel.

Features are colour-major: `channels` features are `data_channels` equal groups, first that of R, then G, then B.

Shapes: B batch, I input features, O output features, H rows, W columns.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N = TypeVar("N", bound=nn.Module)


def colours(channels: int, data_channels: int) -> Tensor:
    """The colour (0 ... data_channels-1) of each of `channels` colour-major features: (channels,) integers."""
    assert channels % data_channels == 0, f"{channels} features do not divide into {data_channels} colours"
    return torch.arange(channels) // (channels // data_channels)


def colour_mask(outputs: Tensor, inputs: Tensor, mask_type: str) -> Tensor:
    """(O, I) booleans: may output feature o depend on input feature i *of the same pixel*, given the colours of both?

    Mask "A" (the input is the image): on earlier colours only. Mask "B" (the input is features): on its own colour
    too, since the features of colour c depend only on what precedes c.
    """
    assert mask_type in ("A", "B"), mask_type
    earlier = inputs[None, :] < outputs[:, None]  # (O, I)
    return earlier if mask_type == "A" else earlier | (inputs[None, :] == outputs[:, None])


class RowConv(nn.Conv2d):
    """A causal convolution along a row: `left` unmasked taps, then the pixel's own under `centre_mask` (O, I).

    Input (B, I, H, left+W), output (B, O, H, W). With left=0 it is the masked 1x1 convolution.
    The mask multiplies the weight inside the graph, so masked weights have no gradient and no moments in Adam.
    """

    mask: Tensor | None  # None in a copy that `fold_masks` made

    def __init__(self, centre_mask: Tensor, left: int = 0):
        outputs, inputs = centre_mask.shape
        super().__init__(inputs, outputs, (1, left + 1))
        mask = torch.ones_like(self.weight)  # (O, I, 1, left+1)
        mask[:, :, 0, left] = centre_mask.to(mask.dtype)
        # Not saved: it follows from the configuration
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """The weight with masked entries set to zero, (O, I, 1, left+1)."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, window: Tensor) -> Tensor:
        weight = self.masked_weight()
        if window.shape[2:] == weight.shape[2:]:  # one pixel, of a sampler: a product, of which a convolution is slower
            return F.linear(window.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]
        return F.conv2d(window, weight, self.bias)  # (B, I, H, left+W) -> (B, O, H, W)


def fold_masks(network: N) -> N:
    """A copy with the masks multiplied into the weights once, for a sampler, which evaluates them many times."""
    network = copy.deepcopy(network).requires_grad_(False)
    for module in network.modules():
        if isinstance(module, RowConv):
            module.weight = nn.Parameter(module.masked_weight().contiguous(), requires_grad=False)
            module.mask = None
    return network


def num_parameters(network: nn.Module) -> int:
    """The number of parameters that can change the output: masked weights are not counted."""
    masks = [m.mask for m in network.modules() if isinstance(m, RowConv)]
    masked = sum(int((mask == 0).sum()) for mask in masks if mask is not None)
    return sum(p.numel() for p in network.parameters()) - masked
