"""What networks are asked: which sub-pixels an output depends on, and whether images can be learnt by heart.

Dependencies are measured by gradients, and worked out by sets in plain Python, pixel by pixel and without a network: a
field maps a feature's place (row, column, colour) to the sub-pixels (row, column, channel) that the feature knows.
"""

import math

import torch
from torch import Tensor, nn

from pixelcnn.likelihoods.categorical import Categorical

Place = tuple[int, int, int]
Field = dict[Place, frozenset[Place]]
Shape = tuple[int, int, int]  # C, H, W


def noise(shape: Shape, num: int, levels: int = 4) -> Tensor:
    """Random integer images (num, C, H, W)."""
    return torch.randint(0, levels, (num, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def measured(network: nn.Module, shape: Shape, num: int = 4) -> Field:
    """The field of a network's outputs, by gradients at `num` images together: a ReLU may be shut at one of them.

    One backward pass for an image: a copy of it for every output, since images do not see each other.
    """
    outputs = places(shape)
    generator = torch.Generator().manual_seed(1)
    seen = torch.zeros(len(outputs), *shape, dtype=torch.bool)
    for image in noise(shape, num):
        copies = image.double().repeat(len(outputs), 1, 1, 1).requires_grad_()
        logits = network(copies)
        mixed = torch.einsum("nlchw,l->nchw", logits, torch.randn(logits.shape[1], generator=generator).double())
        torch.stack([mixed[n, c, i, j] for n, (i, j, c) in enumerate(outputs)]).sum().backward()
        assert copies.grad is not None
        seen |= copies.grad != 0
    return {p: frozenset((i, j, c) for c, i, j in s.nonzero().tolist()) for p, s in zip(outputs, seen, strict=True)}


def places(shape: Shape) -> list[Place]:
    """All sub-pixels in the one order: rows, then columns, then channels."""
    channels, height, width = shape
    return [(i, j, c) for i in range(height) for j in range(width) for c in range(channels)]


def earlier(shape: Shape) -> Field:
    """All that precedes each sub-pixel."""
    return {p: frozenset(q for q in places(shape) if q < p) for p in places(shape)}


def image(shape: Shape) -> Field:
    """What the image itself knows: each sub-pixel its own value."""
    return {p: frozenset([p]) for p in places(shape)}


def union(field: Field, wanted: list[Place]) -> frozenset[Place]:
    """What is known at any of the wanted places, those outside the image left out."""
    return frozenset().union(*(field[p] for p in wanted if p in field))


def whole_pixels(field: Field, pixels: list[tuple[int, int]]) -> frozenset[Place]:
    """What is known to any colour at any of the pixels."""
    return union(field, [(i, j, c) for i, j in pixels for c in range(3)])


def masked_convolution(field: Field, reach: int, mask_type: str) -> Field:
    """One k x k masked convolution: rows above and pixels to the left in full, the pixel itself in order of colours."""

    def known(i: int, j: int, c: int) -> frozenset[Place]:
        above = [(i - up, j + aside) for up in range(1, reach + 1) for aside in range(-reach, reach + 1)]
        left = [(i, j - back) for back in range(1, reach + 1)]
        own = [(i, j, colour) for colour in range(c if mask_type == "A" else c + 1)]
        return whole_pixels(field, above + left) | union(field, own)

    return {p: known(*p) for p in field}


def mixed_colours(field: Field) -> Field:
    """A 1x1 convolution with mask B."""
    return {(i, j, c): union(field, [(i, j, colour) for colour in range(c + 1)]) for i, j, c in field}


def excess(network: nn.Module, x: Tensor, steps: int) -> float:
    """Train on different images; by how many bits/dim they cost more than the log2(B) bits each that say which one it
    is. Less than zero would be a leak."""
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(steps):
        nats = Categorical(4).nll(network(x), x).mean()
        optimizer.zero_grad()
        nats.backward()
        optimizer.step()
    with torch.no_grad():
        nats = Categorical(4).nll(network(x), x).mean()
    return float((nats - math.log(len(x))) / (x[0].numel() * math.log(2)))
