"""PixelRNNs see what their layers promise: a triangle (Row LSTM), everything but one sub-pixel (Diagonal BiLSTM)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pixelcnn.likelihoods.categorical import Categorical
from pixelcnn.nn.conditioning import NoCondition
from pixelcnn.nn.lstm import DiagonalLSTM, RowLSTM, lstm_step, skew, unskew
from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours, num_parameters
from pixelcnn.nn.pixelrnn import PixelRNN, diagonal_bilstm, row_lstm
from tests.probes import (
    Field,
    Place,
    Shape,
    earlier,
    excess,
    image,
    masked_convolution,
    measured,
    mixed_colours,
    noise,
    union,
    whole_pixels,
)

SIZES = {"num_layers": 2, "hidden_channels": 12, "first_kernel_size": 5, "head_channels": 24}
SHAPES = [(1, 5, 9), (3, 4, 7)]


def small_row(data_channels: int, **changed: int) -> PixelRNN:
    """Two Row LSTM layers of kernel 3 after a 5x5 convolution, 4 levels, float64, in evaluation mode."""
    torch.manual_seed(0)
    sizes = SIZES | {"kernel_size": 3} | changed
    return row_lstm(data_channels=data_channels, levels=4, condition=NoCondition(), **sizes).double().eval()


def small_diagonal(data_channels: int, **changed: int) -> PixelRNN:
    """Two Diagonal BiLSTM layers after a 5x5 convolution, 4 levels, float64, in evaluation mode."""
    torch.manual_seed(0)
    sizes = SIZES | changed
    return diagonal_bilstm(data_channels=data_channels, levels=4, condition=NoCondition(), **sizes).double().eval()


both = pytest.mark.parametrize("small", [small_row, small_diagonal])
Small = Callable[..., PixelRNN]


def row_lstm_layer(field: Field, reach: int) -> Field:
    """States of the row above within reach, inputs of the own row to the left within reach, and what came in."""
    states: Field = {}
    for i, j, c in sorted(field):
        above = [(i - 1, j + aside) for aside in range(-reach, reach + 1)]
        left = [(i, j - back) for back in range(1, reach + 1)]
        own = union(field, [(i, j, colour) for colour in range(c + 1)])
        states[i, j, c] = whole_pixels(states, above) | whole_pixels(field, left) | own
    return mixed_colours(states)


def diagonal_bilstm_layer(field: Field, width: int) -> Field:
    """States to the left and above; states to the right and above, as of the row above."""
    left, right = diagonal_states(field, range(width), -1), diagonal_states(field, range(width - 1, -1, -1), 1)
    states = {(i, j, c): left[i, j, c] | union(right, [(i - 1, j, c)]) for i, j, c in field}
    return {p: known | field[p] for p, known in mixed_colours(states).items()}


def diagonal_states(field: Field, columns: range, back: int) -> Field:
    """What the states know that go along the columns, each from its neighbour `back` and the one above."""
    states: Field = {}
    for i, j, c in sorted(field, key=lambda p: (p[0], columns.index(p[1]), p[2])):
        own = union(field, [(i, j, colour) for colour in range(c + 1)])
        states[i, j, c] = own | whole_pixels(states, [(i, j + back), (i - 1, j)])
    return states


def complete_but_one(shape: Shape, reach_first: int) -> Field:
    """All that precedes a sub-pixel, without the last sub-pixel of the row above where the first kernel ends before."""
    channels, _, width = shape

    def known(i: int, j: int, before: frozenset[Place]) -> frozenset[Place]:
        return before if j + reach_first >= width - 1 else before - {(i - 1, width - 1, channels - 1)}

    return {(i, j, c): known(i, j, before) for (i, j, c), before in earlier(shape).items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("num_layers", "kernel_size"), [(1, 3), (2, 3), (1, 5)])
def test_a_row_lstm_depends_on_what_its_layers_pass_on_and_on_nothing_else(
    shape: Shape, num_layers: int, kernel_size: int
) -> None:
    field = masked_convolution(image(shape), 2, "A")
    for _ in range(num_layers):
        field = row_lstm_layer(field, kernel_size // 2)
    network = small_row(shape[0], num_layers=num_layers, kernel_size=kernel_size)
    assert measured(network, shape) == field


def test_a_row_lstm_layer_sees_a_triangle_that_grows_by_its_reach_with_every_row() -> None:
    shape, reach_first, reach = (1, 5, 19), 1, 1
    network = small_row(1, num_layers=1, first_kernel_size=3)
    for (i, j, _), known in measured(network, shape).items():
        right = {up: j + reach_first + reach * max(up - 1, 0) for up in range(1, i + 1)}
        left = {up: j - reach_first - reach * (up + 1) for up in range(i + 1)}
        triangle = {(i - up, k, 0) for up in right for k in range(max(left[up], 0), min(right[up], 18) + 1)}
        assert known == triangle | {(i, k, 0) for k in range(max(left[0], 0), j)}


@pytest.mark.parametrize("shape", [*SHAPES, (1, 6, 2), (3, 1, 4)])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_diagonal_bilstm_depends_on_all_that_precedes_but_the_last_sub_pixel_of_the_row_above(
    shape: Shape, num_layers: int
) -> None:
    field = masked_convolution(image(shape), 2, "A")
    for _ in range(num_layers):
        field = diagonal_bilstm_layer(field, shape[2])
    assert field == complete_but_one(shape, reach_first=2)
    assert measured(small_diagonal(shape[0], num_layers=num_layers), shape) == field


def test_a_first_kernel_as_wide_as_the_image_leaves_nothing_out() -> None:
    shape = (3, 4, 5)
    assert measured(small_diagonal(3, num_layers=1, first_kernel_size=9), shape) == earlier(shape)


@both
def test_mask_a_twice_would_be_noticed(small: Small) -> None:
    network, shape = small(3), (3, 3, 4)
    right = measured(network, shape)
    network.head[1].mask[..., 0, 0] = colour_mask(colours(24, 3), colours(24, 3), "A").double()  # type: ignore[operator]
    assert measured(network, shape) != right


def test_skewing_moves_row_i_by_i_columns_and_unskewing_moves_it_back() -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 6]])[None, None]
    assert skew(x)[0, 0].tolist() == [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]
    assert torch.equal(unskew(skew(x)), x)


def test_a_row_lstm_is_the_recursion_pixel_by_pixel() -> None:
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


def test_a_diagonal_lstm_is_the_recursion_pixel_by_pixel() -> None:
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


def test_an_lstm_step_is_that_of_torch() -> None:
    cell = nn.LSTMCell(3, 2).double()
    x, c = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    i, f, g, o = gates_of(cell, x).chunk(4, dim=1)
    for mine, theirs in zip(lstm_step(torch.cat([o, f, i, g], 1), c), cell(x, (torch.zeros_like(c), c)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def gates_of(cell: nn.LSTMCell, x: Tensor) -> Tensor:
    """Pre-activations of torch's cell in its own order, its state being zero."""
    return x @ cell.weight_ih.T + cell.bias_ih + cell.bias_hh


@both
def test_a_layer_adds_to_its_input(small: Small) -> None:
    network, x = small(3), noise((3, 5, 4), 2)
    for layer in network.layers:
        nn.init.zeros_(layer.up.weight)  # type: ignore[union-attr,arg-type]
        nn.init.zeros_(layer.up.bias)  # type: ignore[union-attr,arg-type]
    assert torch.equal(network(x), network.head(network.first(network.scale(x))))


@both
def test_an_image_does_not_see_the_others_of_its_batch(small: Small) -> None:
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


def test_parameters_of_a_row_lstm_are_those_counted_by_hand() -> None:
    # 24 -> 4 * 12: a pixel to the left and a centre tap of (1 + 2 + 3) / 9; 12 -> 4 * 12: three taps, no bias
    layer = (24 * 48 + 24 * 48 * 6 // 9 + 48) + 12 * 48 * 3
    assert num_parameters(small_row(3)) == counted(layer)


def test_parameters_of_a_diagonal_bilstm_are_those_counted_by_hand() -> None:
    direction = (24 * 48 * 6 // 9 + 48) + 12 * 48 * 2
    assert num_parameters(small_diagonal(3)) == counted(2 * direction)


@both
def test_probabilities_sum_to_one(small: Small) -> None:
    x = noise((3, 5, 4), 2)
    pmf = Categorical(4).log_pmf(small(3)(x), x).exp()
    torch.testing.assert_close(pmf.sum(1), torch.ones(2, 3, 5, 4).double(), rtol=0, atol=1e-12)


@both
def test_the_probabilities_of_all_images_sum_to_one(small: Small) -> None:
    every = torch.cartesian_prod(*[torch.arange(4)] * 4).view(-1, 1, 2, 2)
    with torch.no_grad():
        total = (-Categorical(4).nll(small(1)(every), every)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


@both
def test_a_few_images_are_learnt_by_heart(small: Small) -> None:
    network = small(1, hidden_channels=24, head_channels=24).float().train()
    assert 0 <= excess(network, noise((1, 6, 6), 8), steps=200) < 0.01


@both
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 7, 1), (1, 3, 11)])
def test_any_image_size_will_do(small: Small, shape: Shape) -> None:
    assert small(1)(noise(shape, 2)).shape == (2, 4, *shape)


@both
def test_a_condition_is_refused(small: Small) -> None:
    with pytest.raises(ValueError, match="unconditional"):
        small(1)(noise((1, 2, 2), 1), torch.tensor([0]))


@both
@pytest.mark.parametrize("key", ["hidden_channels", "head_channels"])
def test_sizes_that_do_not_divide_into_colours_are_refused(small: Small, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: 10 is not a multiple of the data's 3 channels"):
        small(3, **{key: 10})
