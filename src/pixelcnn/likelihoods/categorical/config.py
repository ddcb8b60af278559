"""`likelihood: {name: categorical}`."""

from typing import Literal

from pixelcnn import config


class Config(config.Likelihood):
    """A softmax over the levels of each sub-pixel (arXiv:1601.06759, section 2.2)."""

    name: Literal["categorical"]
