"""A convolutional auto-encoder under a squared error, with which the PixelCNN auto-encoder is compared.

A sub-pixel is a Gaussian restricted to the L levels, around the decoder's output, with one standard deviation for all:
an exponential family, so where its likelihood is greatest its expectation is the mean of all images of a code. That is
the one image that a squared error asks for, and what `decode` returns. Its bits/dim are measured like all others.

Shapes: B batch, C data channels, H rows, W columns, L levels, D numbers of a code.
"""

import torch
from torch import Tensor, nn

from pixelcnn.architectures.squared_error_autoencoder.config import Config
from pixelcnn.nn.encoder import Encoder
from pixelcnn.nn.head import Scale
from pixelcnn.nn.interfaces import Network, Spec


class SquaredErrorAutoencoder(Network):
    """Images (B, C, H, W) uint8 -> logits (B, L, C, H, W) of each sub-pixel given the code alone.

    `cond` is a code (B, D); without one an image's own is computed.
    """

    def __init__(self, config: Config, spec: Spec):
        super().__init__()
        self.data_channels, self.likelihood = spec.shape[0], spec.likelihood
        self.scale = Scale(spec.levels)
        self.encoder = Encoder(spec.shape, config.encoder_channels, config.code)
        self.condition = spec.condition
        self.out = nn.Conv2d(config.hidden_channels, spec.shape[0], 3, padding=1)
        self.log_deviation = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, D) of images (B, C, H, W)."""
        return self.encoder(self.scale(x))

    def decode(self, code: Tensor) -> Tensor:
        """The expected images (B, C, H, W) of codes (B, D): floats, -1 the lowest and 1 the highest level."""
        pmf = torch.softmax(self._logits(code), dim=1)
        return (pmf * self._levels(pmf)).sum(1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self._logits(self.encode(x) if cond is None else cond)

    def _logits(self, code: Tensor) -> Tensor:
        middle = self.out(torch.relu(self.condition(code))).unsqueeze(1)  # (B, 1, C, H, W)
        return -0.5 * ((self._levels(middle) - middle) * torch.exp(-self.log_deviation)) ** 2

    def _levels(self, like: Tensor) -> Tensor:
        """The levels as floats, (L, 1, 1, 1)."""
        return self.scale(torch.arange(self.scale.levels, device=like.device)).view(-1, 1, 1, 1)


def build(config: Config, spec: Spec) -> SquaredErrorAutoencoder:
    """The network that the section describes."""
    return SquaredErrorAutoencoder(config, spec)
