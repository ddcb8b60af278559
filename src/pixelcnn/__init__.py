"""Exact-likelihood autoregressive image models, after van den Oord et al. 2016 (arXiv:1606.05328)."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import pretrained

if TYPE_CHECKING:
    from .model import Model

__version__ = "0.1.0"


def load(source: str | Path, device: str = "cpu") -> "Model":
    """A model to sample and score: NAME for one that comes with pixelcnn (`pixelcnn.pretrained`), a folder, or
    models:/NAME@ALIAS or models:/NAME/VERSION for one of the registry.

    Executes nothing that the files hold, and needs MLflow and a network for the registry only. Raises ValueError for
    what is not there, and for weights that are not those that config.json names.
    """
    # Imported here: `import pixelcnn` is at once, and a folder waits for no MLflow
    if str(source).startswith("models:/"):
        source = import_module("pixelcnn.tracking.registry").fetch(str(source))
    model: Model = import_module("pixelcnn.checkpoint").load(pretrained.find(source), device)
    return model
