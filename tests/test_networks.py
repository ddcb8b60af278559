"""The Gated PixelCNN: receptive field by gradients, conditions, independence of the images in a batch, and sizes."""

import pytest
import torch
from torch import Tensor

from pixelcnn.model import Data, Model, build
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours, num_parameters
from tests.conftest import Build, images, labels, network_of, sections
from tests.probes import excess_bits, noise

SYSTEMS = [(channels, condition) for channels in (1, 3) for condition in ("none", "label")]


def dependencies(model: Model) -> Tensor:
    """(C, H, W, C, H, W) booleans: does output sub-pixel (first three axes) depend on input sub-pixel (last three)?

    By gradients; the union over a few random images, as a ReLU may be inactive at one of them.
    """
    weights = torch.randn(model.data.levels, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def mixed(x: Tensor) -> Tensor:
        return (model.network(x, labels(model, 1))[0] * weights).sum(0)

    seen = [torch.autograd.functional.jacobian(mixed, x[None].double()).squeeze(3) != 0 for x in images(model, 4)]
    return torch.stack(seen).any(0)


def order(shape: tuple[int, int, int]) -> Tensor:
    """(C, H, W): the index of each sub-pixel in raster-scan order: rows, then columns, then channels."""
    channels, height, width = shape
    return torch.arange(height * width * channels).view(height, width, channels).permute(2, 0, 1)


def receptive_field(model: Model, reach: int) -> Tensor:
    """(C, H, W, C, H, W) booleans: earlier sub-pixels at most `reach` rows up and `reach` columns aside."""
    place = order(model.shape)
    earlier = place[None, None, None] < place[..., None, None, None]
    _, height, width = model.shape
    rows, columns = torch.arange(height), torch.arange(width)
    up = (rows[:, None] - rows[None, :]) <= reach
    aside = (columns[:, None] - columns[None, :]).abs() <= reach
    return earlier & up[None, :, None, None, :, None] & aside[None, None, :, None, None, :]


@pytest.mark.parametrize(("channels", "condition"), SYSTEMS)
def test_an_output_depends_on_exactly_the_earlier_sub_pixels_in_its_receptive_field(
    small_model: Build, channels: int, condition: str
) -> None:
    model = small_model(channels, condition)
    reach = 5 // 2 + 3 // 2  # the first layer and one more: smaller than the image, so that its border is tested too
    assert torch.equal(dependencies(model), receptive_field(model, reach))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_deep_enough_has_no_blind_spot(small_model: Build, channels: int) -> None:
    model = small_model(channels, num_layers=6)
    place = order(model.shape)
    assert torch.equal(dependencies(model), place[None, None, None] < place[..., None, None, None])


def test_applying_mask_a_twice_is_detected(small_model: Build) -> None:
    model = small_model(3)
    first = model.network.layers[0].out  # type: ignore[index,union-attr]
    first.mask[..., 0, 0] = colour_mask(colours(12, 3), colours(12, 3), "A").double()  # type: ignore[operator,union-attr]
    assert not torch.equal(dependencies(model), receptive_field(model, 3))


def test_a_label_changes_every_output(small_model: Build) -> None:
    model = small_model(3, "label")
    x = images(model, 1)
    one, other = (model.network(x, torch.tensor([label])) for label in (0, 2))
    assert ((one - other).abs() > 0).all()


@pytest.mark.parametrize("cond", [None, torch.tensor([3]), torch.tensor([0.5]), torch.tensor([[0]])])
def test_a_missing_or_invalid_label_is_rejected(small_model: Build, cond: Tensor | None) -> None:
    model = small_model(1, "label")
    with pytest.raises(ValueError, match="cond"):
        model.network(images(model, 1), cond)


def test_a_condition_given_to_an_unconditional_model_is_rejected(small_model: Build) -> None:
    model = small_model(1)
    with pytest.raises(ValueError, match="unconditional"):
        model.network(images(model, 1), torch.tensor([0]))


def test_outputs_of_an_image_do_not_depend_on_its_batch(small_model: Build) -> None:
    model = small_model(3)
    model.network.train()
    x = images(model, 4)
    torch.testing.assert_close(model.network(x)[:1], model.network(x[:1]), rtol=0, atol=1e-12)


def test_masked_weights_get_no_gradient(small_model: Build) -> None:
    model = small_model(3)
    model.nll(images(model, 2)).sum().backward()
    for module in model.network.modules():
        if isinstance(module, RowConv):
            assert module.weight.grad is not None
            assert (module.weight.grad[module.mask == 0] == 0).all()
            assert (module.weight.grad[module.mask == 1] != 0).any()


def test_the_number_of_parameters_is_that_counted_by_hand(small_model: Build) -> None:
    model = small_model(3)  # 2 layers, 12 hidden, 12 head, 4 levels, 3x3 after 5x5
    # first: vertical 2x5 and link; horizontal 1x3: two full taps, and a centre tap with 0 + 1 + 2 of 3 colours unmasked
    first = (3 * 24 * 10 + 24) + (24 * 24 + 24) + (3 * 24 * 2 + 8 * (0 + 1 + 2) + 24)
    # later: vertical 2x3, link, horizontal 1x2 with a centre tap of (1 + 2 + 3) / 9
    later = (12 * 24 * 6 + 24) + (24 * 24 + 24) + (12 * 24 * 1 + 12 * 24 * 6 // 9 + 24)
    out = 12 * 12 * 6 // 9 + 12
    head = (12 * 12 * 6 // 9 + 12) + (12 * 12 * 6 // 9 + 12)
    assert num_parameters(model.network) == first + out + later + out + head


def test_a_few_images_can_be_overfitted() -> None:
    sizes = {"num_layers": 4, "hidden_channels": 24, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 24}
    network = network_of({"name": "gated_pixelcnn", "dropout": 0.0} | sizes, (3, 4, 4))
    assert 0 <= excess_bits(network, noise((3, 4, 4), 8), steps=150) < 0.02


def test_images_of_any_size_are_accepted(small_model: Build) -> None:
    model = small_model(1, num_layers=1)
    x = torch.zeros(2, 1, 3, 11, dtype=torch.uint8)
    assert model.network(x).shape == (2, 4, 1, 3, 11)


def test_sizes_that_are_not_multiples_of_the_data_channels_are_rejected(small_model: Build) -> None:
    with pytest.raises(ValueError, match="hidden_channels: 10 is not a multiple of the data's 3 channels"):
        small_model(3, hidden_channels=10)


def test_a_class_conditional_model_of_unlabelled_data_is_rejected() -> None:
    section = {
        "name": "gated_pixelcnn", "condition": "label", "num_layers": 1, "hidden_channels": 2, "kernel_size": 1,
        "first_kernel_size": 3, "head_channels": 2, "dropout": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="needs labels, but plain has none"):
        build(*sections(section), Data("plain", (1, 2, 2), 2, (), {}))
