"""The paired comparison: gains, intervals, and what may not be compared."""

import math

import numpy as np
import pytest

from pixelcnn.evaluation.comparison import compare

N = 400


def bits(seed: int, mean: float, spread: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, N)


def test_gain_and_interval_are_those_of_the_differences() -> None:
    champion = np.array([3.0, 2.0, 4.0, 3.0])
    result = compare(champion, champion - np.array([0.1, 0.3, 0.1, 0.3]), 0.95)
    error = math.sqrt(4 * 0.1**2 / 3) / 2  # the sample's standard deviation, over the root of four
    assert result.gain == pytest.approx(0.2)
    assert result.standard_error == pytest.approx(error)
    assert (result.low, result.high) == (pytest.approx(0.2 - 1.959964 * error), pytest.approx(0.2 + 1.959964 * error))


def test_pairing_resolves_what_two_means_could_not() -> None:
    champion = bits(0, 3, 0.5)  # standard error of the mean: 0.025
    challenger = champion - 0.01 + bits(1, 0, 0.02)
    assert compare(champion, challenger, 0.95).exceeds(0.005)
    assert not compare(champion, np.random.default_rng(2).permutation(challenger), 0.95).exceeds(0.005)


@pytest.mark.parametrize(("change", "surely"), [(-0.02, True), (-0.006, False), (0.0, False), (0.02, False)])
def test_only_a_gain_whose_whole_interval_lies_above_the_margin_counts(change: float, surely: bool) -> None:
    champion, noise = bits(0, 3, 0.5), bits(1, 0, 0.02)
    challenger = champion + change + noise - noise.mean()
    assert compare(champion, challenger, 0.95).exceeds(0.005) is surely


def test_a_model_gains_nothing_over_itself() -> None:
    result = compare(bits(0, 3, 0.5), bits(0, 3, 0.5), 0.95)
    assert (result.gain, result.low, result.high) == (0, 0, 0)
    assert not result.exceeds(0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    noise = np.random.default_rng(0).normal(0.01, 0.05, (2000, 100))
    results = [compare(row, np.zeros(100), 0.9) for row in noise]
    covered = np.mean([result.low <= 0.01 <= result.high for result in results])
    assert covered == pytest.approx(0.9, abs=0.02)


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="400 images of the champion, 399 of the challenger"):
        compare(bits(0, 3, 0.5), bits(0, 3, 0.5)[1:], 0.95)
    with pytest.raises(ValueError, match="needs two"):
        compare(bits(0, 3, 0.5)[:1], bits(0, 3, 0.5)[:1], 0.95)
