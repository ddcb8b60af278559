"""The weights of a Gated PixelCNN, arranged for one colour of one pixel of all layers (see gated_stepper).

Colour-major features make every mask a contiguous prefix, so no zero of a mask is multiplied. The state has rows of
three slots of G features, [a | b | h]: of one layer, colour and pixel, both halves before the gate and the horizontal
input. As tanh(a) = 2 sigmoid(2a) - 1, one sigmoid over both halves and one fused product put `act`, which is
-tanh(a) sigmoid(b), into the slot of b. The 2 and the minus are in the weights here, exactly.

Between two gates all is linear, so one product takes [act | h] of a layer to [a | b | h] of the next: the convolution
after the gate, the residual and the next layer's centre tap. The first row has h = 0, as its layer has no residual; the
last, N, has an h alone, which the head reads.

Shapes: N layers, C data channels, F hidden features, G = F / C, I inputs and O outputs of a layer,
p = kernel_size // 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.nn.gated_pixelcnn.layer import GatedLayer
from pixelcnn.nn.head import Head
from pixelcnn.nn.masked_conv import RowConv

Affine = tuple[Tensor, Tensor]  # weight, bias


@dataclass(frozen=True)
class PackedColour:
    """What one colour of a pixel is computed with. All matrices are (inputs, outputs)."""

    first: Tensor  # (p*C + c, 2G): the image left of the sub-pixel to [a | b] of row 0
    known: Tensor  # (N, p*F + 2G*c, 3G): the columns to the left, then each earlier colour's [act | h], to rows 1 ... N
    chain: Tensor  # (N, 2G, 3G): [act | h] of rows 0 ... N-1, each to the row after it
    bias: Tensor  # (N+1, 3G)
    head: list[Affine]  # of its two convolutions, from the features of this colour and those before it


@torch.no_grad()
def pack(layers: Sequence[GatedLayer], head: Head, colours: int) -> list[PackedColour]:
    """The packed weights of each of `colours` data channels; products of weights in float64, rounded once."""
    gates, outs = [_gates(layer, colours) for layer in layers], [_out(layer, colours) for layer in layers]
    gates.append(_no_gates(layers[-1], colours))
    return [_pack_colour(c, gates, outs, head) for c in range(colours)]


def _affine(conv: RowConv) -> Affine:
    assert conv.bias is not None
    return conv.masked_weight().double(), conv.bias.double()


def _gates(layer: GatedLayer, colours: int) -> Affine:
    """The convolution before the gate: weight (C, 2G, C, I/C, p+1) and bias (C, 2G), for halves 2a and b."""
    weight, bias = _affine(layer.horizontal)
    outputs, inputs, _, taps = weight.shape

    def halves(x: Tensor) -> Tensor:
        a, b = x.reshape(2, colours, outputs // 2 // colours, -1)
        return torch.stack([2 * a, b], dim=1)

    shape = colours, outputs // colours, colours, inputs // colours, taps
    return halves(weight).reshape(shape), halves(bias).reshape(shape[:2])


def _no_gates(last: GatedLayer, colours: int) -> Affine:
    """What would be the gates of a layer after the last, as zeros."""
    hidden, taps = last.out.in_channels, 1 if last.first else last.reach + 1
    zeros = last.out.weight.new_zeros
    shape = colours, 2 * hidden // colours, colours, hidden // colours, taps
    return zeros(shape, dtype=torch.float64), zeros(shape[:2], dtype=torch.float64)


def _out(layer: GatedLayer, colours: int) -> Affine:
    """The convolution after the gate: weight (C, G, C, G), to be applied to -tanh(a) sigmoid(b), and bias (C, G)."""
    weight, bias = _affine(layer.out)
    group = len(bias) // colours
    return -weight.reshape(colours, group, colours, group), bias.view(colours, group)


def _pack_colour(c: int, gates: list[Affine], outs: list[Affine], head: Head) -> PackedColour:
    like = next(head.parameters())
    weight, bias = gates[0]
    colours, pixels = weight.shape[2], weight.shape[-1] - 1
    first = _by_column(weight[c])[:, : pixels * colours + c]
    rows = [_row(c, *following, *out) for following, out in zip(gates[1:], outs, strict=True)]
    known, chain, biases = (torch.stack(matrices).to(like) for matrices in zip(*rows, strict=True))
    biases = torch.cat([_without_h(bias[c]).to(like)[None], biases])
    ends = [_of_head(c, conv, colours) for conv in head if isinstance(conv, RowConv)]
    return PackedColour(first.T.to(like), known, chain, biases, ends)


def _row(c: int, weight: Tensor, bias: Tensor, out: Tensor, out_bias: Tensor) -> list[Tensor]:
    """`known`, `chain` and `bias` of a row: its layer's gates, after the convolution that ends the layer before."""
    centre, columns = weight[c, ..., -1], weight[c, ..., :-1]
    lift = torch.cat([centre[:, c], torch.eye(len(out_bias[c])).to(out)])  # (3G, G): what h of this row adds to it
    earlier = [part for e in range(c) for part in (lift @ out[c, :, e], _without_h(centre[:, e]))]
    known = torch.cat([_without_h(_by_column(columns)), *earlier], dim=1)
    chain = torch.cat([lift @ out[c, :, c], lift], dim=1)
    return [known.T, chain.T, _without_h(bias[c]) + lift @ out_bias[c]]


def _by_column(weight: Tensor) -> Tensor:
    """(O, C, I/C, taps) to (O, taps * I): inputs lie in the state column after column."""
    return weight.flatten(1, 2).transpose(1, 2).flatten(1)


def _without_h(weight: Tensor) -> Tensor:
    """(2G, ...) to (3G, ...): outputs that go to the slots of a and b only."""
    return torch.cat([weight, torch.zeros_like(weight[: len(weight) // 2])])


def _of_head(c: int, conv: RowConv, colours: int) -> Affine:
    """Colour c of a convolution of the head."""
    weight, bias = conv.masked_weight()[:, :, 0, 0], conv.bias
    assert bias is not None
    outputs, inputs = (size // colours for size in weight.shape)
    mine = slice(c * outputs, (c + 1) * outputs)
    return weight[mine, : (c + 1) * inputs].T, bias[mine].clone()
