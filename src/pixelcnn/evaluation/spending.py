"""Error spending for an unlimited sequence of tests: the family-wise error of all of them together is bounded."""

import math


def level(k: int, alpha: float) -> float:
    """The level of the k-th test (k = 1, 2, ...): 6 alpha / (pi^2 k^2).

    The sum over all k is alpha, so by the union bound (Bonferroni) the family-wise error is at most alpha, whatever the
    dependence between the tests, which share test images.
    """
    return 6 * alpha / (math.pi * k) ** 2
