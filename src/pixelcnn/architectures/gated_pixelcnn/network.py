"""The Gated PixelCNN as a system of its own; its layers and its stepper lie in pixelcnn.nn.gated_pixelcnn."""

from pixelcnn.architectures.gated_pixelcnn.config import Config
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from pixelcnn.nn.interfaces import Spec


def build(config: Config, spec: Spec) -> GatedPixelCNN:
    """The network that the section describes."""
    return GatedPixelCNN(config, spec)
