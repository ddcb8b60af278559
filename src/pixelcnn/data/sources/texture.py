"""A synthetic causal texture whose distribution is known exactly: a model's bits/dim can be compared to its entropy.

Sub-pixels are drawn in autoregressive order (rows, columns, channels), each from a discretised Gaussian over the
levels. Its mean is a weighted mean of preceding neighbours (left, above, above right, previous channel), its standard
deviation depends on the sub-pixel above. Probabilities are integer weights over their sum, looked up in a table, so a
seed gives the same images on any machine. Nothing is downloaded.

Shapes: N images, C channels, H rows, W columns, L levels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelcnn.data.sources import Item, PublishedSplit, Source

SHAPE, LEVELS = (3, 8, 8), 8
OUTSIDE = LEVELS // 2  # the level of a neighbour beyond the edge
DEVIATIONS = (1.5, 0.6)  # standard deviations in levels, below a dark and below a light sub-pixel
UNITS = 2**20  # weight of a level at the mean

Integers = npt.NDArray[np.int64]


def _table() -> Integers:
    """Weights (2, 8 (L-1) + 1, L) of each level, by standard deviation and mean (in eighths of a level)."""
    mean = np.arange(8 * (LEVELS - 1) + 1)[:, None] / 8
    gaussians = [np.exp(-0.5 * ((np.arange(LEVELS) - mean) / deviation) ** 2) for deviation in DEVIATIONS]
    return 1 + np.round(UNITS * np.stack(gaussians)).astype(np.int64)


TABLE = _table()


def draw(num: int, seed: int) -> npt.NDArray[np.uint8]:
    """Draw `num` images (N, C, H, W) uint8, by inverse transform sampling of each sub-pixel."""
    generator = np.random.Generator(np.random.PCG64(seed))
    images = np.zeros((num, *SHAPE), np.uint8)
    channels, height, width = SHAPE
    for i, j, c in np.ndindex(height, width, channels):
        cumulated = _weights(images, i, j, c).cumsum(1)
        noise = generator.integers(0, cumulated[:, -1])
        images[:, c, i, j] = (cumulated <= noise[:, None]).sum(1)
    return images


def nll(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """-log p in nats (N,) of images (N, C, H, W); its expectation over the texture is the entropy."""
    channels, height, width = SHAPE
    nats = np.zeros(len(images))
    for i, j, c in np.ndindex(height, width, channels):
        weights = _weights(images, i, j, c)
        drawn = np.take_along_axis(weights, images[:, c, i, j, None].astype(np.int64), axis=1)[:, 0]
        nats += np.log(weights.sum(1)) - np.log(drawn)
    return nats


def _weights(images: npt.NDArray[np.uint8], i: int, j: int, c: int) -> Integers:
    """Unnormalised integer probabilities (N, L) of the levels of one sub-pixel, given those before it."""
    left, above, above_right = (_at(images, c, *place) for place in ((i, j - 1), (i - 1, j), (i - 1, j + 1)))
    others = 2 * left + 2 * above_right if c == 0 else 4 * _at(images, c - 1, i, j)
    mean = 2 * left + 2 * above + others  # in eighths of a level
    return TABLE[(above >= LEVELS // 2).astype(int), mean]


def _at(images: npt.NDArray[np.uint8], c: int, i: int, j: int) -> Integers:
    _, height, width = SHAPE
    if 0 <= i < height and 0 <= j < width:
        return images[:, c, i, j].astype(np.int64)
    return np.full(len(images), OUTSIDE)


def read(source: Source, _folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """The texture's images, drawn from a seed for each split."""
    images = draw(source.num_images[split], seed={"train": 0, "test": 1}[split])
    yield from ((f"texture: {split} {n}", image, None) for n, image in enumerate(images))


SOURCE = Source(
    title="Causal texture 8x8",
    read=read,
    archives={},
    shape=SHAPE,
    levels=LEVELS,
    classes=(),
    num_images={"train": 10_000, "test": 2_000},
    licence="MIT, as this project",
    citation="pixelcnn.data.sources.texture",
    homepage="",
    fingerprints={
        "train": "3c60ed73031462770b6d87ca10bfab4d634e5dfa2efd9a868ed5e05a20f20ebf",
        "test": "19915a461a67d6ff98fd2d48a47db754e80a821c9d83cbfd459f734326b89c0e",
    },
    true_nll=nll,
)
