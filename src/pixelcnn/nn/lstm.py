"""The recurrent layers of PixelRNN (van den Oord et al. 2016, arXiv:1601.06759, sections 3.1 and 3.2).

Each computes what the input contributes to all states at once, then the states of a whole row or a whole diagonal at a
time. The input's contribution is masked by colour. The states' is not: the states that a pixel's state is computed from
lie wholly before the pixel. States before the first are zeros.

Shapes: B batch, I input features, F hidden features, H rows, W columns, D = H + W - 1 diagonals.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.nn.masked_conv import RowConv, colour_mask, colours


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 3: pre-activations (B, 4F, ...) of the gates o, f, i, g and the last cells (B, F, ...) -> (h, c)."""
    o, f, i, g = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gate_mask(inputs: int, hidden: int, data_channels: int) -> Tensor:
    """(4F, I) booleans, mask B: the four gates one after the other, each of colour-major features."""
    return colour_mask(colours(hidden, data_channels).repeat(4), colours(inputs, data_channels), "B")


class RowLSTM(nn.Module):
    """A row after the other, from the states of the row above, p = kernel_size // 2 to either side: (B, I, H, W) ->
    (B, F, H, W). A state knows the inputs of a triangle above its pixel, and of p pixels to its left.
    """

    def __init__(self, inputs: int, hidden: int, data_channels: int, kernel_size: int):
        super().__init__()
        self.reach, self.hidden = kernel_size // 2, hidden
        self.input_to_state = RowConv(gate_mask(inputs, hidden, data_channels), left=self.reach)
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, kernel_size, padding=self.reach, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.input_to_state(F.pad(x, (self.reach, 0))).unbind(2)
        h = cell = rows[0].new_zeros(len(x), self.hidden, x.shape[3])
        states = []
        for row in rows:
            h, cell = lstm_step(row + self.state_to_state(h), cell)
            states.append(h)
        return torch.stack(states, dim=2)


def skew(x: Tensor) -> Tensor:
    """(B, F, H, W) -> (B, F, H, D): row i shifted i columns to the right, so that a diagonal becomes a column."""
    b, features, height, _ = x.shape
    flat = F.pad(x, (0, height)).reshape(b, features, -1)
    return flat[..., :-height].view(b, features, height, -1)


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`: (B, F, H, D) -> (B, F, H, W)."""
    b, features, height, diagonals = x.shape
    flat = F.pad(x.reshape(b, features, -1), (0, height))
    return flat.view(b, features, height, diagonals + 1)[..., : diagonals + 1 - height]


class DiagonalLSTM(nn.Module):
    """A diagonal after the other, from the states to the left and above: (B, I, H, W) -> (B, F, H, W).

    A state knows the inputs of the rectangle from the top left corner to its pixel.
    """

    def __init__(self, inputs: int, hidden: int, data_channels: int):
        super().__init__()
        self.hidden = hidden
        self.input_to_state = RowConv(gate_mask(inputs, hidden, data_channels))
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # skewing puts zeros beside the image; without a bias they keep the states there zero
        diagonals = skew(self.input_to_state(x)).unbind(3)
        h = cell = diagonals[0].new_zeros(len(x), self.hidden, x.shape[2])
        states = []
        for diagonal in diagonals:
            h, cell = lstm_step(diagonal + self.state_to_state(F.pad(h, (1, 0))), cell)
            states.append(h)
        return unskew(torch.stack(states, dim=3))


class DiagonalBiLSTM(nn.Module):
    """A DiagonalLSTM from the left, and one from the right whose states are moved down by a row, since those of a
    pixel's own row know what comes after it: (B, I, H, W) -> (B, F, H, W).
    """

    def __init__(self, inputs: int, hidden: int, data_channels: int):
        super().__init__()
        self.from_left = DiagonalLSTM(inputs, hidden, data_channels)
        self.from_right = DiagonalLSTM(inputs, hidden, data_channels)

    def forward(self, x: Tensor) -> Tensor:
        right = self.from_right(x.flip(3)).flip(3)
        return self.from_left(x) + F.pad(right[:, :, :-1], (0, 0, 1, 0))
