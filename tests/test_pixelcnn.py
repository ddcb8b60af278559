"""The PixelCNN: receptive field and blind spot of its single stack, residual blocks, sizes, incremental evaluation."""

import pytest
import torch
from torch import Tensor, nn

from pixelcnn.architectures.pixelcnn.network import PixelCNN, ResidualBlock
from pixelcnn.generation.sampling import walk
from pixelcnn.likelihoods.categorical.likelihood import Categorical
from pixelcnn.nn.causal_conv import CausalConv
from pixelcnn.nn.head import Head, Scale
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours, num_parameters
from tests.conftest import network_of
from tests.probes import (
    ReceptiveFields,
    Shape,
    SubPixel,
    earlier,
    excess_bits,
    input_fields,
    log_pmf,
    masked_convolution,
    measured_fields,
    noise,
)

SIZES = {"num_layers": 2, "hidden_channels": 12, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 12}


def small(data_channels: int, **changed: int) -> PixelCNN:
    """A float64 network of 4 levels in evaluation mode: a 5x5 convolution and two blocks of 3x3."""
    network: PixelCNN = network_of({"name": "pixelcnn"} | SIZES | changed, (data_channels, 5, 9))
    return network.double().eval()


def expected_fields(shape: Shape, reaches: list[int]) -> ReceptiveFields:
    """The receptive fields of a stack of masked convolutions, the first with mask A."""
    field = input_fields(shape)
    for n, reach in enumerate(reaches):
        field = masked_convolution(field, reach, "B" if n else "A")
    return field


def blind_spot(shape: Shape, reach_first: int, num_layers: int, p: SubPixel) -> set[SubPixel]:
    """The blind spot within the rectangle spanned by the kernels, 3x3 after the first.

    Each layer extends the receptive field to the right only while it goes up: r rows above, it ends p1 + r - 1 columns
    to the right.
    """
    _, _, width = shape
    right = reach_first + num_layers
    return {
        (i, j, c)
        for i, j, c in earlier(shape)[p]
        if p[0] - i <= right and p[1] + reach_first + (p[0] - i) - 1 < j <= min(p[1] + right, width - 1)
    }


@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 5, 9)])
def test_the_receptive_field_is_exactly_that_of_its_masked_convolutions(shape: Shape) -> None:
    assert measured_fields(small(shape[0]), shape) == expected_fields(shape, [2, 1, 1])


@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 5, 9)])
def test_the_blind_spot_is_above_and_to_the_right_and_two_stacks_cover_it(shape: Shape) -> None:
    one_stack = measured_fields(small(shape[0], num_layers=3), shape)
    gated = network_of({"name": "gated_pixelcnn", "dropout": 0.0} | SIZES | {"num_layers": 4}, shape).double()
    two_stacks = measured_fields(gated, shape)
    for p in one_stack:
        assert two_stacks[p] - one_stack[p] == blind_spot(shape, 2, 3, p)
        assert one_stack[p] <= two_stacks[p]
    assert any(blind_spot(shape, 2, 3, p) for p in one_stack)


def test_more_layers_do_not_remove_the_blind_spot() -> None:
    shape = (1, 3, 9)
    seen = measured_fields(small(1, num_layers=8), shape)[2, 0, 0]
    assert {q for q in seen if q[0] == 1} == {(1, j, 0) for j in range(3)}


def test_applying_mask_a_twice_is_detected() -> None:
    network = small(3)
    network.head[1].mask[..., 0, 0] = colour_mask(colours(12, 3), colours(24, 3), "A").double()  # type: ignore[operator]
    assert measured_fields(network, (3, 3, 4)) != expected_fields((3, 3, 4), [2, 1, 1])


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_cropped_convolution_equals_the_masked_one(kernel_size: int) -> None:
    p = kernel_size // 2
    torch.manual_seed(0)
    conv = CausalConv(colour_mask(colours(6, 3), colours(3, 3), "A"), kernel_size).double()
    weight = torch.zeros(6, 3, kernel_size, kernel_size, dtype=torch.float64)
    weight[:, :, :p] = conv.above.weight
    weight[:, :, p, : p + 1] = (conv.row.weight * conv.row.mask)[:, :, 0]
    x = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    expected = nn.functional.conv2d(x, weight, conv.row.bias, padding=p)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-12)


def test_a_residual_block_adds_to_its_input_and_has_a_relu_before_each_convolution() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(hidden=2, data_channels=1), torch.randn(3, 4, 2, 2)
    seen: list[Tensor] = []

    def convolve(inner: Tensor) -> Tensor:
        seen.append(inner)
        return inner - 5

    with torch.no_grad():
        assert torch.equal(block(x, convolve), x + block.up(torch.zeros(3, 2, 2, 2)))
        block(x.relu(), convolve)
    assert torch.equal(*seen)
    assert (seen[0] >= 0).all()
    assert (seen[0] > 0).any()


def test_the_head_is_two_1x1_convolutions_each_after_a_relu() -> None:
    torch.manual_seed(0)
    head, features = Head(6, 6, 3, Categorical(4)), torch.randn(2, 6, 3, 5)
    outputs = head[3](head[1](features.relu()).relu())
    assert torch.equal(head(features), torch.stack(outputs.split(4, dim=1), dim=2))


def test_integers_are_scaled_to_floats_in_minus_one_to_one() -> None:
    x = torch.tensor([0, 1, 2, 3], dtype=torch.uint8)
    torch.testing.assert_close(Scale(4).double()(x), torch.tensor([-1, -1 / 3, 1 / 3, 1], dtype=torch.float64))
    assert Scale(256)(x).dtype == torch.float32


def test_outputs_of_an_image_do_not_depend_on_its_batch() -> None:
    network, x = small(3).train(), noise((3, 5, 4), 4)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=0, atol=1e-12)


def test_masked_weights_get_no_gradient() -> None:
    network, x = small(3), noise((3, 5, 4), 2)
    Categorical(4).nll(network(x), x).sum().backward()
    for module in network.modules():
        if isinstance(module, RowConv):
            assert module.weight.grad is not None
            assert (module.weight.grad[module.mask == 0] == 0).all()
            assert (module.weight.grad[module.mask == 1] != 0).any()


def test_the_number_of_parameters_is_that_counted_by_hand() -> None:
    # first, 3 -> 24: 2 rows of 5, 2 pixels to the left, a centre tap with 0 + 1 + 2 of 3 colours unmasked
    first = 3 * 24 * (10 + 2) + 8 * (0 + 1 + 2) + 24
    # a block: 24 -> 12, the convolution with a row of 3, a pixel to the left and a centre tap of (1 + 2 + 3) / 9, -> 24
    block = (24 * 12 * 6 // 9 + 12) + (12 * 12 * (3 + 1) + 12 * 12 * 6 // 9 + 12) + (12 * 24 * 6 // 9 + 24)
    head = (24 * 12 * 6 // 9 + 12) + (12 * 12 * 6 // 9 + 12)
    assert num_parameters(small(3)) == first + 2 * block + head


def test_probabilities_sum_to_one() -> None:
    x = noise((3, 5, 4), 2)
    pmf = log_pmf(Categorical(4), small(3)(x), x).exp()
    torch.testing.assert_close(pmf.sum(1), torch.ones(2, 3, 5, 4).double(), rtol=0, atol=1e-12)


def test_the_probabilities_of_all_images_sum_to_one() -> None:
    every = torch.cartesian_prod(*[torch.arange(4)] * 4).view(-1, 1, 2, 2)
    with torch.no_grad():
        total = (-Categorical(4).nll(small(1)(every), every)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def test_a_few_images_can_be_overfitted() -> None:
    sizes = SIZES | {"hidden_channels": 24, "head_channels": 24}
    network = network_of({"name": "pixelcnn"} | sizes, (1, 6, 6))
    assert 0 <= excess_bits(network, noise((1, 6, 6), 8), steps=200) < 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernels", [(3, 5), (5, 3)])
def test_incremental_logits_are_those_of_the_forward_pass(channels: int, kernels: tuple[int, int]) -> None:
    network = small(channels, kernel_size=kernels[0], first_kernel_size=kernels[1])
    x = noise((channels, 5, 7), 2)
    full = network(x)
    stepped = torch.zeros_like(full)

    def follow(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        stepped[:, :, c, i, j] = outputs
        return x[:, c, i, j]

    with torch.no_grad():
        list(walk(network.stepper(2, 5, 7), follow))
    torch.testing.assert_close(stepped, full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 7, 1), (1, 3, 11)])
def test_images_of_any_size_are_accepted(shape: Shape) -> None:
    assert small(1)(noise(shape, 2)).shape == (2, 4, *shape)


def test_a_condition_is_rejected_by_the_network_and_by_its_stepper() -> None:
    network = small(1)
    with pytest.raises(ValueError, match="unconditional"):
        network(noise((1, 2, 2), 1), torch.tensor([0]))
    with pytest.raises(ValueError, match="unconditional"):
        network.stepper(1, 2, 2, torch.tensor([0]))


@pytest.mark.parametrize("key", ["hidden_channels", "head_channels"])
def test_sizes_that_are_not_multiples_of_the_data_channels_are_rejected(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: 10 is not a multiple of the data's 3 channels"):
        small(3, **{key: 10})
