"""Auto-encoders: a convolutional encoder to a code of m numbers, and two decoders (arXiv:1606.05328, section 2.4).

The paper's decoder is a conditional Gated PixelCNN, so the code need say only what the pixels before do not. The other
is the usual deconvolutional one under a squared error, for comparison.

Both return logits of p(x | code(x)). That is not a likelihood of x alone: the code is part of the message.

Shapes: B batch, C data channels, H rows, W columns, L levels, m code.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pixelcnn.nn.conditioning import MapCondition
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from pixelcnn.nn.gated_pixelcnn.stepper import Stepper
from pixelcnn.nn.head import Scale


class Encoder(nn.Sequential):
    """Images (B, C, H, W) of floats -> codes (B, m): two convolutions that halve, then one over all that is left.

    No batch normalisation: an image's code does not depend on its batch.
    """

    def __init__(self, shape: tuple[int, int, int], features: int, code: int):
        channels, height, width = shape
        left = (-(-height // 4), -(-width // 4))
        super().__init__(
            nn.Conv2d(channels, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, 2 * features, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * features, code, left),
            nn.Flatten(),
        )


class PixelCNNAutoencoder(nn.Module):
    """Images (B, C, H, W) uint8 -> logits (B, L, C, H, W) of each sub-pixel given the code and what precedes it.

    `cond` is a code (B, m); without one an image's own is computed.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        condition: MapCondition,
        code: int,
        encoder_channels: int,
        **decoder: Any,
    ):
        super().__init__()
        self.scale = Scale(levels)
        self.encoder = Encoder(shape, encoder_channels, code)
        self.decoder = GatedPixelCNN(shape[0], levels, condition, **decoder)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, m) of images (B, C, H, W)."""
        return self.encoder(self.scale(x))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.decoder(x, self.encode(x) if cond is None else cond)

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> Stepper:
        """The state of `batch` images not yet begun, given their codes."""
        return self.decoder.stepper(batch, height, width, cond)


class SquaredErrorAutoencoder(nn.Module):
    """Images (B, C, H, W) uint8 -> logits (B, L, C, H, W) of each sub-pixel given the code alone.

    A sub-pixel is normal over the levels that there are, around the decoder's output and with one deviation for all.
    That is an exponential family, so where it is most likely its expectation is the mean of all images of a code: the
    one image that a squared error asks for, which is what `decode` gives. Its bits/dim are measured like all others.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        condition: MapCondition,
        code: int,
        encoder_channels: int,
        hidden_channels: int,
    ):
        super().__init__()
        self.scale = Scale(levels)
        self.encoder = Encoder(shape, encoder_channels, code)
        self.condition = condition
        self.out = nn.Conv2d(hidden_channels, shape[0], 3, padding=1)
        self.log_deviation = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, m) of images (B, C, H, W)."""
        return self.encoder(self.scale(x))

    def decode(self, code: Tensor) -> Tensor:
        """The expected images (B, C, H, W) of codes (B, m): floats, -1 the lowest and 1 the highest level."""
        pmf = torch.softmax(self._logits(code), dim=1)
        return (pmf * self._levels(pmf)).sum(1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self._logits(self.encode(x) if cond is None else cond)

    def _logits(self, code: Tensor) -> Tensor:
        middle = self.out(torch.relu(self.condition(code))).unsqueeze(1)
        return -0.5 * ((self._levels(middle) - middle) * torch.exp(-self.log_deviation)) ** 2

    def _levels(self, like: Tensor) -> Tensor:
        return self.scale(torch.arange(self.scale.levels, device=like.device)).view(-1, 1, 1, 1)
