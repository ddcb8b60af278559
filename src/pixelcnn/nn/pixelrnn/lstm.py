"""One step of the LSTM that PixelRNN's recurrent layers share (van den Oord et al. 2016, arXiv:1601.06759, eq. 3).

A layer computes the input-to-state component of all positions at once, then the states of a whole row or a whole
diagonal at a time. The input-to-state component has mask B. The state-to-state component has none: the states that a
pixel's state is computed from lie wholly before the pixel. States before the first are zeros.

Shapes: B batch, I input features, F hidden features.
"""

from torch import Tensor

from pixelcnn.nn.masked_conv import colour_mask, colours


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations (B, 4F, ...) of the gates o, f, i, g and the last cells (B, F, ...) -> (h, c)."""
    o, f, i, g = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gate_mask(inputs: int, hidden: int, data_channels: int) -> Tensor:
    """(4F, I) booleans, mask B: the four gates one after the other, each of colour-major features."""
    return colour_mask(colours(hidden, data_channels).repeat(4), colours(inputs, data_channels), "B")
