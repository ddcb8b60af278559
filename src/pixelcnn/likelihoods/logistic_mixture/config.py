"""`likelihood: {name: logistic_mixture, num_mixtures: M}`."""

from typing import ClassVar, Literal

from pixelcnn import config


class Config(config.Likelihood):
    """A mixture of discretised logistics (arXiv:1701.05517, sections 2.1 and 2.2), of a pixel or of each sub-pixel."""

    joint: ClassVar[bool] = True

    name: Literal["logistic_mixture"]
    num_mixtures: config.Layers  # components
