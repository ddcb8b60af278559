"""Row LSTM and Diagonal BiLSTM: receptive fields (a triangle; all but one sub-pixel), recurrences, sizes, stepping."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pixelcnn.architectures.diagonal_bilstm.network import DiagonalLSTM, skew, unskew
from pixelcnn.architectures.row_lstm.network import RowLSTM
from pixelcnn.generation.sampling import walk
from pixelcnn.likelihoods.categorical.likelihood import Categorical
from pixelcnn.nn.interfaces import Stepper
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours, num_parameters
from pixelcnn.nn.pixelrnn.lstm import lstm_step
from pixelcnn.nn.pixelrnn.network import PixelRNN
from tests.conftest import network_of
from tests.probes import (
    ReceptiveFields,
    Shape,
    SubPixel,
    earlier,
    excess_bits,
    input_fields,
    log_pmf,
    masked_1x1,
    masked_convolution,
    measured_fields,
    noise,
    union,
    union_of_pixels,
)

SIZES = {"num_layers": 2, "hidden_channels": 12, "first_kernel_size": 5, "head_channels": 24}
SHAPES = [(1, 5, 9), (3, 4, 7)]


def small_row(data_channels: int, **changed: int) -> PixelRNN:
    """Two Row LSTM layers of kernel 3 after a 5x5 convolution, 4 levels, float64, in evaluation mode."""
    section = {"name": "row_lstm", "kernel_size": 3} | SIZES | changed
    network: PixelRNN = network_of(section, (data_channels, 5, 9))
    return network.double().eval()


def small_diagonal(data_channels: int, **changed: int) -> PixelRNN:
    """Two Diagonal BiLSTM layers after a 5x5 convolution, 4 levels, float64, in evaluation mode."""
    network: PixelRNN = network_of({"name": "diagonal_bilstm"} | SIZES | changed, (data_channels, 5, 9))
    return network.double().eval()


both = pytest.mark.parametrize("small", [small_row, small_diagonal])
Small = Callable[..., PixelRNN]


def row_lstm_layer(field: ReceptiveFields, reach: int) -> ReceptiveFields:
    """After a Row LSTM layer: states of the row above and inputs to the left within the kernels, and the residual."""
    states: ReceptiveFields = {}
    for i, j, c in sorted(field):
        above = [(i - 1, j + aside) for aside in range(-reach, reach + 1)]
        left = [(i, j - back) for back in range(1, reach + 1)]
        own = union(field, [(i, j, colour) for colour in range(c + 1)])
        states[i, j, c] = union_of_pixels(states, above) | union_of_pixels(field, left) | own
    return masked_1x1(states)


def diagonal_bilstm_layer(field: ReceptiveFields, width: int) -> ReceptiveFields:
    """After a Diagonal BiLSTM layer: the states of one direction, those of the other a row above, and the residual."""
    left, right = diagonal_states(field, range(width), -1), diagonal_states(field, range(width - 1, -1, -1), 1)
    states = {(i, j, c): left[i, j, c] | union(right, [(i - 1, j, c)]) for i, j, c in field}
    return {p: known | field[p] for p, known in masked_1x1(states).items()}


def diagonal_states(field: ReceptiveFields, columns: range, back: int) -> ReceptiveFields:
    """The receptive fields of an LSTM's states, each computed from its neighbour `back` and the one above."""
    states: ReceptiveFields = {}
    for i, j, c in sorted(field, key=lambda p: (p[0], columns.index(p[1]), p[2])):
        own = union(field, [(i, j, colour) for colour in range(c + 1)])
        states[i, j, c] = own | union_of_pixels(states, [(i, j + back), (i - 1, j)])
    return states


def all_but_one(shape: Shape, reach_first: int) -> ReceptiveFields:
    """All earlier sub-pixels, but the last of the row above where the first kernel does not include it."""
    channels, _, width = shape

    def known(i: int, j: int, before: frozenset[SubPixel]) -> frozenset[SubPixel]:
        return before if j + reach_first >= width - 1 else before - {(i - 1, width - 1, channels - 1)}

    return {(i, j, c): known(i, j, before) for (i, j, c), before in earlier(shape).items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("num_layers", "kernel_size"), [(1, 3), (2, 3), (1, 5)])
def test_the_receptive_field_of_a_row_lstm_is_exactly_that_of_its_layers(
    shape: Shape, num_layers: int, kernel_size: int
) -> None:
    field = masked_convolution(input_fields(shape), 2, "A")
    for _ in range(num_layers):
        field = row_lstm_layer(field, kernel_size // 2)
    network = small_row(shape[0], num_layers=num_layers, kernel_size=kernel_size)
    assert measured_fields(network, shape) == field


def test_the_receptive_field_of_a_row_lstm_layer_is_a_triangle() -> None:
    shape, reach_first, reach = (1, 5, 19), 1, 1
    network = small_row(1, num_layers=1, first_kernel_size=3)
    for (i, j, _), known in measured_fields(network, shape).items():
        right = {up: j + reach_first + reach * max(up - 1, 0) for up in range(1, i + 1)}
        left = {up: j - reach_first - reach * (up + 1) for up in range(i + 1)}
        triangle = {(i - up, k, 0) for up in right for k in range(max(left[up], 0), min(right[up], 18) + 1)}
        assert known == triangle | {(i, k, 0) for k in range(max(left[0], 0), j)}


@pytest.mark.parametrize("shape", [*SHAPES, (1, 6, 2), (3, 1, 4)])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_diagonal_bilstm_depends_on_all_earlier_sub_pixels_but_the_last_of_the_row_above(
    shape: Shape, num_layers: int
) -> None:
    field = masked_convolution(input_fields(shape), 2, "A")
    for _ in range(num_layers):
        field = diagonal_bilstm_layer(field, shape[2])
    assert field == all_but_one(shape, reach_first=2)
    assert measured_fields(small_diagonal(shape[0], num_layers=num_layers), shape) == field


def test_with_a_first_kernel_as_wide_as_the_image_it_depends_on_all_earlier_sub_pixels() -> None:
    shape = (3, 4, 5)
    assert measured_fields(small_diagonal(3, num_layers=1, first_kernel_size=9), shape) == earlier(shape)


@both
def test_applying_mask_a_twice_is_detected(small: Small) -> None:
    network, shape = small(3), (3, 3, 4)
    right = measured_fields(network, shape)
    network.head[1].mask[..., 0, 0] = colour_mask(colours(24, 3), colours(24, 3), "A").double()  # type: ignore[operator]
    assert measured_fields(network, shape) != right


def test_skew_shifts_row_i_by_i_columns_and_unskew_undoes_it() -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 6]])[None, None]
    assert skew(x)[0, 0].tolist() == [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]
    assert torch.equal(unskew(skew(x)), x)


def test_a_row_lstm_equals_the_recurrence_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    layer = RowLSTM(inputs=3, hidden=2, data_channels=1, kernel_size=3).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    gates, taps = layer.input_to_state(nn.functional.pad(x, (1, 0))), layer.state_to_state.weight.unbind(2)
    h, cell = torch.zeros(2, 2, 5, 7).double(), torch.zeros(2, 2, 5, 7).double()  # a row above, a column on both sides
    for i in range(4):
        for j in range(5):
            states = sum(h[:, :, i, j + n] @ tap.T for n, tap in enumerate(taps))
            step = lstm_step(gates[:, :, i, j] + states, cell[:, :, i, j + 1].clone())
            h[:, :, i + 1, j + 1], cell[:, :, i + 1, j + 1] = step
    torch.testing.assert_close(layer(x), h[:, :, 1:, 1:-1], rtol=0, atol=1e-12)


def test_a_diagonal_lstm_equals_the_recurrence_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    layer = DiagonalLSTM(inputs=3, hidden=2, data_channels=1).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    gates, (from_above, from_left) = layer.input_to_state(x), layer.state_to_state.weight.unbind(2)
    h, cell = torch.zeros(2, 2, 5, 6).double(), torch.zeros(2, 2, 5, 6).double()  # a row above, a column to the left
    for i in range(4):
        for j in range(5):
            states = h[:, :, i, j + 1] @ from_above.T + h[:, :, i + 1, j] @ from_left.T
            step = lstm_step(gates[:, :, i, j] + states, cell[:, :, i + 1, j].clone())
            h[:, :, i + 1, j + 1], cell[:, :, i + 1, j + 1] = step
    torch.testing.assert_close(layer(x), h[:, :, 1:, 1:], rtol=0, atol=1e-12)


def test_an_lstm_step_equals_that_of_torch() -> None:
    cell = nn.LSTMCell(3, 2).double()
    x, c = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    i, f, g, o = gates_of(cell, x).chunk(4, dim=1)
    for mine, theirs in zip(lstm_step(torch.cat([o, f, i, g], 1), c), cell(x, (torch.zeros_like(c), c)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def gates_of(cell: nn.LSTMCell, x: Tensor) -> Tensor:
    """Pre-activations of torch's cell in torch's order, for a zero state."""
    return x @ cell.weight_ih.T + cell.bias_ih + cell.bias_hh


@both
def test_layers_have_residual_connections(small: Small) -> None:
    network, x = small(3), noise((3, 5, 4), 2)
    for layer in network.layers:
        nn.init.zeros_(layer.up.weight)  # type: ignore[union-attr,arg-type]
        nn.init.zeros_(layer.up.bias)  # type: ignore[union-attr,arg-type]
    assert torch.equal(network(x), network.head(network.first(network.scale(x))))


@both
def test_outputs_of_an_image_do_not_depend_on_its_batch(small: Small) -> None:
    network, x = small(3).train(), noise((3, 5, 4), 4)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=0, atol=1e-12)


@both
def test_masked_weights_get_no_gradient(small: Small) -> None:
    network, x = small(3), noise((3, 5, 4), 2)
    Categorical(4).nll(network(x), x).sum().backward()
    for module in network.modules():
        if isinstance(module, RowConv):
            assert module.weight.grad is not None
            assert (module.weight.grad[module.mask == 0] == 0).all()
            assert (module.weight.grad[module.mask == 1] != 0).any()


def counted(layer: int) -> int:
    """Parameters of the small networks with two of a layer and 3 channels: 12 hidden, 24 between, 24 head, 4 levels."""
    first = 3 * 24 * (10 + 2) + 8 * (0 + 1 + 2) + 24  # as in PixelCNN
    up = 12 * 24 * 6 // 9 + 24
    head = (24 * 24 * 6 // 9 + 24) + (24 * 12 * 6 // 9 + 12)
    return first + 2 * (layer + up) + head


def test_the_number_of_parameters_of_a_row_lstm_is_that_counted_by_hand() -> None:
    # 24 -> 4 * 12: a pixel to the left and a centre tap of (1 + 2 + 3) / 9; 12 -> 4 * 12: three taps, no bias
    layer = (24 * 48 + 24 * 48 * 6 // 9 + 48) + 12 * 48 * 3
    assert num_parameters(small_row(3)) == counted(layer)


def test_the_number_of_parameters_of_a_diagonal_bilstm_is_that_counted_by_hand() -> None:
    direction = (24 * 48 * 6 // 9 + 48) + 12 * 48 * 2
    assert num_parameters(small_diagonal(3)) == counted(2 * direction)


@both
def test_probabilities_sum_to_one(small: Small) -> None:
    x = noise((3, 5, 4), 2)
    pmf = log_pmf(Categorical(4), small(3)(x), x).exp()
    torch.testing.assert_close(pmf.sum(1), torch.ones(2, 3, 5, 4).double(), rtol=0, atol=1e-12)


@both
def test_the_probabilities_of_all_images_sum_to_one(small: Small) -> None:
    every = torch.cartesian_prod(*[torch.arange(4)] * 4).view(-1, 1, 2, 2)
    with torch.no_grad():
        total = (-Categorical(4).nll(small(1)(every), every)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


@both
def test_a_few_images_can_be_overfitted(small: Small) -> None:
    network = small(1, hidden_channels=24, head_channels=24).float().train()
    assert 0 <= excess_bits(network, noise((1, 6, 6), 8), steps=200) < 0.01


@torch.no_grad()
def stepped(stepper: Stepper, x: Tensor) -> Tensor:
    """The logits (B, L, C, H, W) of given images, evaluated incrementally."""
    found = torch.full((len(x), 4, *x.shape[1:]), torch.nan, dtype=torch.float64)

    def follow(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        found[:, :, c, i, j] = outputs
        return x[:, c, i, j]

    list(walk(stepper, follow))
    return found


@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 4, 7), (1, 1, 1), (3, 1, 5), (1, 6, 1), (3, 3, 2)])
@pytest.mark.parametrize(
    "network",
    [
        lambda c: small_row(c),
        lambda c: small_row(c, kernel_size=5, first_kernel_size=3, num_layers=3),
        lambda c: small_row(c, kernel_size=1, num_layers=1),
        lambda c: small_diagonal(c),
        lambda c: small_diagonal(c, first_kernel_size=3, num_layers=3),
    ],
)
def test_incremental_logits_are_those_of_the_forward_pass_again_after_a_reset(network: Small, shape: Shape) -> None:
    made = network(shape[0])
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(2)  # so that states are far from zero
    one, other = noise(shape, 6).split(3)
    stepper = made.stepper(3, *shape[1:])
    for x in (one, other):
        torch.testing.assert_close(stepped(stepper, x), made(x).detach(), rtol=0, atol=1e-11)
        stepper.reset()


@both
def test_a_stepper_uses_the_weights_of_its_creation_and_records_no_gradients(small: Small) -> None:
    network, x = small(3), noise((3, 4, 5), 2)
    before, weights = network(x).detach(), {name: p.clone() for name, p in network.state_dict().items()}
    stepper = network.stepper(2, 4, 5)
    assert all(torch.equal(p, weights[name]) for name, p in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(2)
    torch.testing.assert_close(stepped(stepper, x), before, rtol=0, atol=1e-11)
    stepper.begin_pixel(0)
    assert not stepper.outputs(0).requires_grad


@both
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 7, 1), (1, 3, 11)])
def test_images_of_any_size_are_accepted(small: Small, shape: Shape) -> None:
    assert small(1)(noise(shape, 2)).shape == (2, 4, *shape)


@both
def test_a_condition_is_rejected_by_the_network_and_by_its_stepper(small: Small) -> None:
    with pytest.raises(ValueError, match="unconditional"):
        small(1)(noise((1, 2, 2), 1), torch.tensor([0]))
    with pytest.raises(ValueError, match="unconditional"):
        small(1).stepper(1, 2, 2, torch.tensor([0]))


@both
@pytest.mark.parametrize("key", ["hidden_channels", "head_channels"])
def test_sizes_that_are_not_multiples_of_the_data_channels_are_rejected(small: Small, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: 10 is not a multiple of the data's 3 channels"):
        small(3, **{key: 10})
