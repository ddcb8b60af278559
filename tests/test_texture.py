"""The texture: its probabilities, its samples, and how close a trained model comes to its entropy."""

import itertools
import math

import numpy as np
import pytest
import torch

from pixelcnn.architectures.gated_pixelcnn.config import Config as GatedPixelCNN
from pixelcnn.data import sources
from pixelcnn.data.dataset import Split, fingerprint, image_hash
from pixelcnn.data.sources import texture
from pixelcnn.evaluation.nll import nll
from pixelcnn.likelihoods.categorical.config import Config as Categorical
from pixelcnn.model import Data, build
from pixelcnn.params import Cosine, Train
from pixelcnn.training.state import Training
from tests.conftest import steps

DIMS = math.prod(texture.SHAPE)


def test_the_first_pixels_probabilities_sum_to_one() -> None:
    images = np.zeros((8**3, *texture.SHAPE), np.uint8)
    images[:, :, 0, 0] = list(itertools.product(range(8), repeat=3))
    total = sum(math.exp(sum(_log_p(image, 0, 0, c) for c in range(3))) for image in images)
    assert total == pytest.approx(1, abs=1e-12)


def _log_p(image: np.ndarray, i: int, j: int, c: int) -> float:
    weights = texture._weights(image[None], i, j, c)[0]
    return math.log(weights[image[c, i, j]] / weights.sum())


def test_the_nll_is_the_sum_over_sub_pixels() -> None:
    image = texture.draw(1, seed=3)
    places = np.ndindex(8, 8, 3)
    assert texture.nll(image)[0] == pytest.approx(-sum(_log_p(image[0], i, j, c) for i, j, c in places))


def test_a_sub_pixel_depends_only_on_preceding_ones() -> None:
    image = texture.draw(1, seed=3)
    later = image.copy()
    later[:, 1:, 4, 4:] = 7 - later[:, 1:, 4, 4:]
    later[:, :, 5:] = 7 - later[:, :, 5:]
    for i, j, c in [(4, 4, 0), (4, 4, 1), (4, 3, 2), (3, 7, 2)]:
        assert np.array_equal(texture._weights(image, i, j, c), texture._weights(later, i, j, c))


def test_sample_frequencies_match_the_distribution() -> None:
    images = texture.draw(20_000, seed=5)
    first = np.bincount(images[:, 0, 0, 0], minlength=8) / len(images)
    weights = texture._weights(images[:1], 0, 0, 0)[0]
    np.testing.assert_allclose(first, weights / weights.sum(), atol=4 * 0.5 / math.sqrt(len(images)))
    # E[-log p] of every sub-pixel's own distribution is what -log p is on average
    expected = []
    for i, j, c in np.ndindex(8, 8, 3):
        p = texture._weights(images[:2000], i, j, c) / texture._weights(images[:2000], i, j, c).sum(1, keepdims=True)
        expected.append(-(p * np.log(p)).sum(1))
    nats = texture.nll(images[:2000])
    surplus = nats - np.sum(expected, axis=0)
    assert abs(surplus.mean()) < 4 * surplus.std() / math.sqrt(len(surplus))


def test_the_drawn_images_have_the_fingerprint_of_the_source() -> None:
    source = sources.load("texture")
    hashes = (image_hash(image.tobytes()) for image in texture.draw(source.num_images["test"], seed=1))
    assert fingerprint(hashes) == source.fingerprints["test"]


def test_the_same_seed_draws_the_same_images() -> None:
    assert np.array_equal(texture.draw(3, seed=1), texture.draw(3, seed=1))
    assert not np.array_equal(texture.draw(3, seed=1), texture.draw(3, seed=2))


def test_a_gated_pixelcnn_comes_within_two_hundredths_of_the_entropy_and_never_below_it() -> None:
    section = GatedPixelCNN(
        name="gated_pixelcnn", condition="none", num_layers=2, hidden_channels=48, kernel_size=3, first_kernel_size=3,
        head_channels=48, dropout=0.0,
    )  # fmt: skip
    settings = Train(
        seed=0, steps=500, batch_size=64, learning_rate=0.006, warmup_steps=50, optimizer="adamw", betas=[0.9, 0.99],
        weight_decay=0.01, gradient_clip=1.0, ema_decay=0.99, flips=False, precision="float32", validate_every=500,
        schedule=Cosine(name="cosine"), initial=None,
    )  # fmt: skip
    torch.manual_seed(0)
    data, test = (Split(torch.from_numpy(texture.draw(n, seed)), None) for n, seed in ((10_000, 0), (2_000, 1)))
    training = Training.begin(
        build(section, Categorical(name="categorical"), Data("texture", (3, 8, 8), 8, (), {})), settings
    )
    for _ in steps(training, data, Split(data.images[:100], None)):
        pass
    excess = (nll(training.ema, test, 500).numpy() - texture.nll(test.images.numpy())) / (DIMS * math.log(2))
    error = excess.std() / math.sqrt(len(excess))
    print(f"excess over the entropy: {excess.mean():.4f} +- {error:.4f} bits/dim")
    assert -3 * error < excess.mean() < 0.02
