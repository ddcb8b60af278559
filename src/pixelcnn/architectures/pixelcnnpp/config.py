"""`model: {name: pixelcnnpp, ...}`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pixelcnn.config import Architecture, Channels, Condition, Fraction, Layers


class Config(Architecture):
    """PixelCNN++ (arXiv:1701.05517): whole pixels, three resolutions with short-cuts."""

    whole_pixels: ClassVar[bool] = True

    name: Literal["pixelcnnpp"]
    condition: Condition
    hidden_channels: Channels
    num_resnets: Layers  # per resolution and pass
    num_resolutions: Annotated[int, Field(ge=1, le=3)]
    dropout: Fraction
