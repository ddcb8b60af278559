"""PixelRNN of Row LSTM layers (van den Oord et al. 2016, arXiv:1601.06759, section 3.1).

Receptive field: a triangle above the pixel, which widens with depth.

Shapes: B batch, I input features, F hidden features, H rows, W columns, p = kernel_size // 2.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.row_lstm.config import Config
from pixelcnn.nn.interfaces import Spec
from pixelcnn.nn.masked_conv import RowConv
from pixelcnn.nn.pixelrnn.lstm import gate_mask, lstm_step
from pixelcnn.nn.pixelrnn.network import PixelRNN, Recurrent


class RowLSTM(Recurrent):
    """(B, I, H, W) -> (B, F, H, W), row after row, from the states of the row above, p to either side.

    The receptive field of a state is a triangle above its pixel, and p pixels to its left.
    """

    def __init__(self, inputs: int, hidden: int, data_channels: int, kernel_size: int):
        super().__init__()
        self.reach, self.hidden = kernel_size // 2, hidden
        self.input_to_state = RowConv(gate_mask(inputs, hidden, data_channels), left=self.reach)
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, kernel_size, padding=self.reach, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.input_to_state(F.pad(x, (self.reach, 0))).unbind(2)  # H times (B, 4F, W)
        h = cell = rows[0].new_zeros(len(x), self.hidden, x.shape[3])
        states = []
        for row in rows:
            h, cell = lstm_step(row + self.state_to_state(h), cell)
            states.append(h)
        return torch.stack(states, dim=2)

    def state(self, batch: int, width: int) -> "RowLSTMState":
        """Its state, to evaluate it pixel by pixel."""
        return RowLSTMState(self, batch, width)


class RowLSTMState:
    """The state of a RowLSTM evaluated pixel by pixel: the row above, and the current row so far.

    The state-to-state component depends on the row above alone, so a row of it is computed at once.
    """

    def __init__(self, layer: RowLSTM, batch: int, width: int):
        self.layer, self.column = layer, 0
        zeros, inputs = layer.state_to_state.weight.new_zeros, layer.input_to_state.in_channels
        self.left = zeros(batch, inputs, 1, layer.reach + width)  # inputs of the current row, after the padding
        self.h = zeros(batch, layer.hidden, width)  # of the row above, replaced by the current row's once it is read
        self.cell = zeros(batch, layer.hidden, width)
        self.cell_above = zeros(batch, layer.hidden, width)

    def reset(self) -> None:
        """Back to the zeros of the start; each input is written before it is read."""
        self.h.zero_()
        self.cell.zero_()

    def begin_row(self) -> None:
        """Compute the state-to-state component of a row, of the states above it."""
        self.from_above = self.layer.state_to_state(self.h)  # (B, 4F, W)
        self.cell_above.copy_(self.cell)

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column = j

    def __call__(self, pixel: Tensor) -> Tensor:
        """The state (B, F, 1, 1) at the current column, whose input is `pixel` (B, I, 1, 1)."""
        j, here = self.column, slice(self.column, self.column + 1)
        self.left[..., self.layer.reach + j] = pixel[..., 0]
        # The window (B, I, 1, p+1) ends at the current pixel
        gates = self.layer.input_to_state(self.left[..., j : j + self.layer.reach + 1]).squeeze(2)  # (B, 4F, 1)
        h, cell = lstm_step(gates + self.from_above[..., here], self.cell_above[..., here])
        self.h[..., here], self.cell[..., here] = h, cell
        return h.unsqueeze(2)


def build(config: Config, spec: Spec) -> PixelRNN:
    """The network that the section describes."""
    return PixelRNN(config, spec, partial(RowLSTM, kernel_size=config.kernel_size))
