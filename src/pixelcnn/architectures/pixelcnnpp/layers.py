"""Layers of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517, figure 2): gated resnets in two streams.

The receptive field of stream `u` (above) at (i, j) is in the rows above i; that of `ul` (above and left) also includes
row i to the left of j. Neither includes the pixel itself. The first layer alone shifts the streams off the pixel; later
kernels end at (i, j), so none is masked. Convolutions are valid ones: `Stream.pad` pads with zeros in `forward`, and a
stepper supplies its state.

Weights are normalised (Salimans and Kingma 2016, arXiv:1602.07868). Unlike a normalisation of features over positions
or over the batch, that leaves an output independent of later pixels and of the other images. The paper's data-dependent
initialisation is left out: gains begin at 1, which keeps features of unit variance at about that, and at 0.1 before a
gate, as in the paper.

Shapes: B batch, I input features, O output features, F hidden features, H rows, W columns, D condition features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolve = Callable[[Tensor], Tensor]
Streams = tuple[Tensor, Tensor]  # u and ul, (B, F, H, W) each
Features = TypeVar("Features", Tensor, Streams)


def concat_elu(features: Tensor) -> Tensor:
    """elu(x) and elu(-x), concatenated: (B, F, ...) -> (B, 2F, ...)."""
    if torch.compiler.is_compiling():
        return cast(Tensor, ConcatElu.apply(features))
    return F.elu(torch.cat([features, -features], dim=1))


class ConcatElu(torch.autograd.Function):
    """The same for torch.compile, with a backward pass that reads x alone.

    Left to itself it would write and keep x and -x concatenated too, at the cost of two kernels of three.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return torch.cat([F.elu(features), F.elu(-features)], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        first, second = gradient.chunk(2, dim=1)
        slope = torch.exp(-features.abs())  # of the half that is not linear here
        return torch.where(features > 0, first - second * slope, first * slope - second)


@dataclass(frozen=True)
class Stream:
    """The kernel size (rows, columns) of a stream and its padding: columns on both sides; above, rows - 1."""

    kernel: tuple[int, int]
    left: int
    right: int

    def pad(self, features: Tensor) -> Tensor:
        """Pad with zeros for a valid convolution: (B, F, H, W) -> (B, F, rows-1+H, left+W+right)."""
        return F.pad(features, (self.left, self.right, self.kernel[0] - 1, 0))


U = Stream(kernel=(2, 3), left=1, right=1)
UL = Stream(kernel=(2, 2), left=1, right=0)


def weight_norm(weight: Tensor, gain: Tensor, dim: int) -> Tensor:
    """g * v / |v| of a kernel v whose output features lie in dimension `dim` (arXiv:1602.07868, equation 2)."""
    others = [d for d in range(weight.ndim) if d != dim]
    norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (gain.view_as(norm) / norm)


class NormedConv(nn.Conv2d):
    """A valid convolution with weight normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, gain: float = 1.0):
        super().__init__(inputs, outputs, kernel, stride)
        self.gain = nn.Parameter(torch.full((outputs,), gain))

    def kernel(self) -> Tensor:
        """The normalised weights (O, I, rows, columns)."""
        return weight_norm(self.weight, self.gain, dim=0)

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """`forward` with weights that have been normalised already."""
        return F.conv2d(x, kernel, self.bias, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.kernel())


class NormedUpsampling(nn.ConvTranspose2d):
    """A transposed convolution of stride 2 with weight normalisation: (B, I, H, W) -> (B, O, 2H, 2W).

    It is causal: input (i, j) adds to rows 2i and 2i+1 of the output and, in stream `ul`, to columns 2j and 2j+1.
    """

    def __init__(self, inputs: int, outputs: int, stream: Stream):
        crop = (0, stream.right)
        super().__init__(inputs, outputs, stream.kernel, stride=2, padding=crop, output_padding=crop)
        # 2, as an output pixel meets a quarter of the kernel's weights
        self.gain = nn.Parameter(torch.full((outputs,), 2.0))

    def kernel(self) -> Tensor:
        """The normalised weights (I, O, rows, columns)."""
        return weight_norm(self.weight, self.gain, dim=1)

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """`forward` with weights that have been normalised already."""
        return F.conv_transpose2d(x, kernel, self.bias, self.stride, self.padding, self.output_padding)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # torch's takes the size of the output too
        return self.convolve(x, self.kernel())


class GatedResnet(nn.Module):
    """A gated residual block: x + a * sigmoid(b), with a and b from two convolutions of x.

    link: the number of features that enter between the two convolutions by a 1x1 convolution (from the other stream or
    a skip connection), 0 for none.
    """

    def __init__(self, hidden: int, stream: Stream, link: int, cond_channels: int, dropout: float):
        super().__init__()
        self.stream = stream
        self.first = NormedConv(2 * hidden, hidden, stream.kernel)
        self.link = NormedConv(2 * link, hidden, (1, 1)) if link else None
        self.dropout = nn.Dropout(dropout)
        self.second = NormedConv(2 * hidden, 2 * hidden, stream.kernel, gain=0.1)
        self.condition = nn.Conv2d(cond_channels, 2 * hidden, 1, bias=False) if cond_channels else None

    def forward(self, x: Tensor, linked: Tensor | None, cond: Tensor | None) -> Tensor:
        """x (B, F, H, W), linked (B, link, H, W) and a condition map (B, D, 1 or H, 1 or W) to (B, F, H, W)."""
        pad, gates = self.stream.pad, self.gates(cond)
        return self.forward_with(
            lambda f: self.first(pad(f)), self.link, lambda f: self.second(pad(f)), x, linked, gates
        )

    def gates(self, cond: Tensor | None) -> Tensor | None:
        """What a condition map adds to a and b, (B, 2F, 1 or H, 1 or W)."""
        return None if self.condition is None or cond is None else self.condition(cond)

    def forward_with(
        self,
        first: Convolve,
        link: Convolve | None,
        second: Convolve,
        x: Tensor,
        linked: Tensor | None,
        gates: Tensor | None,
    ) -> Tensor:
        """x + a * sigmoid(b), (B, F, ...), by the given convolutions: the layer's own, or those of a stepper."""
        features = first(concat_elu(x))  # (B, F, ...)
        if link is not None and linked is not None:
            features = features + link(concat_elu(linked))
        features = second(self.dropout(concat_elu(features)))  # (B, 2F, ...)
        if gates is not None:
            features = features + gates
        a, b = features.chunk(2, dim=1)  # (B, F, ...) each
        return x + a * torch.sigmoid(b)


def ul_link(u: Tensor, skip: Tensor | None) -> Tensor:
    """The link input of stream `ul`: `u` of the same block and, on the upsampling pass, the skip connection of `ul`."""
    return u if skip is None else torch.cat([u, skip], dim=1)  # (B, F or 2F, ...)


def unet_passes(
    features: Features,
    down: Sequence[Callable[[Features], Features]],
    lower: Callable[[Features], Features] | None,
    up: Sequence[Callable[[Features, Features], Features]],
) -> Features:
    """The downsampling and upsampling passes of a U-Net at one resolution, with the lower resolutions between them.

    Each block of the pass up has a skip connection from the pass down, last to first: the input of the pass and the
    outputs of its blocks. At the lowest resolution the last output is the input of the pass up instead.
    """
    skips = [features]
    for block in down:
        skips.append(block(skips[-1]))
    features = skips.pop() if lower is None else lower(skips[-1])
    for block_with_skip in up:
        features = block_with_skip(features, skips.pop())
    return features


def halve_condition(cond: Tensor | None) -> Tensor | None:
    """A condition map at half the resolution; a vector (B, D, 1, 1) holds at any resolution."""
    return cond if cond is None or cond.shape[2:] == (1, 1) else F.avg_pool2d(cond, 2)  # (B, D, H/2, W/2)
