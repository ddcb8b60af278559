"""The incremental sampler is the full one, only cheaper."""

import pytest
import torch

from pixelcnn.sampling import FullStepper, sample, sample_full, uniforms, walk
from tests.conftest import Build, images, labels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("condition", ["none", "label"])
@pytest.mark.parametrize("kernels", [(3, 5), (5, 3), (1, 7)])
def test_incremental_logits_are_the_full_ones(
    small_model: Build, channels: int, condition: str, kernels: tuple[int, int]
) -> None:
    model = small_model(channels, condition, kernel_size=kernels[0], first_kernel_size=kernels[1], num_layers=3)
    x, cond = images(model, 2), labels(model, 2)
    full = model.network(x, cond)
    stepped = torch.zeros_like(full)
    _, height, width = model.shape

    def follow(i: int, j: int, c: int, outputs: torch.Tensor) -> torch.Tensor:
        stepped[:, :, c, i, j] = outputs[:, :, c]
        return x[:, c, i, j]

    with torch.no_grad():
        list(walk(model.network.stepper(2, height, width, cond), follow))  # type: ignore[operator]
    torch.testing.assert_close(stepped, full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("condition", ["none", "label"])
def test_the_same_seed_draws_the_same_images_by_both_samplers(
    small_model: Build, channels: int, condition: str
) -> None:
    model = small_model(channels, condition)
    cond = labels(model, 4)
    full, quick = (f(model, 4, torch.Generator().manual_seed(7), cond) for f in (sample_full, sample))
    assert torch.equal(full, quick)
    assert len(full.unique()) == model.data.levels


def test_the_same_seed_draws_the_same_images_whatever_the_batch_size(small_model: Build) -> None:
    model = small_model(3)
    whole = sample(model, 5, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    parts = [sample(model, n, generator) for n in (2, 1, 2)]
    assert torch.equal(whole, torch.cat(parts))


def test_noise_is_the_same_however_it_is_cut_into_batches() -> None:
    whole = uniforms(4, (3, 2, 2), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(whole, torch.cat([uniforms(n, (3, 2, 2), generator) for n in (1, 3)]))


def test_samples_have_the_frequencies_that_the_model_states(small_model: Build) -> None:
    model = small_model(1, height=1, width=2)
    drawn = sample(model, 20_000, torch.Generator().manual_seed(0)).long()
    stepper = FullStepper(model.network, torch.zeros(1, *model.shape, dtype=torch.uint8), None)
    stepper.begin_row(0)
    expected = model.likelihood.log_pmf_of(0, stepper.outputs(0), torch.empty(1, 0))[0].exp()
    shares = torch.bincount(drawn[:, 0, 0, 0], minlength=model.data.levels) / len(drawn)
    torch.testing.assert_close(shares.double(), expected.detach(), rtol=0, atol=0.015)


def test_a_temperature_that_is_not_positive_is_refused(small_model: Build) -> None:
    with pytest.raises(ValueError, match=r"temperature: 0.0 is not greater than 0"):
        sample(small_model(1), 1, torch.Generator(), temperature=0.0)
