"""Incremental evaluation of PixelCNN++ gives the outputs of its forward pass."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from pixelcnn.architectures.pixelcnnpp.network import PixelCNNPlusPlus
from pixelcnn.checkpoint import identity
from pixelcnn.config import Given
from pixelcnn.generation.completion import complete
from pixelcnn.generation.compression import compress, decompress
from pixelcnn.generation.sampling import sample, sample_full, walk
from pixelcnn.model import Model
from pixelcnn.nn.conditioning import LabelCondition, MapCondition
from pixelcnn.nn.interfaces import FullStepper, Stepper
from tests.conftest import full_pass_only
from tests.test_architectures import model_of
from tests.test_pixelcnnpp import GivenMap, images, network


def maps(num: int, height: int, width: int) -> Tensor:
    """Random condition maps (num, 2, height, width)."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(num, 2, height, width, dtype=torch.float64, generator=generator)


def strong(net: PixelCNNPlusPlus) -> PixelCNNPlusPlus:
    """The network with random gains and biases of about 1, so that every block adds as much as it passes on."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith(("gain", "bias")):
                p.copy_(torch.rand(p.shape, generator=generator, dtype=p.dtype) + 0.5)
    return net


def stepped(stepper: Stepper, x: Tensor) -> Tensor:
    """The outputs (B, K, 1, H, W) of given images, evaluated incrementally; the same for all channels of a pixel."""
    found: dict[tuple[int, int], Tensor] = {}

    def follow(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        assert torch.equal(found.setdefault((i, j), outputs.clone()), outputs)
        return x[:, c, i, j]

    for _ in walk(stepper, follow):
        pass
    return torch.stack(list(found.values()), dim=2).unflatten(2, x.shape[2:]).unsqueeze(2)


def assert_same(net: PixelCNNPlusPlus, x: Tensor, cond: Tensor | None = None, atol: float = 1e-10) -> None:
    """Assert that the stepper's outputs are those of a forward pass."""
    with torch.no_grad():
        full = net(x, cond)
    found = stepped(net.stepper(len(x), x.shape[2], x.shape[3], cond), x)
    torch.testing.assert_close(found, full, rtol=0, atol=atol)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_resnets", [1, 2])
@pytest.mark.parametrize(
    ("num_resolutions", "height", "width"),
    [(1, 1, 1), (1, 5, 1), (1, 1, 6), (1, 3, 7), (2, 2, 2), (2, 2, 6), (2, 6, 4), (3, 4, 4), (3, 8, 4), (3, 8, 12)],
)
def test_outputs_are_those_of_a_forward_pass_at_every_pixel(
    channels: int, num_resnets: int, num_resolutions: int, height: int, width: int
) -> None:
    net = strong(network(channels, num_resolutions=num_resolutions, num_resnets=num_resnets))
    assert_same(net, images(3, channels, height, width))


@pytest.mark.parametrize("seed", range(8))
def test_outputs_are_those_of_a_forward_pass_for_any_sizes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    high, wide, batch, features, resnets, resolutions, outputs = (
        int(torch.randint(1, most + 1, (), generator=generator)) for most in (3, 3, 3, 7, 3, 3, 9)
    )
    step = 2 ** (resolutions - 1)
    net = strong(
        network(
            2, GivenMap(), num_resolutions=resolutions, num_resnets=resnets, hidden_channels=features,
            num_outputs=outputs,
        )
    )  # fmt: skip
    x = images(batch, 2, high * step, wide * step, seed)
    assert_same(net, x, maps(batch, *x.shape[2:]) if seed % 2 else maps(batch, 1, 1))


@pytest.mark.parametrize("num_resolutions", [1, 2, 3])
def test_outputs_given_a_label_are_those_of_a_forward_pass(num_resolutions: int) -> None:
    net = strong(network(3, LabelCondition(3), num_resolutions=num_resolutions))
    assert_same(net, images(3, 3), torch.tensor([2, 0, 2]))


@pytest.mark.parametrize("num_resolutions", [1, 2, 3])
def test_outputs_given_a_condition_map_are_those_of_a_forward_pass(num_resolutions: int) -> None:
    net = strong(network(3, MapCondition(LabelCondition(3), 2, 8, 4), num_resolutions=num_resolutions))
    assert_same(net, images(3, 3, 8, 4), torch.tensor([2, 0, 1]))


def test_in_float32_outputs_differ_by_rounding_only() -> None:
    net = strong(network(3, num_resolutions=3)).float()
    assert_same(net, images(2, 3), atol=1e-4)
    assert stepped(net.stepper(2, 8, 8), images(2, 3)).dtype == torch.float32


def test_channels_last_weights_give_the_same_outputs() -> None:
    net = strong(network(3, num_resolutions=2, hidden_channels=6))
    assert_same(net.to(memory_format=torch.channels_last), images(2, 3))


def test_a_stepper_uses_the_weights_of_its_creation_and_does_not_change_the_network() -> None:
    net, x = strong(network(1)), images(1, 1)
    before, weights = net(x).detach(), {name: p.clone() for name, p in net.state_dict().items()}
    stepper = net.stepper(1, 8, 8)
    assert all(torch.equal(p, weights[name]) for name, p in net.state_dict().items())
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    torch.testing.assert_close(stepped(stepper, x), before, rtol=0, atol=1e-10)


def test_a_stepper_draws_no_random_numbers_and_records_no_gradients() -> None:
    net = network(3)
    state = torch.get_rng_state()
    assert not stepped(net.stepper(1, 8, 8), images(1, 3)).requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_sizes_that_cannot_be_halved_and_unwanted_conditions_are_rejected() -> None:
    with pytest.raises(ValueError, match="num_resolutions: 3 needs images with sides that are multiples of 4, not 6x8"):
        network(1, num_resolutions=3).stepper(1, 6, 8)
    with pytest.raises(ValueError, match="unconditional"):
        network(1).stepper(1, 8, 8, torch.tensor([0]))


@pytest.fixture(params=[("none", 1), ("none", 3), ("label", 3), ("label-map", 1), ("label-map", 3)])
def model(request: pytest.FixtureRequest) -> Model:
    """A model of 4x6 pixels, 8 levels and 2 classes, in float64; its likelihood is the mixture of logistics."""
    condition, channels = request.param
    built = model_of("pixelcnnpp", channels, condition)
    net = strong(cast(PixelCNNPlusPlus, built.network.double().eval()))
    with torch.no_grad():
        net.out.gain.mul_(0.2)  # means are on a scale from -1 to 1: keep most of them within the levels
    return built


def labels(model: Model, num: int) -> Tensor | None:
    return torch.arange(num) % 2 if model.given is Given.LABEL else None


def test_incremental_and_full_sampling_draw_the_same_images_at_any_batch_size(model: Model) -> None:
    cond = labels(model, 6)
    defined = sample_full(model, 6, torch.Generator().manual_seed(7), cond)
    for size in (None, 1, 4):
        assert torch.equal(sample(model, 6, torch.Generator().manual_seed(7), cond, batch_size=size), defined)
    assert len(defined.unique()) > 4


def test_the_same_seed_draws_the_same_images_in_float32_too(model: Model) -> None:
    model.network.float()
    one, other = (sample(model, 4, torch.Generator().manual_seed(1), labels(model, 4)) for _ in range(2))
    assert torch.equal(one, other)


def test_completions_are_those_of_full_forward_passes(model: Model) -> None:
    cond, known = labels(model, 4), torch.zeros(4, 6, dtype=torch.bool)
    known[:2], known[2, 1], known[3, 3:] = True, True, True
    given = torch.randint(0, 8, (4, *model.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    quick = complete(model, given, known, torch.Generator().manual_seed(2), cond)
    slow = replace(model, network=full_pass_only(model))
    assert torch.equal(quick, complete(slow, given, known, torch.Generator().manual_seed(2), cond))
    assert torch.equal(quick[..., known], given[..., known])
    assert not torch.equal(quick, given)


def test_archives_are_those_of_full_forward_passes_and_decompress_to_the_images(model: Model) -> None:
    label = None if model.given is Given.NONE else 1
    given = {str(n): x for n, x in enumerate(sample(model, 3, torch.Generator().manual_seed(0), labels(model, 3)))}
    archive = compress(model, given, 2, label)
    back = decompress(model, archive)
    assert all(torch.equal(back[name], x) for name, x in given.items())
    slow = replace(model, network=full_pass_only(model), weights_sha256=identity(model))
    assert compress(slow, given, 2, label) == archive


def test_the_incremental_and_the_full_stepper_give_the_same_outputs() -> None:
    net, x = strong(network(3)), images(2, 3)
    assert net.incremental
    with torch.no_grad():
        full = stepped(FullStepper(net, 2, 8, 8, None), x)
    torch.testing.assert_close(stepped(net.stepper(2, 8, 8), x), full, rtol=0, atol=1e-10)
