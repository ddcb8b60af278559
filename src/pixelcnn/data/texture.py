"""A causal texture whose distribution is known exactly, so that a model's bits/dim can be compared with the entropy.

Sub-pixels are drawn in the one order, each from a bell over the levels. Its middle is a weighted mean of neighbours
that precede (left, above, above right, the colour before), its width depends on the pixel above. Probabilities are
integers over their sum, looked up in a table: no arithmetic of floats stands between a seed and its images.

Shapes: N images, C channels, H rows, W columns, L levels.
"""

import numpy as np
import numpy.typing as npt

from pixelcnn.data.sources import SOURCES

SHAPE, LEVELS = SOURCES["texture"].shape, SOURCES["texture"].levels
OUTSIDE = LEVELS // 2  # what a neighbour beyond the edge counts as
WIDTHS = (1.5, 0.6)  # of the bell in levels: above a dark, above a light sub-pixel
UNITS = 2**20

Integers = npt.NDArray[np.int64]


def _table() -> Integers:
    """(2, 8 (L-1) + 1, L): of each width and each middle, in eighths of a level, how likely each level is."""
    middle = np.arange(8 * (LEVELS - 1) + 1)[:, None] / 8
    bells = [np.exp(-0.5 * ((np.arange(LEVELS) - middle) / width) ** 2) for width in WIDTHS]
    return 1 + np.round(UNITS * np.stack(bells)).astype(np.int64)


TABLE = _table()


def draw(num: int, seed: int) -> npt.NDArray[np.uint8]:
    """`num` images (N, C, H, W) uint8."""
    generator = np.random.Generator(np.random.PCG64(seed))
    images = np.zeros((num, *SHAPE), np.uint8)
    channels, height, width = SHAPE
    for i, j, c in np.ndindex(height, width, channels):
        cumulated = _weights(images, i, j, c).cumsum(1)
        noise = generator.integers(0, cumulated[:, -1])
        images[:, c, i, j] = (cumulated <= noise[:, None]).sum(1)
    return images


def nll(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """-log p in nats (N,) of images (N, C, H, W): its mean is the entropy."""
    channels, height, width = SHAPE
    nats = np.zeros(len(images))
    for i, j, c in np.ndindex(height, width, channels):
        weights = _weights(images, i, j, c)
        drawn = np.take_along_axis(weights, images[:, c, i, j, None].astype(np.int64), axis=1)[:, 0]
        nats += np.log(weights.sum(1)) - np.log(drawn)
    return nats


def _weights(images: npt.NDArray[np.uint8], i: int, j: int, c: int) -> Integers:
    """(N, L): how likely each level of one sub-pixel is, in units of their sum."""
    left, above, above_right = (_at(images, c, *place) for place in ((i, j - 1), (i - 1, j), (i - 1, j + 1)))
    others = 2 * left + 2 * above_right if c == 0 else 4 * _at(images, c - 1, i, j)
    middle = 2 * left + 2 * above + others
    return TABLE[(above >= LEVELS // 2).astype(int), middle]


def _at(images: npt.NDArray[np.uint8], c: int, i: int, j: int) -> Integers:
    _, height, width = SHAPE
    if 0 <= i < height and 0 <= j < width:
        return images[:, c, i, j].astype(np.int64)
    return np.full(len(images), OUTSIDE)
