"""The incremental sampler draws exactly what the full one draws; completion keeps the known pixels."""

import pytest
import torch

from pixelcnn.generation.completion import complete, is_prefix
from pixelcnn.generation.sampling import in_float64, sample, sample_full, uniforms, walk
from pixelcnn.model import Model
from pixelcnn.nn.interfaces import FullStepper, Stepper
from tests.conftest import Build, images, labels
from tests.test_architectures import model_of


def full_stepper(model: Model, num: int, cond: torch.Tensor | None = None) -> FullStepper:
    return FullStepper(model.network, num, *model.shape[1:], cond)


@torch.no_grad()
def stepped(stepper: Stepper, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The outputs (B, K, C, H, W) of a stepper that is fed the images x (B, C, H, W); `like` has their K and dtype."""
    found = like.new_zeros(len(x), like.shape[1], *x.shape[1:])

    def follow(i: int, j: int, c: int, outputs: torch.Tensor) -> torch.Tensor:
        found[:, :, c, i, j] = outputs
        return x[:, c, i, j]

    list(walk(stepper, follow))
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("condition", ["none", "label"])
@pytest.mark.parametrize("kernels", [(3, 5), (5, 3), (1, 7)])
def test_incremental_logits_equal_those_of_a_forward_pass(
    small_model: Build, channels: int, condition: str, kernels: tuple[int, int]
) -> None:
    model = small_model(channels, condition, kernel_size=kernels[0], first_kernel_size=kernels[1], num_layers=3)
    x, cond = images(model, 2), labels(model, 2)
    full = model.network(x, cond).detach()
    stepper = model.network.stepper(2, *model.shape[1:], cond)
    torch.testing.assert_close(stepped(stepper, x, full), full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("condition", ["none", "label"])
def test_the_same_seed_draws_the_same_images_with_both_samplers(
    small_model: Build, channels: int, condition: str
) -> None:
    model = small_model(channels, condition)
    cond = labels(model, 4)
    full, quick = (f(model, 4, torch.Generator().manual_seed(7), cond) for f in (sample_full, sample))
    assert torch.equal(full, quick)
    assert len(full.unique()) == model.data.levels


@pytest.mark.parametrize("condition", ["none", "label"])
def test_the_same_seed_draws_the_same_images_whatever_the_batch_size(small_model: Build, condition: str) -> None:
    model = small_model(3, condition)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(3)  # so that the label matters
    cond = labels(model, 5)
    whole = sample(model, 5, torch.Generator().manual_seed(3), cond)
    for size in (1, 2, 7):
        assert torch.equal(whole, sample(model, 5, torch.Generator().manual_seed(3), cond, batch_size=size))


def test_float64_is_a_copy_of_the_same_model(small_model: Build) -> None:
    model = small_model(1)
    model.network.float()
    exact = in_float64(model)
    x = images(model, 2)
    assert (exact.nll(x).dtype, model.nll(x).dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(exact.nll(x), model.nll(x), rtol=1e-5, atol=0, check_dtype=False)


def test_a_full_stepper_makes_a_forward_pass_per_sub_pixel() -> None:
    model = model_of("row_lstm", 3)
    model.network.double().eval()
    x = images(model, 2)
    full = model.network(x).detach()
    torch.testing.assert_close(stepped(full_stepper(model, 2), x, full), full, rtol=0, atol=1e-12)


def test_a_full_stepper_makes_one_forward_pass_per_pixel_of_a_network_of_whole_pixels() -> None:
    model = model_of("pixelcnnpp", 3)
    model.network.double().eval()
    x, passes = images(model, 2), []
    full = model.network(x).detach()  # (B, K, 1, H, W)
    model.network.register_forward_hook(lambda *_: passes.append(1))
    found = stepped(full_stepper(model, 2), x, full)
    assert len(passes) == model.dims // 3
    torch.testing.assert_close(found, full.expand_as(found), rtol=0, atol=1e-12)


def top(model_height: int, model_width: int, pixels: int) -> torch.Tensor:
    """A mask of the first pixels, row by row."""
    return (torch.arange(model_height * model_width) < pixels).view(model_height, model_width)


@pytest.mark.parametrize("pixels", [0, 13, 20, 40])
def test_a_sample_completes_itself_with_its_own_noise(small_model: Build, pixels: int) -> None:
    model = small_model(3, "label")
    drawn = sample(model, 4, torch.Generator().manual_seed(5), labels(model, 4))
    known = top(5, 8, pixels)
    begun = torch.where(known, drawn, 0)
    again = complete(model, begun, known, torch.Generator().manual_seed(5), labels(model, 4), batch_size=3)
    assert torch.equal(again, drawn)
    assert torch.equal(begun, torch.where(known, drawn, 0)), "the argument was modified"


def test_known_pixels_keep_their_values_and_change_nothing_before_them(small_model: Build) -> None:
    model = small_model(3)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(3)  # so that pixels depend on each other
    x, known = images(model, 2), torch.zeros(2, 5, 8, dtype=torch.bool)
    known[0, :, 2:5], known[1, 1:3] = True, True
    drawn = complete(model, x, known, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.permute(0, 2, 3, 1)[known], x.permute(0, 2, 3, 1)[known])
    other = x.clone()
    other[0, :, 3, 4] = (x[0, :, 3, 4] + 1) % 4
    changed = complete(model, other, known, torch.Generator().manual_seed(0)) != drawn
    before = top(5, 8, 3 * 8 + 4)
    assert not changed[0, :, before].any()
    assert changed[0, :, ~before].sum() > 3, "it does change what follows"


def test_a_mask_is_a_prefix_where_its_pixels_precede_all_others() -> None:
    assert all(is_prefix(top(3, 4, pixels)) for pixels in range(13))
    assert not is_prefix(top(3, 4, 5).flip(0))
    assert not is_prefix(top(4, 3, 4).T)


def test_noise_does_not_depend_on_the_batch_size() -> None:
    whole = uniforms(4, (3, 2, 2), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(whole, torch.cat([uniforms(n, (3, 2, 2), generator) for n in (1, 3)]))


def test_samples_have_the_frequencies_of_the_model_s_distribution(small_model: Build) -> None:
    model = small_model(1, height=1, width=2)
    drawn = sample(model, 20_000, torch.Generator().manual_seed(0)).long()
    stepper = full_stepper(model, 1)
    stepper.begin_row(0)
    stepper.begin_pixel(0)
    expected = model.likelihood.log_pmf_of(0, stepper.outputs(0), torch.empty(1, 0))[0].exp()
    shares = torch.bincount(drawn[:, 0, 0, 0], minlength=model.data.levels) / len(drawn)
    torch.testing.assert_close(shares.double(), expected.detach(), rtol=0, atol=0.015)


def test_a_temperature_that_is_not_positive_is_refused(small_model: Build) -> None:
    with pytest.raises(ValueError, match=r"temperature: 0.0 is not a number from 0.001 to 1000"):
        sample(small_model(1), 1, torch.Generator(), temperature=0.0)


def test_images_that_are_not_the_models_are_refused(small_model: Build) -> None:
    model = small_model(1)
    known = torch.ones(5, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"images: uint8 \(2, 3, 5, 8\) is not uint8 \(N, 1, 5, 8\)"):
        complete(model, torch.zeros(2, 3, 5, 8, dtype=torch.uint8), known, torch.Generator())
    with pytest.raises(ValueError, match=r"images: float32"):
        complete(model, torch.zeros(2, 1, 5, 8), known, torch.Generator())
    with pytest.raises(ValueError, match=r"num: 0 is not at least 1"):
        sample(model, 0, torch.Generator())
