"""Paired comparison: gains, confidence intervals, and invalid input."""

import math

import numpy as np
import pytest

from pixelcnn.evaluation.comparison import compare, confidence_of

N = 400


def bits(seed: int, mean: float, spread: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, N)


def test_gain_and_interval_are_those_of_the_paired_differences() -> None:
    champion = np.array([3.0, 2.0, 4.0, 3.0])
    result = compare(champion, champion - np.array([0.1, 0.3, 0.1, 0.3]), 0.95)
    error = math.sqrt(4 * 0.1**2 / 3) / 2  # the sample's standard deviation, over the root of four
    assert result.gain == pytest.approx(0.2)
    assert result.standard_error == pytest.approx(error)
    assert (result.low, result.high) == (pytest.approx(0.2 - 1.959964 * error), pytest.approx(0.2 + 1.959964 * error))


def test_pairing_resolves_gains_below_the_standard_error_of_the_means() -> None:
    champion = bits(0, 3, 0.5)  # standard error of the mean: 0.025
    challenger = champion - 0.01 + bits(1, 0, 0.02)
    assert compare(champion, challenger, 0.95).exceeds(0.005)
    assert not compare(champion, np.random.default_rng(2).permutation(challenger), 0.95).exceeds(0.005)


@pytest.mark.parametrize(("change", "exceeds"), [(-0.02, True), (-0.006, False), (0.0, False), (0.02, False)])
def test_a_gain_exceeds_the_margin_only_if_its_whole_interval_does(change: float, exceeds: bool) -> None:
    champion, noise = bits(0, 3, 0.5), bits(1, 0, 0.02)
    challenger = champion + change + noise - noise.mean()
    assert compare(champion, challenger, 0.95).exceeds(0.005) is exceeds


def test_a_model_has_no_gain_over_itself() -> None:
    result = compare(bits(0, 3, 0.5), bits(0, 3, 0.5), 0.95)
    assert (result.gain, result.low, result.high) == (0, 0, 0)
    assert not result.exceeds(0)


def test_the_interval_covers_the_true_gain_at_its_confidence() -> None:
    noise = np.random.default_rng(0).normal(0.01, 0.05, (2000, 100))
    results = [compare(row, np.zeros(100), 0.9) for row in noise]
    covered = np.mean([result.low <= 0.01 <= result.high for result in results])
    assert covered == pytest.approx(0.9, abs=0.02)


def test_different_or_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="400 images of the champion, 399 of the challenger"):
        compare(bits(0, 3, 0.5), bits(0, 3, 0.5)[1:], 0.95)
    with pytest.raises(ValueError, match="no images"):
        compare(bits(0, 3, 0.5)[:0], bits(0, 3, 0.5)[:0], 0.95)


# Challenger after challenger: docs/pipelines.md states what `python -m tests.test_comparison` prints


def promotes_falsely(seed: int, nights: int, spends: bool) -> bool:
    """Whether one of many challengers that gain exactly the margin is promoted, all measured on the same test images.

    The noise of the champion's own bits/dim is the same in every comparison, so that these depend on each other.
    """
    rng = np.random.default_rng(seed)
    champion = rng.normal(3 + 0.005, 0.05, N)
    for k in range(1, nights + 1):
        confidence = confidence_of(k, 0.95) if spends else 0.95
        if compare(champion, rng.normal(3, 0.05, N), confidence).exceeds(0.005):
            return True
    return False


def rate(histories: int, nights: int, spends: bool) -> float:
    """The share of histories in which a challenger is promoted that should not be."""
    return float(np.mean([promotes_falsely(seed, nights, spends) for seed in range(histories)]))


def test_night_after_night_a_challenger_without_the_gain_is_promoted_at_the_stated_rate_only() -> None:
    assert rate(80, 40, spends=True) < 0.05
    assert rate(80, 40, spends=False) > 0.2


def test_the_errors_of_all_challengers_add_up_to_the_stated_one() -> None:
    errors = [1 - confidence_of(k, 0.95) for k in range(1, 2001)]
    assert errors[0] == pytest.approx(0.05 * 6 / math.pi**2)
    assert 0.0499 < sum(errors) < 0.05


if __name__ == "__main__":
    print(f"365 challengers: {rate(2000, 365, True):.4f} of 2,000 histories; each at 95%: {rate(2000, 365, False):.3f}")
