"""The protocol of likelihoods, inverse-CDF draws, and bits per dimension.

A network has K outputs for each of G groups of channels at a pixel: (B, K, G, H, W). Where the network orders the
channels itself, G is C and a group is one sub-pixel; where it describes whole pixels, G is 1 and the likelihood
factorises the channels. Sampling and coding read one group at one pixel, (N, K), whatever the likelihood.

Shapes: B batch, N pixels (any), L levels, K outputs per group, G groups, C channels, D = C / G channels of a group,
U uniform numbers that draw a group, H rows, W columns.
"""

import math
from typing import Protocol, TypeVar

import torch
from torch import Tensor

ROUNDING = 0.01  # nats per image that rounding in float32 may take from an NLL of almost zero
Number = TypeVar("Number", Tensor, float)


class Likelihood(Protocol):
    """p(x) of integer images, given the outputs of a network."""

    levels: int
    num_outputs: int  # K
    group_channels: int  # D
    num_uniforms: int  # U
    float32_outputs: bool  # outputs rounded to bfloat16 would be too coarse, so autocast must not produce them

    def nll(self, outputs: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats per image, (B,), of outputs (B, K, G, H, W) and integers x (B, C, H, W).

        Computed in float32 at least.
        """

    def nll_map(self, outputs: Tensor, x: Tensor) -> Tensor:
        """-log p in nats of each sub-pixel given those before it, (B, C, H, W); they sum to its `nll`."""

    def log_pmf_of(self, channel: int, outputs: Tensor, earlier: Tensor) -> Tensor:
        """log p (N, L) float64 of every level of one channel.

        outputs (N, K): of the group that the channel belongs to. earlier (N, channel): the pixels' earlier channels.
        """

    def draw(self, outputs: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """Levels (N, D) of the channels of a group, drawn from its outputs (N, K): whole numbers of any dtype.

        uniforms (N, U) float64 in [0, 1), which decide the draw. A temperature below 1 sharpens the distribution of
        each channel. Nothing here waits for the device, so that a GPU can record it.
        """


def draw(log_pmf: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """Inverse-CDF draws: log_pmf (B, L, ...) and uniforms in [0, 1) of shape (B, ...) -> integers (B, ...).

    A temperature below 1 sharpens: p ** (1 / temperature), normalised. In float64, so that the same uniforms draw the
    same image however the same mathematics is arranged. Unnormalised log_pmf will do.
    """
    log_pmf = log_pmf.double()
    pmf = torch.softmax(log_pmf if temperature == 1 else log_pmf / temperature, dim=1)
    # The last level takes what rounding leaves of 1, so its own sum is not asked
    return (pmf.cumsum(1)[:, :-1] <= uniforms.unsqueeze(1)).sum(1)


def draw_levels(likelihood: Likelihood, outputs: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """`Likelihood.draw` (N, D) by the probability of every level, for any likelihood; uniforms (N, D)."""
    drawn = torch.zeros_like(uniforms, dtype=torch.int64)
    for c in range(likelihood.group_channels):
        log_pmf = likelihood.log_pmf_of(c, outputs, drawn[:, :c])
        drawn[:, c] = draw(log_pmf, uniforms[:, c], temperature)
    return drawn


def check_nll(nats: Tensor, what: str = "the model") -> Tensor:
    """NLLs in nats of discrete images, if they can be that. Raises ValueError where one is not finite, or is negative
    by more than rounding, as after a training that has diverged.
    """
    wrong = (~(torch.isfinite(nats) & (nats > -ROUNDING))).nonzero()
    if len(wrong):
        first = int(wrong[0, 0])
        raise ValueError(
            f"{what}: the NLL of image {first} is {float(nats.flatten()[first]):g} nats, which is impossible: "
            "its weights are not those of a finished training"
        )
    return nats


def bits_per_dim(nats: Number, dims: int) -> Number:
    """nats / (dims * ln 2): the one place where nats per image become bits per sub-pixel."""
    return nats / (dims * math.log(2))


def bits_per_pixel(nats: Tensor) -> Tensor:
    """Bits of each pixel, its channels together, (..., H, W) of an NLL map (..., C, H, W) in nats."""
    return bits_per_dim(nats.sum(-3), 1)
