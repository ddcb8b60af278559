"""`model: {name: diagonal_bilstm, ...}`."""

from typing import Literal

from pixelcnn.nn.pixelrnn.config import PixelRNNSizes


class Config(PixelRNNSizes):
    """PixelRNN of Diagonal BiLSTM layers (arXiv:1601.06759, section 3.2)."""

    name: Literal["diagonal_bilstm"]
