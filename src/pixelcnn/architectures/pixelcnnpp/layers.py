"""The building blocks of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517, figure 2): two streams of gated resnets.

Stream `u` at (i, j) knows rows above i, stream `ul` also what lies left in row i; nothing of the pixel itself. The step
off the pixel is taken once, by the first layer; later kernels end at (i, j), so none is masked. Convolutions are valid
ones: a stream's `pad` supplies what lies above and beside, zeros in `forward`, and a stepper its state.

Weights are normalised (w = gain v / |v|), which keeps an image's outputs free of its batch and of its other positions,
as a norm over features in several positions would not. In place of the paper's data-dependent initialisation the gains
begin at one, which lets features of unit variance keep about that, and at 0.1 before a gate, as the paper has it.

Shapes: B batch, I input features, F hidden features, H rows, W columns, D condition features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolve = Callable[[Tensor], Tensor]
Streams = tuple[Tensor, Tensor]  # u and ul, (B, F, H, W) each
Features = TypeVar("Features", Tensor, Streams)


def concat_elu(features: Tensor) -> Tensor:
    """elu(x) beside elu(-x): (B, F, ...) -> (B, 2F, ...)."""
    return F.elu(torch.cat([features, -features], dim=1))


@dataclass(frozen=True)
class Stream:
    """The kernels of one stream and the columns of context that they need; rows above: all but one of the kernel's."""

    kernel: tuple[int, int]
    left: int
    right: int

    def pad(self, features: Tensor) -> Tensor:
        """Zeros for what lies above and beside."""
        return F.pad(features, (self.left, self.right, self.kernel[0] - 1, 0))


U = Stream(kernel=(2, 3), left=1, right=1)
UL = Stream(kernel=(2, 2), left=1, right=0)


def normed(weight: Tensor, gain: Tensor, dim: int) -> Tensor:
    """gain * v / |v| of a kernel whose output features lie in dimension `dim` (arXiv:1602.07868, equation 2)."""
    others = [d for d in range(weight.ndim) if d != dim]
    norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (gain.view_as(norm) / norm)


class NormedConv(nn.Conv2d):
    """A valid convolution with normalised weights."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, gain: float = 1.0):
        super().__init__(inputs, outputs, kernel, stride)
        self.gain = nn.Parameter(torch.full((outputs,), gain))

    def kernel(self) -> Tensor:
        """The normalised weights (O, I, rows, columns)."""
        return normed(self.weight, self.gain, dim=0)

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """`forward` with a kernel that is at hand."""
        return F.conv2d(x, kernel, self.bias, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.kernel())


class NormedUpsampling(nn.ConvTranspose2d):
    """(B, I, H, W) -> (B, O, 2H, 2W): coarse (i, j) reaches fine rows 2i and 2i+1, none above."""

    def __init__(self, inputs: int, outputs: int, stream: Stream):
        aside = (0, stream.right)
        super().__init__(inputs, outputs, stream.kernel, stride=2, padding=aside, output_padding=aside)
        self.gain = nn.Parameter(torch.full((outputs,), 2.0))  # a fine pixel meets a quarter of the kernel

    def kernel(self) -> Tensor:
        """The normalised weights (I, O, rows, columns)."""
        return normed(self.weight, self.gain, dim=1)

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """`forward` with a kernel that is at hand."""
        return F.conv_transpose2d(x, kernel, self.bias, self.stride, self.padding, self.output_padding)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the size of the output is not to be chosen
        return self.convolve(x, self.kernel())


class GatedResnet(nn.Module):
    """x + a sigmoid(b), with a and b from two convolutions of x and, between them, a 1x1 link from `link` features."""

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
        return self.through(lambda f: self.first(pad(f)), self.link, lambda f: self.second(pad(f)), x, linked, gates)

    def gates(self, cond: Tensor | None) -> Tensor | None:
        """What a condition map adds to a and b, (B, 2F, 1 or H, 1 or W)."""
        return None if self.condition is None or cond is None else self.condition(cond)

    def through(
        self,
        first: Convolve,
        link: Convolve | None,
        second: Convolve,
        x: Tensor,
        linked: Tensor | None,
        gates: Tensor | None,
    ) -> Tensor:
        """From x to x + a sigmoid(b), (B, F, ...) each: with the layer's own convolutions, or with a stepper's."""
        features = first(concat_elu(x))
        if link is not None and linked is not None:
            features = features + link(concat_elu(linked))
        features = second(self.dropout(concat_elu(features)))
        if gates is not None:
            features = features + gates
        a, b = features.chunk(2, dim=1)
        return x + a * torch.sigmoid(b)


def link_of_ul(u: Tensor, short_cut: Tensor | None) -> Tensor:
    """What stream `ul` is linked to: `u` of the same block and, on the pass up, its own short-cut."""
    return u if short_cut is None else torch.cat([u, short_cut], dim=1)


def down_and_up(
    features: Features,
    down: Sequence[Callable[[Features], Features]],
    coarser: Callable[[Features], Features] | None,
    up: Sequence[Callable[[Features, Features], Features]],
) -> Features:
    """Both passes: the blocks of the pass up have, last to first, what those of the pass down were given."""
    seen = [features]
    for block in down:
        seen.append(block(seen[-1]))
    features = seen.pop() if coarser is None else coarser(seen[-1])
    for short_cut_block in up:
        features = short_cut_block(features, seen.pop())
    return features


def halved(cond: Tensor | None) -> Tensor | None:
    """A condition map for half the resolution; a vector (B, D, 1, 1) is for any."""
    return cond if cond is None or cond.shape[2:] == (1, 1) else F.avg_pool2d(cond, 2)
