"""Convolutions that keep the order of sub-pixels: rows, then columns, then channels (arXiv:1606.05328, section 2).

All are *valid* convolutions: the caller supplies what lies above and to the left. `forward` of a network supplies
zeros, a sampler supplies its state; so one implementation serves both, and no kernel holds weights that a mask zeroes
except at the centre tap, where the order of colours decides.

Features are colour-major: `channels` features are `data_channels` equal groups, the first belonging to R and so on.

Shapes: B batch, I input features, O output features, H rows, W columns.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def colours(channels: int, data_channels: int) -> Tensor:
    """The colour (0 ... data_channels-1) that each of `channels` colour-major features belongs to."""
    assert channels % data_channels == 0, f"{channels} features do not divide into {data_channels} colours"
    return torch.arange(channels) // (channels // data_channels)


def colour_mask(outputs: Tensor, inputs: Tensor, mask_type: str) -> Tensor:
    """(O, I) booleans: may output feature o see input feature i *of the same pixel*, given the colours of both.

    Mask "A" (the image itself is the input): only earlier colours. Mask "B" (features): also its own colour, since a
    feature of colour c already sees only what precedes c.
    """
    assert mask_type in ("A", "B"), mask_type
    earlier = inputs[None, :] < outputs[:, None]
    return earlier if mask_type == "A" else earlier | (inputs[None, :] == outputs[:, None])


class RowConv(nn.Conv2d):
    """1 x (left+1) convolution along a row: `left` pixels to the left in full, the pixel itself by `colour_mask`.

    Input (B, I, H, left+W), output (B, O, H, W). With left=0 it is the masked 1x1 convolution.
    The mask multiplies the weight inside the graph, so masked weights have no gradient and no moments in Adam.
    """

    mask: Tensor

    def __init__(self, centre_mask: Tensor, left: int = 0):
        outputs, inputs = centre_mask.shape
        super().__init__(inputs, outputs, (1, left + 1))
        mask = torch.ones_like(self.weight)
        mask[:, :, 0, left] = centre_mask.to(mask.dtype)
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """(O, I, 1, left+1), zero where the mask is."""
        return self.weight * self.mask

    def forward(self, window: Tensor) -> Tensor:
        return F.conv2d(window, self.masked_weight(), self.bias)


def num_parameters(network: nn.Module) -> int:
    """Parameters that can change the output: weights under a mask's zeros are not counted."""
    masked = sum(int((m.mask == 0).sum()) for m in network.modules() if isinstance(m, RowConv))
    return sum(p.numel() for p in network.parameters()) - masked
