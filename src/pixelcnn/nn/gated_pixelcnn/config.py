"""The sizes of a Gated PixelCNN, which two sections of params.yaml share. No torch here."""

from pixelcnn.config import Architecture, Channels, FirstKernel, Fraction, Kernel, Layers


class GatedSizes(Architecture):
    """Sizes that arXiv:1606.05328 does not give are the user's."""

    num_layers: Layers
    hidden_channels: Channels  # p of figure 2; a multiple of the data's channels
    kernel_size: Kernel
    first_kernel_size: FirstKernel
    head_channels: Channels
    dropout: Fraction
