"""The baselines: the uniform distribution and the multivariate Gaussian, in closed form."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelcnn.evaluation import baselines
from pixelcnn.schemas import Score


@pytest.fixture
def images() -> Tensor:
    """(200, 2, 3, 3) images of 17 levels whose neighbouring sub-pixels are correlated."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(-2, 3, (200, 18), generator=generator)
    return (8 + steps.cumsum(1)).clamp(0, 16).to(torch.uint8).view(200, 2, 3, 3)


def test_the_closed_form_is_the_mean_over_sampled_noise(images: Tensor) -> None:
    gaussian = baselines.fit_gaussian(images)
    exact = baselines.gaussian_nll(gaussian, images)
    density = torch.distributions.MultivariateNormal(gaussian.mean, scale_tril=gaussian.cholesky)
    generator = torch.Generator().manual_seed(1)
    x = images[:20].flatten(1).double()
    draws = torch.stack(
        [-density.log_prob(x + torch.rand(x.shape, generator=generator, dtype=torch.float64)) for _ in range(4000)]
    )
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact[:20]).abs() < 4 * standard_error).all()
    assert (standard_error < 0.05).all()  # otherwise the assertion above is vacuous


def test_the_covariance_is_that_of_the_dequantised_images(images: Tensor) -> None:
    gaussian = baselines.fit_gaussian(images)
    flat = images.flatten(1).double()
    expected = torch.cov(flat.T, correction=0) + torch.eye(18, dtype=torch.float64) / 12
    torch.testing.assert_close(gaussian.cholesky @ gaussian.cholesky.T, expected)
    torch.testing.assert_close(gaussian.mean, flat.mean(0) + 0.5)


def test_no_other_gaussian_fits_the_training_images_better(images: Tensor) -> None:
    best = baselines.fit_gaussian(images)
    nll = baselines.gaussian_nll(best, images).mean()
    for other in (
        baselines.Gaussian(best.mean + 0.1, best.cholesky),
        baselines.Gaussian(best.mean, best.cholesky * 1.03),
        baselines.Gaussian(best.mean, best.cholesky * 0.97),
    ):
        assert baselines.gaussian_nll(other, images).mean() > nll


def test_constant_pixels_and_fewer_images_than_dimensions_are_accepted() -> None:
    images = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(5)
    nll = baselines.gaussian_nll(baselines.fit_gaussian(images), images)
    constant = 0.5 * (1 + math.log(2 * math.pi / 12))  # NLL of the noise alone under the best Gaussian, in nats
    varying = 0.5 * (1 + math.log(2 * math.pi * (2 + 1 / 12)))  # 0..4 have variance 2
    assert nll.mean().item() == pytest.approx(15 * constant + varying)


def test_results_do_not_depend_on_the_chunk_size(images: Tensor) -> None:
    whole, chunked = baselines.fit_gaussian(images, 1000), baselines.fit_gaussian(images, 7)
    assert torch.equal(whole.mean, chunked.mean)
    assert torch.equal(whole.cholesky, chunked.cholesky)
    torch.testing.assert_close(
        baselines.gaussian_nll(whole, images, 1000), baselines.gaussian_nll(whole, images, 7), rtol=1e-12, atol=0
    )


def test_sums_are_exact_at_the_largest_values() -> None:
    images = torch.full((3000, 1, 2, 2), 255, dtype=torch.uint8)
    cholesky = baselines.fit_gaussian(images).cholesky
    assert torch.equal(cholesky, torch.eye(4, dtype=torch.float64) * math.sqrt(1 / 12))


def test_uniform_bits_per_dim_are_log2_of_the_levels() -> None:
    assert baselines.uniform_bits_per_dim(256) == 8.0
    assert baselines.uniform_bits_per_dim(17) == math.log2(17)


def test_gaussian_parameters_are_those_of_mean_and_covariance() -> None:
    assert baselines.num_gaussian_parameters(3) == 3 + 6


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 1, 4, 4), torch.zeros(2, 16, dtype=torch.uint8), torch.zeros(0, 1, 4, 4, dtype=torch.uint8)],
    ids=["floats", "flat", "none"],
)
def test_anything_but_a_batch_of_uint8_images_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 images"):
        baselines.fit_gaussian(wrong)


def test_reports_hold_means_and_standard_errors_in_bits_per_dim(images: Tensor) -> None:
    train, test = images[:150], images[150:]
    result = baselines.measure(train, test, levels=17)
    assert result.uniform.test == Score(bits_per_dim=math.log2(17), standard_error=0.0, num_images=50)
    assert result.uniform.train is None
    assert result.truth is None
    bits = baselines.gaussian_nll(baselines.fit_gaussian(train), test) / (18 * math.log(2))
    gaussian = result.gaussian
    assert gaussian.test.bits_per_dim == pytest.approx(bits.mean().item())
    assert gaussian.test.standard_error == pytest.approx(bits.std().item() / math.sqrt(50))
    assert gaussian.train is not None
    assert gaussian.train.num_images == 150
    assert gaussian.train.bits_per_dim < math.log2(17)


def test_a_known_distribution_is_measured_by_its_own_nll(images: Tensor) -> None:
    nats = np.linspace(10.0, 20.0, 50)
    result = baselines.measure(images[:150], images[150:], 17, lambda test: nats[: len(test)])
    assert result.truth is not None
    assert result.truth.test.bits_per_dim == pytest.approx(nats.mean() / (18 * math.log(2)))
    assert result.truth.test.num_images == 50
    assert result.truth.num_parameters == 0


def test_the_images_to_fit_are_evenly_spaced_over_the_split() -> None:
    assert baselines.spread(100, 4).tolist() == [0, 25, 50, 75]
    assert baselines.spread(100, 1000).tolist() == list(range(100))
