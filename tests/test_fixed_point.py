"""Fixed-point iteration draws the images of the definition, by fewer forward passes and never by more."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pixelcnn.config import Given
from pixelcnn.generation import fixed_point
from pixelcnn.generation.completion import complete
from pixelcnn.generation.sampling import Sampler, noise_of, sample, sample_full
from pixelcnn.model import Model
from pixelcnn.nn.interfaces import FullStepper
from tests.conftest import MIXTURE, full_pass_only, images
from tests.test_architectures import model_of

# architecture, condition, likelihood
SYSTEMS = {
    "sub-pixels": ("gated_pixelcnn", "none", None),
    "sub-pixels, label": ("gated_pixelcnn", "label", None),
    "sub-pixels, map": ("gated_pixelcnn", "embedding-map", None),
    "sub-pixels, mixture": ("row_lstm", "none", MIXTURE),
    "whole pixels": ("pixelcnnpp", "none", None),
    "whole pixels, label": ("pixelcnnpp", "label-map", None),
}


@pytest.fixture(params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> Model:
    """A model without a stepper of its own, 4x6 pixels and 8 levels, float64; its pixels depend on each other."""
    name, condition, likelihood = SYSTEMS[request.param]
    made = model_of(name, 3, condition, likelihood)
    with torch.no_grad():
        for weight in made.network.parameters():
            weight.mul_(1.5)
    made.network.double().eval()
    return replace(made, network=full_pass_only(made))


@pytest.fixture
def passes(model: Model) -> list[int]:
    """The batch sizes of the forward passes so far."""
    sizes: list[int] = []
    model.network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    return sizes


def conditions(model: Model, num: int) -> Tensor | None:
    if model.given is Given.EMBEDDING:
        return torch.randn(num, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return torch.arange(num) % 2 if model.given is Given.LABEL else None


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_images_are_those_of_the_definition_by_fewer_passes(
    model: Model, passes: list[int], temperature: float
) -> None:
    cond, rows = conditions(model, 5), list[int]()
    defined = sample_full(model, 5, generator(), cond, temperature)
    groups = 24 if model.network.whole_pixels else 72
    assert passes == [5] * groups
    passes.clear()
    assert torch.equal(sample(model, 5, generator(), cond, temperature, rows.append), defined)
    assert len(passes) < groups
    assert rows == [0, 1, 2, 3]
    assert torch.equal(sample(model, 5, generator(), cond, temperature, batch_size=2), defined)
    assert len(defined.unique()) == 8


def test_completions_are_those_of_the_definition(model: Model) -> None:
    cond, given = conditions(model, 3), images(model, 3, seed=5)
    known = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(6)) < 0.4
    defined = given.clone()
    stepper = FullStepper(model.network, 3, 4, 6, cond)
    Sampler(model, stepper, 0.8, clamped=True).fill(defined, known, noise_of(model, 3, generator()))
    drawn = complete(model, given, known, generator(), cond, temperature=0.8)
    assert torch.equal(drawn, defined)
    assert torch.equal(drawn.permute(0, 2, 3, 1)[known], given.permute(0, 2, 3, 1)[known])
    assert not torch.equal(drawn, given)


def test_any_guess_leads_to_the_same_images(model: Model) -> None:
    cond, noise = conditions(model, 3), noise_of(model, 3, generator())
    one, other = images(model, 3, seed=1), images(model, 3, seed=2)
    for guess in (one, other):
        fixed_point.fill(model, guess, None, noise, cond, 1.0)
    assert torch.equal(one, other)


def test_more_groups_than_are_drawn_at_once_make_no_difference(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cond = conditions(model, 3)
    drawn = sample(model, 3, generator(), cond)
    monkeypatch.setattr(fixed_point, "DRAWN_AT_ONCE", 7)
    assert torch.equal(sample(model, 3, generator(), cond), drawn)


def test_an_image_that_is_right_costs_one_pass(model: Model, passes: list[int]) -> None:
    cond = conditions(model, 3)
    drawn = sample(model, 3, generator(), cond)
    passes.clear()
    again = drawn.clone()
    fixed_point.fill(model, again, None, noise_of(model, 3, generator()), cond, 1.0)
    assert torch.equal(again, drawn)
    assert passes == [3]


def test_a_chain_in_which_each_sub_pixel_depends_on_the_last_takes_a_pass_for_each() -> None:
    """The worst case: a sub-pixel is the one before it plus one, whatever the noise."""
    made = model_of("gated_pixelcnn", 3)
    network = full_pass_only(made)

    def count(x: Tensor, cond: Tensor | None = None) -> Tensor:  # noqa: ARG001
        passes.append(len(x))
        line = x.permute(0, 2, 3, 1).flatten(1).long()
        after = torch.cat([torch.zeros_like(line[:, :1]), (line[:, :-1] + 1) % 8], dim=1)
        pmf = torch.nn.functional.one_hot(after, 8).view(len(x), 4, 6, 3, 8).permute(0, 4, 3, 1, 2)
        return pmf.double().log().clamp(min=-1e9)

    passes, rows = list[int](), list[int]()
    network.forward = count  # type: ignore[method-assign]
    drawn = sample(replace(made, network=network.double()), 2, generator(), on_row=rows.append)
    assert torch.equal(drawn.permute(0, 2, 3, 1).flatten(1), (torch.arange(72) % 8).expand(2, -1).to(torch.uint8))
    assert len(passes) == 72
    assert rows == [0, 1, 2, 3]
