"""The sizes of a Gated PixelCNN, which two sections of params.yaml share. No torch here."""

from pixelcnn.config import Architecture, Count, FirstKernel, Fraction, Kernel


class GatedSizes(Architecture):
    """Sizes that arXiv:1606.05328 does not give are the user's."""

    num_layers: Count
    hidden_channels: Count  # p of figure 2; a multiple of the data's channels
    kernel_size: Kernel
    first_kernel_size: FirstKernel
    head_channels: Count
    dropout: Fraction
