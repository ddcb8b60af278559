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
from pixelcnn.nn.pixelrnn.network import PixelRNN


class RowLSTM(nn.Module):
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


def build(config: Config, spec: Spec) -> PixelRNN:
    """The network that the section describes."""
    return PixelRNN(config, spec, partial(RowLSTM, kernel_size=config.kernel_size))
