"""Incremental evaluation of the Gated PixelCNN on packed weights gives the outputs of its forward pass."""

import random

import pytest
import torch
from torch import Tensor

from pixelcnn.generation.sampling import sample, sample_full, walk
from pixelcnn.nn.conditioning import Condition, LabelCondition, NoCondition
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from tests.conftest import Build, labels, network_of


class PositionCondition(Condition):
    """A condition map of two features, different at every position and for every image."""

    channels = 2

    def __init__(self, height: int, width: int):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("map", torch.randn(1, 2, height, width, generator=generator))

    def forward(self, cond: Tensor | None) -> Tensor:
        assert cond is not None
        return self.map * (1 + cond[:, None, None, None])


CONDITIONS = {
    "none": lambda *_: NoCondition(),
    "label": lambda *_: LabelCondition(3),
    "map": PositionCondition,
    "map of columns": lambda _, width: PositionCondition(1, width),
    "map of rows": lambda height, _: PositionCondition(height, 1),
}


def random_network(draw: random.Random, channels: int, condition: str, size: tuple[int, int]) -> GatedPixelCNN:
    """Random sizes; weights twice as large as at initialisation, so that gates saturate and errors are not hidden."""
    section = {
        "name": "gated_pixelcnn", "num_layers": draw.randint(1, 4), "hidden_channels": channels * draw.randint(1, 5),
        "kernel_size": draw.choice([1, 3, 5]), "first_kernel_size": draw.choice([3, 5, 7]),
        "head_channels": channels * draw.randint(1, 4), "dropout": 0.3,
    }  # fmt: skip
    network: GatedPixelCNN = network_of(section, (channels, *size), 5, CONDITIONS[condition](*size))
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)
    return network.double().eval()


def stepped(network: GatedPixelCNN, x: Tensor, cond: Tensor | None) -> Tensor:
    """The logits (B, L, C, H, W) of given images, evaluated incrementally."""
    batch, channels, height, width = x.shape
    seen: list[Tensor] = []

    def follow(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        seen.append(outputs.clone())
        return x[:, c, i, j]

    for _ in walk(network.stepper(batch, height, width, cond), follow):
        pass
    return torch.stack(seen, dim=2).view(batch, -1, height, width, channels).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("seed", range(6))
def test_incremental_logits_are_those_of_the_forward_pass(seed: int, condition: str, channels: int) -> None:
    torch.manual_seed(seed)
    draw = random.Random(seed)
    size = draw.randint(1, 6), draw.randint(1, 9)
    network = random_network(draw, channels, condition, size)
    x = torch.randint(0, 5, (draw.randint(1, 3), channels, *size), dtype=torch.uint8)
    cond = None if condition == "none" else torch.arange(len(x))
    with torch.no_grad():
        full = network(x, cond)
    torch.testing.assert_close(stepped(network, x, cond), full, rtol=0, atol=1e-10)


def test_in_float32_logits_differ_by_rounding_only(small_model: Build) -> None:
    network = small_model(3, num_layers=6, hidden_channels=30).network.float()
    x = torch.randint(0, 4, (2, 3, 5, 8), dtype=torch.uint8)
    with torch.no_grad():
        full = network(x)
    torch.testing.assert_close(stepped(network, x, None), full, rtol=0, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_logits_are_bitwise_reproducible(small_model: Build, batch: int) -> None:
    network = small_model(3, num_layers=4, hidden_channels=24).network.float()
    x = torch.randint(0, 4, (batch, 3, 5, 8), dtype=torch.uint8)
    one, other = (stepped(network, x, None) for _ in range(2))  # type: ignore[arg-type]
    assert torch.equal(one, other)


def test_a_stepper_uses_the_weights_of_its_creation(small_model: Build) -> None:
    network = small_model(3).network
    x = torch.randint(0, 4, (1, 3, 5, 8), dtype=torch.uint8)
    before = stepped(network, x, None)  # type: ignore[arg-type]
    stepper = network.stepper(1, 5, 8)  # type: ignore[operator]
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    stepper.begin_row(0)
    stepper.begin_pixel(0)
    assert torch.equal(stepper.outputs(0), before[:, :, 0, 0, 0])


def test_evaluating_a_colour_twice_gives_the_same_outputs(small_model: Build) -> None:
    stepper = small_model(3).network.stepper(2, 5, 8)  # type: ignore[operator]
    stepper.begin_row(0)
    stepper.begin_pixel(0)
    for c in range(3):
        one, other = (stepper.outputs(c).clone() for _ in range(2))
        assert torch.equal(one, other)
        stepper.feed(c, torch.tensor([1, 3]))


def test_a_stepper_does_not_change_the_network(small_model: Build) -> None:
    network = small_model(3, "label").network
    before = {name: (weight.clone(), weight.stride()) for name, weight in network.state_dict().items()}
    network.stepper(2, 5, 8, torch.tensor([0, 1]))  # type: ignore[operator]
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name][0])
        assert weight.stride() == before[name][1]
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("condition", ["none", "label"])
@pytest.mark.parametrize("kernels", [(3, 7), (5, 3)])
def test_incremental_and_full_sampling_of_deeper_networks_draw_the_same_images(
    small_model: Build, condition: str, kernels: tuple[int, int]
) -> None:
    model = small_model(3, condition, num_layers=5, kernel_size=kernels[0], first_kernel_size=kernels[1])
    cond = labels(model, 3)
    full, quick = (f(model, 3, torch.Generator().manual_seed(7), cond) for f in (sample_full, sample))
    assert torch.equal(full, quick)
    assert len(full.unique()) == model.data.levels


@pytest.mark.slow
def test_incremental_and_full_sampling_at_32x32_draw_the_same_images(small_model: Build) -> None:
    model = small_model(3, height=32, width=32, num_layers=5, hidden_channels=24, first_kernel_size=7)
    full, quick = (f(model, 2, torch.Generator().manual_seed(7)) for f in (sample_full, sample))
    assert torch.equal(full, quick)
