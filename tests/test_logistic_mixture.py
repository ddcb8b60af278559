"""The discretised logistic mixture: a distribution over pixels for any parameters, and accurate in float32."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pixelcnn.likelihoods.logistic_mixture.likelihood import LogisticMixture, log1mexp, log_bin
from tests.probes import log_pmf

# Factors of normal parameters: far tails, and scales from exp(-7) to many times the range of levels
EXTREMES = (0.0, 1.0, 30.0, 1e3, 1e6)


def outputs(likelihood: LogisticMixture, num: int = 2, size: int = 2, factor: float = 1.0) -> Tensor:
    """Random parameters (num, K, 1, size, size), float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (num, likelihood.num_outputs, 1, size, size)
    return factor * torch.randn(shape, dtype=torch.float64, generator=generator)


def pixels(likelihood: LogisticMixture, channels: int, num: int = 2, size: int = 2) -> Tensor:
    """Random images (num, C, size, size), uint8, with both end levels among them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, likelihood.levels, (num, channels, size, size), generator=generator, dtype=torch.uint8)
    x[0, :, 0, 0], x[0, :, 0, 1] = 0, likelihood.levels - 1
    return x


def of_sub_pixels(likelihood: LogisticMixture, output: Tensor, x: Tensor) -> Tensor:
    """-log p by the log_pmf of each sub-pixel, (B, C, H, W) nats."""
    return -log_pmf(likelihood, output, x).gather(1, x.long().unsqueeze(1)).squeeze(1)


def picked(likelihood: LogisticMixture, output: Tensor, x: Tensor) -> Tensor:
    """-log p as the sum over the log_pmf of each sub-pixel, (B,) nats."""
    return of_sub_pixels(likelihood, output, x).sum((1, 2, 3))


def test_the_number_of_outputs_per_pixel_is_that_of_the_paper() -> None:
    assert LogisticMixture(256, 10, 3).num_outputs == 100
    assert LogisticMixture(256, 10, 1).num_outputs == 30


@pytest.mark.parametrize("factor", EXTREMES)
@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (1, 256), (3, 17), (3, 256)])
def test_probabilities_of_a_sub_pixel_sum_to_one(channels: int, levels: int, factor: float) -> None:
    likelihood = LogisticMixture(levels, 3, channels)
    log_p = log_pmf(likelihood, outputs(likelihood, factor=factor), pixels(likelihood, channels))
    assert log_p.shape == (2, levels, channels, 2, 2)
    assert log_p.dtype == torch.float64
    assert log_p.isfinite().all()  # no underflow to log 0 in the tails
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2, channels, 2, 2).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_probabilities_are_float64_for_outputs_of_any_dtype(dtype: torch.dtype) -> None:
    likelihood = LogisticMixture(256, 3, 3)
    output, x = outputs(likelihood).to(dtype), pixels(likelihood, 3)
    assert torch.equal(log_pmf(likelihood, output, x), log_pmf(likelihood, output.double(), x))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_nll_is_minus_the_sum_of_log_pmf_of_each_sub_pixel_given_the_earlier_ones(channels: int) -> None:
    likelihood = LogisticMixture(5, 3, channels)
    output, x = outputs(likelihood), pixels(likelihood, channels)
    torch.testing.assert_close(likelihood.nll(output, x), picked(likelihood, output, x), rtol=1e-12, atol=1e-12)
    nats = likelihood.nll_map(output, x)
    torch.testing.assert_close(nats, of_sub_pixels(likelihood, output, x), rtol=1e-11, atol=1e-11)


def test_the_pmf_of_one_sub_pixel_is_that_of_the_whole_image() -> None:
    likelihood = LogisticMixture(6, 4, 3)
    output, x = outputs(likelihood), pixels(likelihood, 3)
    whole = log_pmf(likelihood, output, x)
    for c, i, j in itertools.product(range(3), range(2), range(2)):
        one = likelihood.log_pmf_of(c, output[:, :, 0, i, j], x[:, :c, i, j])
        torch.testing.assert_close(one, whole[:, :, c, i, j], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", EXTREMES)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_fast_pmf_agrees_with_the_accurate_one_where_it_is_not_tiny(levels: int, factor: float) -> None:
    likelihood = LogisticMixture(levels, 10, 3)
    output, x = outputs(likelihood, factor=factor), pixels(likelihood, 3)
    whole = log_pmf(likelihood, output, x)
    for c, i, j in itertools.product(range(3), range(2), range(2)):
        one, accurate = likelihood.log_pmf_of(c, output[:, :, 0, i, j], x[:, :c, i, j]), whole[:, :, c, i, j]
        torch.testing.assert_close(one.exp(), accurate.exp(), rtol=1e-9, atol=1e-300)
        large = accurate > -600
        torch.testing.assert_close(one[large], accurate[large], rtol=1e-9, atol=1e-9)
        assert (one[~large] < -590).all()


def test_the_pmf_of_a_channel_does_not_depend_on_its_value_or_on_later_channels() -> None:
    likelihood = LogisticMixture(6, 4, 3)
    output, x = outputs(likelihood), pixels(likelihood, 3)
    before, after = (log_pmf(likelihood, output, torch.cat([x[:, :1], rest], 1)) for rest in (x[:, 1:], 5 - x[:, 1:]))
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert (before[:, :, 2] != after[:, :, 2]).any()


@pytest.mark.parametrize("factor", EXTREMES)
def test_probabilities_of_all_pixels_of_four_levels_sum_to_one(factor: float) -> None:
    likelihood = LogisticMixture(4, 3, 3)
    x = torch.cartesian_prod(*[torch.arange(4)] * 3)[:, :, None, None]  # all possible pixels
    output = outputs(likelihood, num=1, size=1, factor=factor).expand(64, -1, -1, -1, -1)
    assert likelihood.nll(output, x).neg().exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_pixels_probability_is_the_mixture_density_integrated_over_its_bins() -> None:
    """The plain formulas, one component at a time, with Simpson's rule for the integral over each bin."""
    likelihood, x = LogisticMixture(4, 2, 3), (2, 0, 3)
    parameters = outputs(likelihood, num=1, size=1)
    p = parameters.flatten().view(-1, 2)  # blocks of 2 components: logits; mean, log-scale; mean, log-scale, 1; ... 2
    scaled = [2 * level / 3 - 1 for level in x]
    total = 0.0
    for m in range(2):
        product = float(p[0].softmax(0)[m])
        means = [
            float(p[1, m]),
            float(p[3, m] + p[5, m].tanh() * scaled[0]),
            float(p[6, m] + p[8, m].tanh() * scaled[0] + p[9, m].tanh() * scaled[1]),
        ]
        for c, log_scale in enumerate((p[2, m], p[4, m], p[7, m])):
            product *= _integral(means[c], math.exp(log_scale), x[c])
        total += product
    nats = likelihood.nll(parameters, torch.tensor(x).view(1, 3, 1, 1))
    assert nats.item() == pytest.approx(-math.log(total), abs=1e-7)


def _integral(mean: float, s: float, level: int) -> float:
    """The integral of a logistic density over one of 4 bins; the outer bins end 60 scales past the mean or the edge."""
    low = min(mean, -1.0) - 60 * s if level == 0 else (2 * level - 1) / 3 - 1
    high = max(mean, 1.0) + 60 * s if level == 3 else (2 * level + 1) / 3 - 1
    t = torch.linspace(low, high, 20_001, dtype=torch.float64)
    density = torch.exp(-(t - mean).abs() / s) / (s * (1 + torch.exp(-(t - mean).abs() / s)) ** 2)
    weights = torch.full_like(t, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return float((density * weights).sum() * (t[1] - t[0]) / 3)


@pytest.mark.parametrize("factor", EXTREMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_nll_in_float32_is_that_of_float64(channels: int, factor: float) -> None:
    likelihood = LogisticMixture(256, 10, channels)
    output = outputs(likelihood, num=8, size=8, factor=factor).float()
    x = pixels(likelihood, channels, num=8, size=8)
    nats = likelihood.nll(output, x)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.double(), picked(likelihood, output.double(), x), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_nll_is_computed_in_float32_even_under_autocast(dtype: torch.dtype) -> None:
    likelihood = LogisticMixture(256, 10, 3)
    output, x = outputs(likelihood).to(dtype), pixels(likelihood, 3)
    with torch.autocast("cpu", torch.bfloat16):
        nats = likelihood.nll(output, x)
    assert nats.dtype == torch.float32
    assert torch.equal(nats, likelihood.nll(output.float(), x))


@pytest.mark.parametrize("factor", [*EXTREMES, 1e12])
def test_gradients_are_finite_even_for_extremely_improbable_levels(factor: float) -> None:
    likelihood = LogisticMixture(256, 10, 3)
    output = outputs(likelihood, num=4, size=4, factor=factor).float().requires_grad_()
    nats = likelihood.nll(output, pixels(likelihood, 3, num=4, size=4))
    nats.sum().backward()
    assert nats.isfinite().all()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert (output.grad != 0).any()


@pytest.mark.parametrize("level", [0, 100, 255])
@pytest.mark.parametrize("mean", [-1e6, 1e6])
def test_the_gradient_pulls_a_distant_mean_towards_its_pixel(mean: float, level: int) -> None:
    output = torch.tensor([0.0, mean, 0.0]).view(1, 3, 1, 1, 1).requires_grad_()
    LogisticMixture(256, 1, 1).nll(output, torch.full((1, 1, 1, 1), level)).sum().backward()
    assert output.grad is not None
    slope = float(output.grad[0, 1].sum())
    # The whole tail belongs to an outer level, so the NLL is 0 already
    beyond_its_edge = (level, mean) in ((0, -1e6), (255, 1e6))
    assert slope == 0 if beyond_its_edge else slope * mean > 0


@pytest.mark.parametrize("log_width", [-200.0, -90.0, -20.0, -13.8, -5.0, 0.0, 3.0, 7.0])
def test_log1mexp_is_accurate_from_tiny_to_large_arguments(log_width: float) -> None:
    argument = torch.tensor(log_width, requires_grad=True)
    value = log1mexp(argument)
    value.backward()
    w = math.exp(log_width)
    expected = math.log(-math.expm1(-w)) if w < 30 else 0.0
    slope = w / math.expm1(w) if w < 30 else 0.0
    assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert argument.grad is not None
    assert argument.grad.item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_a_narrow_logistic_puts_its_mass_on_the_level_of_its_mean() -> None:
    mean = torch.tensor(2 * 77 / 255 - 1, dtype=torch.float64)
    log_p = log_bin(torch.arange(256), mean, torch.tensor(-7.0, dtype=torch.float64), 256)
    assert int(log_p.argmax()) == 77
    assert float(log_p[77].exp()) == pytest.approx(math.tanh(math.exp(7) / 255 / 2), abs=1e-9)


def test_log_scales_are_clamped_at_the_papers_bound() -> None:
    likelihood = LogisticMixture(256, 1, 1)
    x = torch.full((1, 1, 1, 1), 128)
    at, below = (likelihood.nll(torch.tensor([0.0, 0.1, s]).view(1, 3, 1, 1, 1), x) for s in (-7.0, -50.0))
    assert torch.equal(at, below)


def thresholds(is_above: Callable[[Tensor], Tensor], num: int) -> Tensor:
    """By bisection, the least u in [0, 1) for which `is_above` (num,) is true, 1 where it never is."""
    low, high = torch.zeros(num, dtype=torch.float64), torch.ones(num, dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        above = is_above(middle)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def measures(drawn: Callable[[Tensor], Tensor], levels: int) -> tuple[Tensor, Tensor]:
    """Of a draw (N,) from uniforms (N,) that ascends with them: each level's share of [0, 1), and the middle of it."""
    firsts = torch.arange(1, levels)
    edges = thresholds(lambda u: drawn(u) >= firsts, levels - 1)
    edges = torch.cat([edges.new_zeros(1), edges, edges.new_ones(1)])
    return edges.diff(), (edges[1:] + edges[:-1]) / 2


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_draws_without_bins_have_the_probabilities_of_the_bins(channels: int, factor: float) -> None:
    levels, components = 7, 3
    likelihood = LogisticMixture(levels, components, channels)
    output = outputs(likelihood, 1, 1, factor)[:, :, 0, 0, 0]  # (1, K)

    def draw(u: list[Tensor], channel: int) -> Tensor:
        uniforms = torch.stack(torch.broadcast_tensors(*u), dim=1)  # (N, 1+C)
        return likelihood.draw(output.expand(len(uniforms), -1), uniforms)[:, channel]

    def ends(num: int) -> list[Tensor]:
        return [torch.full((num,), 0.5, dtype=torch.float64)] * (channels - 1)

    # The component alone decides the draw where its measure is found as the weights say
    weights = torch.softmax(output[0, :components], 0)
    middles = weights.cumsum(0) - weights / 2
    joint = torch.zeros((levels,) * channels, dtype=torch.float64)
    for weight, middle in zip(weights, middles, strict=True):
        shares, at = measures(lambda u, m=middle: draw([m, u, *ends(len(u))], 0), levels)  # type: ignore[misc]
        if channels == 1:
            joint += weight * shares
            continue
        for level in range(levels):
            if shares[level] > 0:
                given, _ = measures(lambda u, m=middle, v=at[level]: draw([m, v, u], 1), levels)  # type: ignore[misc]
                joint[level] += weight * shares[level] * given
    expected = likelihood.log_pmf_of(0, output, torch.empty(1, 0))[0].exp()
    if channels == 2:
        earlier = torch.arange(levels).unsqueeze(1)
        expected = expected[:, None] * likelihood.log_pmf_of(1, output.expand(levels, -1), earlier).exp()
    torch.testing.assert_close(joint, expected, rtol=0, atol=1e-10)


def test_the_component_of_a_draw_has_the_probability_of_its_weight() -> None:
    likelihood = LogisticMixture(256, 4, 1)
    output = outputs(likelihood, 1, 1)[:, :, 0, 0, 0]
    output[:, 4:8] = torch.tensor([-0.9, -0.3, 0.3, 0.9])  # means far apart, in units of the scales
    output[:, 8:] = -7.0
    half = torch.tensor(0.5, dtype=torch.float64)

    def component(u: Tensor) -> Tensor:
        uniforms = torch.stack(torch.broadcast_tensors(u, half), dim=1)
        return (likelihood.draw(output.expand(len(u), -1), uniforms)[:, 0] / 64).floor()

    found, _ = measures(component, 4)
    torch.testing.assert_close(found, torch.softmax(output[0, :4], 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draws_have_the_frequencies_of_the_distribution(temperature: float) -> None:
    likelihood, num = LogisticMixture(5, 3, 3), 200_000
    output = outputs(likelihood, 1, 1)[:, :, 0, 0, 0]
    noise = torch.rand(num, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    drawn = likelihood.draw(output.expand(num, -1), noise, temperature).long()
    counts = torch.bincount(drawn @ torch.tensor([25, 5, 1]), minlength=125).double()
    triples = torch.cartesian_prod(*[torch.arange(5)] * 3)
    log_p = torch.zeros(125, dtype=torch.float64)
    for c in range(3):
        one = likelihood.log_pmf_of(c, output.expand(125, -1), triples[:, :c]) / temperature
        log_p += one.log_softmax(1).gather(1, triples[:, c : c + 1])[:, 0]
    expected = num * log_p.exp()
    often = expected > 5
    chi_square = float(((counts - expected) ** 2 / expected)[often].sum())
    freedom = int(often.sum())
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_ends_of_the_unit_interval_are_drawn_as_the_end_levels() -> None:
    likelihood = LogisticMixture(256, 2, 3)
    output = outputs(likelihood, 2, 1)[:, :, 0, 0, 0]
    ends = torch.tensor([[0.0] * 4, [math.nextafter(1.0, 0.0)] * 4], dtype=torch.float64)
    assert likelihood.draw(output, ends)[:, 0].tolist() == [0, 255]
    assert likelihood.draw(output, ends).isfinite().all()
