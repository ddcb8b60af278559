"""Likelihoods of integer images: one folder each, named as `likelihood.name` in params.yaml.

    NAME/config.py       Config: the `likelihood` section of a run (no torch)
    NAME/likelihood.py   build(config, levels, data_channels, whole_pixels) -> a Likelihood (pixelcnn.likelihoods.base)

A new folder is found by its name; nothing else lists it.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixelcnn import config

if TYPE_CHECKING:
    from pixelcnn.likelihoods.base import Likelihood

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def section(name: str) -> type[config.Likelihood]:
    """The `likelihood` section of that name, one of NAMES."""
    made: type[config.Likelihood] = import_module(f"{__name__}.{name}.config").Config
    return made


def sections() -> list[type[config.Likelihood]]:
    """The `likelihood` sections that there are, one for each of NAMES."""
    return [section(name) for name in NAMES]


def build(section: config.Likelihood, levels: int, data_channels: int, whole_pixels: bool) -> "Likelihood":
    """The likelihood that a section describes, of images with so many levels and channels.

    whole_pixels: the network describes the channels of a pixel jointly (config.Architecture).
    """
    module: Any = import_module(f"{__name__}.{section.name}.likelihood")
    likelihood: Likelihood = module.build(section, levels, data_channels, whole_pixels)
    return likelihood
