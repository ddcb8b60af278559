"""The sizes of a PixelRNN, which two sections of params.yaml share. No torch here."""

from typing import Literal

from pixelcnn.config import Architecture, Channels, FirstKernel, Layers


class PixelRNNSizes(Architecture):
    """PixelRNN (arXiv:1601.06759, section 3)."""

    condition: Literal["none"]
    num_layers: Layers
    hidden_channels: Channels  # h: the stream between layers has 2h
    first_kernel_size: FirstKernel
    head_channels: Channels
