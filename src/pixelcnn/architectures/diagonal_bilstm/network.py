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
from pixelcnn.nn.pixelrnn.network import PixelRNN


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


class DiagonalBiLSTM(nn.Module):
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


def build(config: Config, spec: Spec) -> PixelRNN:
    """The network that the section describes."""
    return PixelRNN(config, spec, DiagonalBiLSTM)
