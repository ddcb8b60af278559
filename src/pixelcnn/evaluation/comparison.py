"""Paired comparison of two models: the mean difference of their NLLs on the same images, with a confidence interval.

Most of the variance of an NLL is between images: hard images are hard for both models. The difference removes it, so
that a paired comparison resolves gains far below the standard error of either mean. Shapes: N images.

Challengers compared one after the other at a constant error include a false promotion sooner or later (multiple
testing). `confidence_of` spends the error over all of them (pixelcnn.evaluation.spending).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pixelcnn.evaluation.spending import level


@dataclass(frozen=True)
class Comparison:
    """The bits/dim that a challenger saves against a champion: mean, standard error, two-sided confidence interval."""

    gain: float
    standard_error: float
    low: float
    high: float
    confidence: float
    num_images: int

    def exceeds(self, min_gain: float) -> bool:
        """Whether the whole interval lies above `min_gain`: the gain is significantly larger."""
        return self.low > min_gain

    def __str__(self) -> str:
        interval = f"{self.low:+.4f} to {self.high:+.4f} at an error of {100 * (1 - self.confidence):.2g}%"
        return f"gain {self.gain:+.4f} bits/dim ({interval}, {self.num_images:,} images)"


def confidence_of(k: int, confidence: float) -> float:
    """The confidence at which the k-th challenger is compared (k = 1, 2, ...).

    Any of endlessly many challengers without the gain is then promoted with a probability of 1 - confidence at most.
    """
    return 1 - level(k, 1 - confidence)


def compare(champion: np.ndarray, challenger: np.ndarray, confidence: float) -> Comparison:
    """Compare bits/dim (N,) of the same images in the same order; the interval is the normal approximation's.

    confidence: of the two-sided interval, such as 0.95; that of a single image is infinite. Raises ValueError where the
    numbers of images differ or are 0.
    """
    if champion.shape != challenger.shape:
        raise ValueError(f"{len(champion)} images of the champion, {len(challenger)} of the challenger: not the same")
    if len(champion) == 0:
        raise ValueError("no images to compare on")
    saved = champion.astype(np.float64) - challenger.astype(np.float64)
    gain, error = float(saved.mean()), math.inf
    if len(saved) > 1:
        error = float(saved.std(ddof=1) / math.sqrt(len(saved)))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Comparison(gain, error, gain - half, gain + half, confidence, len(saved))
