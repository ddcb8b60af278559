"""The convolutional encoder of the auto-encoders: images to codes of so many numbers.

Shapes: B batch, C data channels, H rows, W columns, D numbers of a code.
"""

from torch import nn


class Encoder(nn.Sequential):
    """Images (B, C, H, W) of floats -> codes (B, D): two convolutions of stride 2, then one over all that is left.

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
