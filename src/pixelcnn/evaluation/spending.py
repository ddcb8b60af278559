"""The error of endlessly many tests, spent so that all of them together err with a stated probability at most."""

import math


def level(k: int, alpha: float) -> float:
    """The level of the k-th test (k = 1, 2, ...): 6 alpha / (pi^2 k^2).

    The sum over all k is alpha, so by the union bound the probability that any test errs is at most alpha, however the
    tests depend on each other, as by images that they share.
    """
    return 6 * alpha / (math.pi * k) ** 2
