"""`model: {name: pixelcnn_autoencoder, ...}`."""

from typing import Literal

from pixelcnn.config import Channels
from pixelcnn.nn.gated_pixelcnn.config import GatedSizes


class Config(GatedSizes):
    """A convolutional encoder to a code, decoded by a Gated PixelCNN (arXiv:1606.05328, section 2.4)."""

    name: Literal["pixelcnn_autoencoder"]
    condition: Literal["code-map"]
    code: Channels  # numbers of a code
    encoder_channels: Channels

    @property
    def task(self) -> str:
        """The end of the registered model's name."""
        return f"{self.given.task}-{self.code}"
