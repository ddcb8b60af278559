"""Receptive fields of networks, measured and derived; whether images can be overfitted; a reference for log_pmf.

Receptive fields are measured by gradients, and derived from the layers by sets in plain Python, pixel by pixel and
without a network. Both are dictionaries from the position of a feature (row, column, colour) to the set of sub-pixels
(row, column, channel) of the image that the feature depends on.
"""

import math

import torch
from torch import Tensor, nn

from pixelcnn.likelihoods.base import Likelihood
from pixelcnn.likelihoods.categorical.likelihood import Categorical
from pixelcnn.likelihoods.logistic_mixture.likelihood import LogisticMixture, log_bin

SubPixel = tuple[int, int, int]
ReceptiveFields = dict[SubPixel, frozenset[SubPixel]]
Shape = tuple[int, int, int]  # C, H, W


def noise(shape: Shape, num: int, levels: int = 4) -> Tensor:
    """Random integer images (num, C, H, W)."""
    return torch.randint(0, levels, (num, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def measured_fields(network: nn.Module, shape: Shape, num: int = 4) -> ReceptiveFields:
    """The receptive fields of a network's outputs, by gradients.

    The union over `num` random images, as a ReLU may be inactive at one of them. One backward pass per image: the batch
    has a copy of it for every output, since images of a batch do not depend on each other.
    """
    outputs = sub_pixels(shape)
    generator = torch.Generator().manual_seed(1)
    seen = torch.zeros(len(outputs), *shape, dtype=torch.bool)
    for image in noise(shape, num):
        copies = image.double().repeat(len(outputs), 1, 1, 1).requires_grad_()  # (N, C, H, W), N = C*H*W
        logits = network(copies)  # (N, L, C, H, W)
        mixed = torch.einsum("nlchw,l->nchw", logits, torch.randn(logits.shape[1], generator=generator).double())
        torch.stack([mixed[n, c, i, j] for n, (i, j, c) in enumerate(outputs)]).sum().backward()
        assert copies.grad is not None
        seen |= copies.grad != 0
    return {p: frozenset((i, j, c) for c, i, j in s.nonzero().tolist()) for p, s in zip(outputs, seen, strict=True)}


def sub_pixels(shape: Shape) -> list[SubPixel]:
    """All sub-pixels in raster-scan order: rows, then columns, then channels."""
    channels, height, width = shape
    return [(i, j, c) for i in range(height) for j in range(width) for c in range(channels)]


def earlier(shape: Shape) -> ReceptiveFields:
    """All earlier sub-pixels of each: the largest receptive fields that are causal."""
    return {p: frozenset(q for q in sub_pixels(shape) if q < p) for p in sub_pixels(shape)}


def input_fields(shape: Shape) -> ReceptiveFields:
    """The receptive fields of the image itself: each sub-pixel depends on its own value."""
    return {p: frozenset([p]) for p in sub_pixels(shape)}


def union(field: ReceptiveFields, wanted: list[SubPixel]) -> frozenset[SubPixel]:
    """The union of the receptive fields at the wanted positions; positions outside the image are empty."""
    return frozenset().union(*(field[p] for p in wanted if p in field))


def union_of_pixels(field: ReceptiveFields, pixels: list[tuple[int, int]]) -> frozenset[SubPixel]:
    """The union of the receptive fields of all colours at the pixels."""
    return union(field, [(i, j, c) for i, j in pixels for c in range(3)])


def masked_convolution(field: ReceptiveFields, reach: int, mask_type: str) -> ReceptiveFields:
    """After a k x k masked convolution, reach = k // 2: above and to the left in full, the pixel itself by colours."""

    def of(i: int, j: int, c: int) -> frozenset[SubPixel]:
        above = [(i - up, j + aside) for up in range(1, reach + 1) for aside in range(-reach, reach + 1)]
        left = [(i, j - back) for back in range(1, reach + 1)]
        own = [(i, j, colour) for colour in range(c if mask_type == "A" else c + 1)]
        return union_of_pixels(field, above + left) | union(field, own)

    return {p: of(*p) for p in field}


def masked_1x1(field: ReceptiveFields) -> ReceptiveFields:
    """After a 1x1 convolution with mask B."""
    return {(i, j, c): union(field, [(i, j, colour) for colour in range(c + 1)]) for i, j, c in field}


def excess_bits(network: nn.Module, x: Tensor, steps: int) -> float:
    """Overfit different images x (B, C, H, W); the bits/dim that they cost above the least, log2(B) bits an image.

    log2(B) bits identify one of B images; fewer would mean that an output depends on what it predicts.
    """
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(steps):
        nats = Categorical(4).nll(network(x), x).mean()
        optimizer.zero_grad()
        nats.backward()
        optimizer.step()
    with torch.no_grad():
        nats = Categorical(4).nll(network(x), x).mean()
    return float((nats - math.log(len(x))) / (x[0].numel() * math.log(2)))


def log_pmf(likelihood: Likelihood, outputs: Tensor, x: Tensor) -> Tensor:
    """log p of every level of every sub-pixel, given the earlier channels of its pixel: (B, L, C, H, W) float64.

    The accurate, slow reference of `Likelihood.log_pmf_of`: by logarithms alone, with L x M numbers per sub-pixel.
    """
    if isinstance(likelihood, Categorical):
        return torch.log_softmax(outputs.double(), dim=1)
    assert isinstance(likelihood, LogisticMixture), "there is no reference of this likelihood here"
    whole, (_, channels, _, _) = likelihood.group_channels > 1, x.shape
    level = torch.arange(likelihood.levels)
    of_channels = []
    for c in range(channels):
        group = outputs[:, :, 0 if whole else c]  # (B, K, H, W)
        rows = group.permute(0, 2, 3, 1).flatten(0, 2)  # (N, K)
        earlier = x[:, : c if whole else 0].permute(0, 2, 3, 1).flatten(0, 2)
        log_weights, mean, log_scale = likelihood._mixture(c if whole else 0, rows, earlier)
        log_p = log_bin(level, mean.unsqueeze(2), log_scale.unsqueeze(2), likelihood.levels)
        of_channel = torch.logsumexp(log_weights.unsqueeze(2) + log_p, dim=1)  # (N, L)
        of_channels.append(of_channel.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2))
    return torch.stack(of_channels, dim=2)
