"""`model: {name: gated_pixelcnn, ...}`."""

from typing import Literal

from pixelcnn.config import Condition
from pixelcnn.nn.gated_pixelcnn.config import GatedSizes


class Config(GatedSizes):
    """Gated PixelCNN (arXiv:1606.05328, section 2)."""

    name: Literal["gated_pixelcnn"]
    condition: Condition
