"""Exact-likelihood autoregressive image models, after van den Oord et al. 2016 (arXiv:1606.05328).

import pixelcnn

model = pixelcnn.load("cifar10")            # comes with the package; or a folder, or models:/NAME@champion
images = model.sample(16, seed=0)           # uint8 (16, 3, 32, 32)
model.bits_per_dim(images)                  # (16,)
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pixelcnn import pretrained

if TYPE_CHECKING:
    from pixelcnn.api import Model

__version__ = "0.1.0"


def load(source: str | Path, device: str = "cpu") -> "Model":
    """A trained model: NAME of one that comes with pixelcnn (`pixelcnn.pretrained`), a folder, or models:/NAME@ALIAS or
    models:/NAME/VERSION of the registry.

    Executes nothing that the files hold, and needs MLflow and a network for the registry only. Raises ValueError for
    what is not there, and for weights that are not those that config.json names.
    """
    # Imported here: `import pixelcnn` takes no time, and a folder needs no MLflow
    if str(source).startswith("models:/"):
        source = import_module("pixelcnn.tracking.registry").fetch(str(source))
    inner = import_module("pixelcnn.checkpoint").load(pretrained.find(source), device)
    model: Model = import_module("pixelcnn.api").Model(inner)
    return model
