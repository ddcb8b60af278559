"""The PixelCNN auto-encoder (van den Oord et al. 2016, arXiv:1606.05328, section 2.4).

A convolutional encoder makes a code of D numbers, a conditional Gated PixelCNN decodes it, so that the code need say
only what the preceding pixels do not. The NLL is that of p(x | code(x)): no likelihood of x alone, since the code is
part of the message.

Shapes: B batch, C data channels, H rows, W columns, K outputs per sub-pixel, D numbers of a code.
"""

from torch import Tensor

from pixelcnn.architectures.pixelcnn_autoencoder.config import Config
from pixelcnn.nn.conditioning import Condition
from pixelcnn.nn.encoder import Encoder
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from pixelcnn.nn.gated_pixelcnn.stepper import GatedStepper
from pixelcnn.nn.head import Scale
from pixelcnn.nn.interfaces import Network, Spec


class PixelCNNAutoencoder(Network):
    """Images (B, C, H, W) uint8 -> outputs (B, K, C, H, W) of each sub-pixel given the code and what precedes it.

    `cond` is a code (B, D); without one an image's own is computed.
    """

    incremental = True

    def __init__(self, config: Config, spec: Spec):
        super().__init__()
        self.data_channels, self.likelihood = spec.shape[0], spec.likelihood
        self.scale = Scale(spec.levels)
        self.encoder = Encoder(spec.shape, config.encoder_channels, config.code)
        self.decoder = GatedPixelCNN(config, spec)

    @property
    def condition(self) -> Condition:  # type: ignore[override]
        """The decoder's, which takes codes."""
        return self.decoder.condition

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, D) of images (B, C, H, W)."""
        return self.encoder(self.scale(x))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.decoder(x, self.encode(x) if cond is None else cond)

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> GatedStepper:
        """The state of `batch` images not yet begun, given their codes."""
        return self.decoder.stepper(batch, height, width, cond)


def build(config: Config, spec: Spec) -> PixelCNNAutoencoder:
    """The network that the section describes."""
    return PixelCNNAutoencoder(config, spec)
