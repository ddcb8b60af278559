"""The systems that can be trained: one folder each, named as `model.name` in params.yaml.

    NAME/config.py    Config: the `model` section of a run (no torch)
    NAME/network.py   build(config, spec) -> a Network (pixelcnn.nn.interfaces)

A new folder is found by its name; nothing else lists it. A layer that two systems use lies in pixelcnn.nn.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixelcnn.config import Architecture

if TYPE_CHECKING:
    from pixelcnn.nn.interfaces import Network, Spec

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def sections() -> list[type[Architecture]]:
    """The `model` sections that there are, one for each of NAMES."""
    return [import_module(f"{__name__}.{name}.config").Config for name in NAMES]


def build(section: Architecture, spec: "Spec") -> "Network":
    """The network that a section describes, with fresh weights from torch's global generator.

    Raises ValueError for sizes that do not suit the data.
    """
    module: Any = import_module(f"{__name__}.{section.name}.network")
    network: Network = module.build(section, spec)
    return network
