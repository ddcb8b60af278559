"""PixelRNN of Diagonal BiLSTM layers (van den Oord et al. 2016, arXiv:1601.06759, section 3.2).

Receptive field: all that precedes a sub-pixel, with a single layer, but for one sub-pixel: the last of the row above is
an input to no state of the current row, so it is seen within the first convolution's receptive field only.

Shapes: B batch, I input features, F hidden features, H rows, W columns, D = H + W - 1 diagonals.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.diagonal_bilstm.config import Config
from pixelcnn.nn.interfaces import Spec
from pixelcnn.nn.masked_conv import RowConv
from pixelcnn.nn.pixelrnn.lstm import gate_mask, lstm_step
from pixelcnn.nn.pixelrnn.network import PixelRNN, Recurrent


def skew(x: Tensor) -> Tensor:
    """(B, F, H, W) -> (B, F, H, D): row i shifted i columns to the right, so that a diagonal becomes a column."""
    b, features, height, _ = x.shape
    flat = F.pad(x, (0, height)).reshape(b, features, -1)  # rows of W + H
    return flat[..., :-height].view(b, features, height, -1)  # read as rows of W + H - 1


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`: (B, F, H, D) -> (B, F, H, W)."""
    b, features, height, diagonals = x.shape
    flat = F.pad(x.reshape(b, features, -1), (0, height))
    return flat.view(b, features, height, diagonals + 1)[..., : diagonals + 1 - height]


class DiagonalLSTM(nn.Module):
    """(B, I, H, W) -> (B, F, H, W), diagonal after diagonal, from the states to the left and above.

    The receptive field of a state is the rectangle from the top left corner to its pixel.
    """

    def __init__(self, inputs: int, hidden: int, data_channels: int):
        super().__init__()
        self.hidden = hidden
        self.input_to_state = RowConv(gate_mask(inputs, hidden, data_channels))
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Skewing puts zeros beside the image; without a bias they leave the states there zero
        diagonals = skew(self.input_to_state(x)).unbind(3)  # D times (B, 4F, H)
        h = cell = diagonals[0].new_zeros(len(x), self.hidden, x.shape[2])
        states = []
        for diagonal in diagonals:
            h, cell = lstm_step(diagonal + self.state_to_state(F.pad(h, (1, 0))), cell)
            states.append(h)
        return unskew(torch.stack(states, dim=3))


class DiagonalBiLSTM(Recurrent):
    """(B, I, H, W) -> (B, F, H, W): a DiagonalLSTM from the left, and one from the right.

    The states of the second are moved down by a row, since those of a pixel's own row depend on what follows it.
    """

    def __init__(self, inputs: int, hidden: int, data_channels: int):
        super().__init__()
        self.from_left = DiagonalLSTM(inputs, hidden, data_channels)
        self.from_right = DiagonalLSTM(inputs, hidden, data_channels)

    def forward(self, x: Tensor) -> Tensor:
        right = self.from_right(x.flip(3)).flip(3)
        return self.from_left(x) + F.pad(right[:, :, :-1], (0, 0, 1, 0))

    def state(self, batch: int, width: int) -> "DiagonalBiLSTMState":
        """Its state, to evaluate it pixel by pixel."""
        return DiagonalBiLSTMState(self, batch, width)


class DiagonalState:
    """The state of a DiagonalLSTM evaluated along rows: the row above, and the current row so far.

    Column j of the image is 1 + j of the current row, after a column of zeros beside the image.
    """

    def __init__(self, layer: DiagonalLSTM, batch: int, width: int):
        self.layer, self.column = layer, 0
        zeros = layer.state_to_state.weight.new_zeros
        self.above = zeros(batch, layer.hidden, width)
        self.h = zeros(batch, layer.hidden, 1 + width)
        self.cell = zeros(batch, layer.hidden, 1 + width)

    def reset(self) -> None:
        """Back to the zeros of the start; each cell is written before it is read."""
        self.h.zero_()

    def begin_row(self) -> None:
        """The finished row is now the one above."""
        self.above.copy_(self.h[..., 1:])

    def begin_pixel(self, j: int) -> None:
        """Go on to column j: compute its state-to-state component."""
        self.column = j
        neighbours = torch.cat([self.above[..., j : j + 1], self.h[..., j : j + 1]], dim=2)  # (B, F, 2): above, left
        self.from_states = self.layer.state_to_state(neighbours)  # (B, 4F, 1)

    def __call__(self, from_input: Tensor) -> Tensor:
        """The state (B, F, 1) at the current column, whose input-to-state component is (B, 4F, 1)."""
        left, here = slice(self.column, self.column + 1), slice(self.column + 1, self.column + 2)
        h, cell = lstm_step(from_input + self.from_states, self.cell[..., left])
        self.h[..., here], self.cell[..., here] = h, cell
        return h


class DiagonalBiLSTMState:
    """The state of a DiagonalBiLSTM evaluated pixel by pixel.

    The LSTM from the right is seen a row below: it goes through a row when the next one is begun, all its inputs known.
    """

    def __init__(self, layer: DiagonalBiLSTM, batch: int, width: int):
        self.layer, self.width, self.column = layer, width, 0
        self.left, self.right = (DiagonalState(each, batch, width) for each in (layer.from_left, layer.from_right))
        inputs, like = layer.from_right.input_to_state.in_channels, self.left.h
        self.inputs = like.new_zeros(batch, inputs, 1, width)  # of the current row
        self.inside = like.new_zeros(())  # whether the finished row is one of the image: 0 before the first row, then 1

    def reset(self) -> None:
        """Back to the zeros of the start."""
        self.left.reset()
        self.right.reset()
        self.inside.zero_()

    def begin_row(self) -> None:
        """Go through the finished row from the right. Above the image gates of zero leave the states zero."""
        self.left.begin_row()
        self.right.begin_row()
        gates = self.layer.from_right.input_to_state(self.inputs).squeeze(2).flip(2) * self.inside  # (B, 4F, W)
        for j, gate in enumerate(gates.split(1, dim=2)):
            self.right.begin_pixel(j)
            self.right(gate)
        self.inside.fill_(1)

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column = j
        self.left.begin_pixel(j)

    def __call__(self, pixel: Tensor) -> Tensor:
        """The sum of both states (B, F, 1, 1) at the current column, whose input is `pixel` (B, I, 1, 1)."""
        self.inputs[..., self.column] = pixel[..., 0]
        from_left = self.left(self.layer.from_left.input_to_state(pixel).squeeze(2))  # (B, F, 1)
        mirrored = self.width - self.column  # 1 + (W - 1 - j), since the LSTM from the right counts from there
        return (from_left + self.right.h[..., mirrored : mirrored + 1]).unsqueeze(2)


def build(config: Config, spec: Spec) -> PixelRNN:
    """The network that the section describes."""
    return PixelRNN(config, spec, DiagonalBiLSTM)
