"""Exact-likelihood autoregressive image models, after van den Oord et al. 2016 (arXiv:1606.05328)."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Model

__version__ = "0.1.0"


def load(source: str | Path, device: str = "cpu") -> "Model":
    """The model of a folder or, as models:/NAME@ALIAS or models:/NAME/VERSION, of the registry; to sample and score.

    Executes nothing that the files hold, and needs MLflow and a network for the registry only. Raises ValueError for
    what is not there, and for weights that are not those that config.json names.
    """
    # Imported here: `import pixelcnn` is at once, and a folder waits for no MLflow
    if str(source).startswith("models:/"):
        source = import_module("pixelcnn.registry").fetch(str(source))
    model: Model = import_module("pixelcnn.checkpoint").load(Path(source), device)
    return model
