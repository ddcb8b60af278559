"""`model: {name: squared_error_autoencoder, ...}`."""

from typing import ClassVar, Literal

from pixelcnn.config import Architecture, Channels


class Config(Architecture):
    """A convolutional auto-encoder under a squared error, with which the PixelCNN auto-encoder is compared."""

    only_likelihood: ClassVar[str | None] = "categorical"  # its outputs are the logits of a discretised Gaussian

    name: Literal["squared_error_autoencoder"]
    condition: Literal["code-map"]
    code: Channels  # numbers of a code
    encoder_channels: Channels
    hidden_channels: Channels  # of the deconvolutional decoder

    @property
    def task(self) -> str:
        """The end of the registered model's name."""
        return f"-squared-error-{self.code}"
