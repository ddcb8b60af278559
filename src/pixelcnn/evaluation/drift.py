"""Out-of-distribution test of incoming images by their NLLs under a model: a two-sample test, repeated every night.

The two-sided Kolmogorov-Smirnov test of the new images' NLLs against those of the test images. Two-sided, since
out-of-distribution images may be less or more likely (Nalisnick et al. 2019, arXiv:1810.09136); of the distributions,
since a mean misses a change of shape. Its p-value is exact, or the limit distribution's, at the small levels of late
nights, where permutations would need millions of draws. benchmarks/drift.py measures false alarms and power.

Repeated at a constant level the test raises a false alarm sooner or later: pixelcnn.evaluation.spending spends the
error over all nights.

Shapes: N test images, M new ones.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from pixelcnn.evaluation.spending import level

FEWEST = 20  # new images of a test: fewer find nothing but the grossest drift, and would spend a night's error on it


@dataclass(frozen=True)
class DriftTest:
    """The test of one night: D is the largest distance of the two cumulative distributions. mean: bits/dim."""

    number: int  # k = 1, 2, ..., of those against the same test images
    num_images: int
    mean: float
    mean_of_test: float
    distance: float
    p_value: float
    level: float

    @property
    def drifted(self) -> bool:
        """Whether the test rejects that the new images have the distribution of the test images."""
        return self.p_value <= self.level

    def __str__(self) -> str:
        verdict = "drift" if self.drifted else "no drift"
        return (
            f"{verdict}: {self.num_images:,} images of {self.mean:.4f} bits/dim in the mean, the test images have "
            f"{self.mean_of_test:.4f}; Kolmogorov-Smirnov D = {self.distance:.3f}, p = {self.p_value:.2g}, "
            f"{'at most' if self.drifted else 'above'} the level {self.level:.2g} of test {self.number}"
        )


def ks_test(of_test: np.ndarray, new: np.ndarray, k: int, alpha: float) -> DriftTest:
    """The k-th test of new bits/dim (M,) against those of the test images (N,). ValueError for fewer than FEWEST."""
    if len(new) < FEWEST:
        raise ValueError(f"{len(new)} images: a test needs {FEWEST} at least")
    found = stats.ks_2samp(new, of_test)
    means = float(new.mean()), float(of_test.mean())
    return DriftTest(k, len(new), *means, float(found.statistic), float(found.pvalue), level(k, alpha))
