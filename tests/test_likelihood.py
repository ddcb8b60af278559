"""Likelihoods: probabilities sum to one, nll is minus the sum of log_pmf, draws follow the distribution."""

import math

import pytest
import torch

from pixelcnn.likelihoods.base import bits_per_dim, draw
from pixelcnn.likelihoods.categorical.likelihood import Categorical
from tests.conftest import LIKELIHOODS, Build, images
from tests.probes import log_pmf


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_of_a_sub_pixel_sum_to_one_and_nll_is_minus_the_sum_of_log_pmf(
    small_model: Build, channels: int, likelihood: str
) -> None:
    model = small_model(channels, likelihood=LIKELIHOODS[likelihood])
    x = images(model, 3)
    logits = model.network(x)
    pmf = log_pmf(model.likelihood, logits, x)
    torch.testing.assert_close(pmf.exp().sum(1), torch.ones(3, *model.shape, dtype=torch.float64))
    picked = pmf.gather(1, x.long().unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(model.likelihood.nll(logits, x), -picked.sum((1, 2, 3)))
    torch.testing.assert_close(model.nll_map(x), -picked)


def test_equal_logits_over_256_levels_cost_exactly_eight_bits_per_dim() -> None:
    x = torch.randint(0, 256, (2, 3, 4, 4))
    nats = Categorical(256).nll(torch.zeros(2, 256, 3, 4, 4, dtype=torch.float64), x)
    assert bits_per_dim(nats, 48).tolist() == pytest.approx([8.0, 8.0], abs=1e-12)


def test_nll_is_computed_in_float32_even_from_bfloat16_logits() -> None:
    nats = Categorical(4).nll(torch.zeros(1, 4, 1, 2, 2, dtype=torch.bfloat16), torch.zeros(1, 1, 2, 2))
    assert nats.dtype == torch.float32
    assert float(nats) == pytest.approx(4 * math.log(4))


def test_draws_have_the_frequencies_of_the_distribution() -> None:
    log_p = torch.log(torch.tensor([0.1, 0.0, 0.6, 0.3]))[None, :].expand(200_000, -1)
    noise = torch.rand(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(draw(log_p, noise), minlength=4) / 200_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.0, 0.6, 0.3]), rtol=0, atol=0.005)


def test_a_draw_has_positive_probability_even_at_the_ends_of_the_unit_interval() -> None:
    log_p = torch.log(torch.tensor([[0.0, 0.5, 0.5, 0.0]]).repeat(2, 1))
    ends = torch.tensor([0.0, math.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert draw(log_p, ends).tolist() == [1, 2]


def test_a_low_temperature_draws_the_most_probable_level() -> None:
    log_p = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(100, -1)
    noise = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (draw(log_p, noise, temperature=0.01) == 1).all()
