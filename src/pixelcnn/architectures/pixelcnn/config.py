"""`model: {name: pixelcnn, ...}`."""

from typing import Literal

from pixelcnn.config import Architecture, Channels, FirstKernel, Layers


class Config(Architecture):
    """PixelCNN (arXiv:1601.06759, section 3.5): residual blocks of masked convolutions, with its blind spot."""

    name: Literal["pixelcnn"]
    condition: Literal["none"]
    num_layers: Layers  # residual blocks after the first convolution
    hidden_channels: Channels  # h of figure 5
    kernel_size: FirstKernel
    first_kernel_size: FirstKernel
    head_channels: Channels
