"""Weights of a Gated PixelCNN, packed for evaluating one colour of one pixel in all layers (see stepper.py).

With colour-major features every mask B is block-triangular: what a colour may depend on is a contiguous prefix of the
inputs, so a slice replaces the mask and nothing is multiplied by zero.

The state of one layer, colour and pixel is a row [a | b | h] of three slots of G features: the two halves before the
gate (equation 2 of arXiv:1606.05328), and the horizontal stack's input h. As tanh(a) = 2 sigmoid(2a) - 1, the gate is
one sigmoid over both halves and one fused multiply-add, which leaves

    act = sigmoid(b) - 2 sigmoid(2a) sigmoid(b) = -tanh(a) sigmoid(b)

in the slot of b. The factor 2 and the sign are folded into the weights here, exactly.

Between two gates everything is linear, so one matrix takes [act | h] of a layer to [a | b | h] of the next. It is the
product of the convolution after the gate, the residual connection and the centre tap of the next layer. Rows are
numbered by layer, 0 ... N. Row 0 has h = 0, as the first layer has no residual connection; row N has h alone, which is
the input of the head.

Shapes: N layers, C data channels, F hidden features, G = F / C features of a colour, I inputs and O outputs of a layer,
p = kernel_size // 2.
Weights are (outputs, inputs) in the functions below, and transposed in PackedColour.
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
    """The weights for colour c of a pixel. All matrices are (inputs, outputs)."""

    first: Tensor  # (p*C + c, 2G): the image left of the sub-pixel to [a | b] of row 0
    context: Tensor  # (N, p*F + 2G*c, 3G): h of p columns, then [act | h] of each earlier colour, to rows 1 ... N
    chain: Tensor  # (N, 2G, 3G): [act | h] of rows 0 ... N-1, each to the row after it
    bias: Tensor  # (N+1, 3G)
    head: list[Affine]  # its two convolutions, from the features of this colour and the earlier ones


@torch.no_grad()
def pack(layers: Sequence[GatedLayer], head: Head, colours: int) -> list[PackedColour]:
    """Pack the weights for each of `colours` data channels.

    Products of weights are computed in float64 and rounded once to the dtype of the network.
    """
    gates, outs = [_gates(layer, colours) for layer in layers], [_out(layer, colours) for layer in layers]
    gates.append(_no_gates(layers[-1], colours))
    return [_pack_colour(c, gates, outs, head) for c in range(colours)]


def _affine(conv: RowConv) -> Affine:
    """The masked weight (O, I, 1, p+1) and the bias (O,) in float64."""
    assert conv.bias is not None
    return conv.masked_weight().double(), conv.bias.double()


def _gates(layer: GatedLayer, colours: int) -> Affine:
    """The horizontal convolution before the gate, for halves 2a and b: weight (C, 2G, C, I/C, p+1) and bias (C, 2G)."""
    weight, bias = _affine(layer.horizontal)
    outputs, inputs, _, taps = weight.shape  # 2F, I, 1, p+1

    def halves(x: Tensor) -> Tensor:
        # Outputs of the layer are [a of all colours | b of all colours]; here they become [2a | b] colour by colour
        a, b = x.reshape(2, colours, outputs // 2 // colours, -1)  # (C, G, ...) each
        return torch.stack([2 * a, b], dim=1)  # (C, 2, G, ...)

    shape = colours, outputs // colours, colours, inputs // colours, taps
    return halves(weight).reshape(shape), halves(bias).reshape(shape[:2])


def _no_gates(last: GatedLayer, colours: int) -> Affine:
    """Zero weights in place of the gates of a layer after the last, so that row N is packed like the others."""
    hidden, taps = last.out.in_channels, 1 if last.first else last.reach + 1
    zeros = last.out.weight.new_zeros
    shape = colours, 2 * hidden // colours, colours, hidden // colours, taps  # C, 2G, C, G, p+1
    return zeros(shape, dtype=torch.float64), zeros(shape[:2], dtype=torch.float64)


def _out(layer: GatedLayer, colours: int) -> Affine:
    """The 1x1 convolution after the gate: weight (C, G, C, G) for inputs act = -tanh(a) sigmoid(b), and bias (C, G)."""
    weight, bias = _affine(layer.out)
    group = len(bias) // colours
    return -weight.reshape(colours, group, colours, group), bias.view(colours, group)


def _pack_colour(c: int, gates: list[Affine], outs: list[Affine], head: Head) -> PackedColour:
    """The weights for colour c, of the gates of layers 0 ... N and the convolutions after gates of layers 0 ... N-1."""
    like = next(head.parameters())
    weight, bias = gates[0]
    colours, pixels = weight.shape[2], weight.shape[-1] - 1
    first = _by_column(weight[c])[:, : pixels * colours + c]  # (2G, p*C + c): mask A is a prefix
    rows = [_row(c, *following, *out) for following, out in zip(gates[1:], outs, strict=True)]
    context, chain, biases = (torch.stack(matrices).to(like) for matrices in zip(*rows, strict=True))
    biases = torch.cat([_without_h(bias[c]).to(like)[None], biases])  # (N+1, 3G)
    ends = [_of_head(c, conv, colours) for conv in head if isinstance(conv, RowConv)]
    return PackedColour(first.T.to(like), context, chain, biases, ends)


def _row(c: int, weight: Tensor, bias: Tensor, out: Tensor, out_bias: Tensor) -> list[Tensor]:
    """`context`, `chain` and `bias` of colour c in one row.

    weight (C, 2G, C, G, p+1) and bias (C, 2G) are the gates of the row's layer; out (C, G, C, G) and out_bias (C, G)
    are the convolution that ends the layer before.
    """
    centre, columns = weight[c, ..., -1], weight[c, ..., :-1]  # (2G, C, G) and (2G, C, G, p)
    # (3G, G): h of this colour enters the gates through the centre tap, and is passed on as it is
    lift = torch.cat([centre[:, c], torch.eye(len(out_bias[c])).to(out)])
    # An earlier colour e: its act adds to this colour's h, and its h enters the gates. (3G, G) each
    earlier = [part for e in range(c) for part in (lift @ out[c, :, e], _without_h(centre[:, e]))]
    context = torch.cat([_without_h(_by_column(columns)), *earlier], dim=1)  # (3G, p*F + 2G*c)
    chain = torch.cat([lift @ out[c, :, c], lift], dim=1)  # (3G, 2G): act through `out`, h by the residual connection
    return [context.T, chain.T, _without_h(bias[c]) + lift @ out_bias[c]]


def _by_column(weight: Tensor) -> Tensor:
    """Order inputs column by column, as they lie in the state: (O, C, I/C, taps) -> (O, taps * I)."""
    return weight.flatten(1, 2).transpose(1, 2).flatten(1)  # (O, I, taps) -> (O, taps, I) -> (O, taps * I)


def _without_h(weight: Tensor) -> Tensor:
    """Append zero outputs for the slot of h: (2G, ...) -> (3G, ...)."""
    return torch.cat([weight, torch.zeros_like(weight[: len(weight) // 2])])


def _of_head(c: int, conv: RowConv, colours: int) -> Affine:
    """Colour c of a 1x1 convolution of the head: weight ((c+1) * I/C, O/C) and bias (O/C,)."""
    weight, bias = conv.masked_weight()[:, :, 0, 0], conv.bias  # (O, I)
    assert bias is not None
    outputs, inputs = (size // colours for size in weight.shape)
    mine = slice(c * outputs, (c + 1) * outputs)
    return weight[mine, : (c + 1) * inputs].T, bias[mine].clone()
