"""`model: {name: row_lstm, ...}`."""

from typing import Literal

from pixelcnn.config import Kernel
from pixelcnn.nn.pixelrnn.config import PixelRNNSizes


class Config(PixelRNNSizes):
    """PixelRNN of Row LSTM layers (arXiv:1601.06759, section 3.1)."""

    name: Literal["row_lstm"]
    kernel_size: Kernel  # of the 1 x k convolutions along a row
