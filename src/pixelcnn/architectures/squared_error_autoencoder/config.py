"""`model: {name: squared_error_autoencoder, ...}`."""

from typing import ClassVar, Literal

from pixelcnn.config import Architecture, Count


class Config(Architecture):
    """A convolutional auto-encoder under a squared error, with which the PixelCNN auto-encoder is compared."""

    only_likelihood: ClassVar[str | None] = "categorical"  # its outputs are the logits of a discretised Gaussian

    name: Literal["squared_error_autoencoder"]
    condition: Literal["code-map"]
    code: Count  # numbers of a code
    encoder_channels: Count
    hidden_channels: Count  # of the deconvolutional decoder

    @property
    def task(self) -> str:
        """The end of the registered model's name."""
        return f"{self.given.task}-{self.code}"
