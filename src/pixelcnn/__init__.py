"""Exact-likelihood autoregressive image models, after van den Oord et al. 2016 (arXiv:1606.05328).

    import pixelcnn

    model = pixelcnn.load("cifar10")            # comes with the package; or a folder, or models:/NAME@champion
    images = model.sample(16, seed=0)           # uint8 (16, 3, 32, 32)
    model.bits_per_dim(images)                  # (16,): exact, -log2 p(x) per sub-pixel
    model.picture(images)                       # a grid, which a notebook shows

    model = pixelcnn.fit(photographs, like="cifar10-small/cifar10-gated-small", train={"steps": 2000})
    model.save("photographs")                   # then pixelcnn.load("photographs"), pixelcnn sample photographs ...

load            a trained model
fit             train a model on a tensor, an array or a torch Dataset
load_embedder   what makes embeddings of images, the conditions of some models
Model           what load and fit return: nll, bits_per_dim, nll_map, sample, complete, encode, reconstruct, interpolate

Images are uint8, N x C x H x W. `pixelcnn --help` lists commands of the same names. The pipeline from archives to
registered models, `dvc repro`, is described in README.md.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelcnn import pretrained

if TYPE_CHECKING:
    from pixelcnn.api import Model as Model
    from pixelcnn.data.embedder import Embedder
    from pixelcnn.fitting import fit as fit

__version__ = "0.1.0"
__all__ = ["Model", "fit", "load", "load_embedder"]

LAZY = {"Model": "pixelcnn.api", "fit": "pixelcnn.fitting"}  # they import torch; `import pixelcnn` takes no time


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'pixelcnn' has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *LAZY])  # so that help(pixelcnn) shows these too


def load(source: str | Path, device: str = "cpu") -> "Model":
    """A trained model: NAME of a bundled one (`pixelcnn.pretrained`), a folder, or models:/NAME@ALIAS or
    models:/NAME/VERSION of the registry.

    Executes nothing that the files hold, and needs MLflow and a network for the registry only. Raises ValueError for
    what is not there, and for weights that are not those that config.json names.
    """
    on = import_module("pixelcnn.device").named(device)
    inner = import_module("pixelcnn.checkpoint").load(folder_of(source), on)
    model: Model = import_module("pixelcnn.api").Model(inner)
    return model


def load_embedder(source: str | Path, device: str = "cpu") -> "Embedder":
    """The embedder of a model that was trained on embeddings by a classifier, or of a data set with such embeddings.

    source: as `load` takes it, or the data set's folder. `embedder(images)` are embeddings (N, D), float32: conditions
    for the model (`model.sample(N, cond=...)`), also of images that no training has seen. Raises ValueError where there
    is none.
    """
    on = import_module("pixelcnn.device").named(device)
    embedder: Embedder = import_module("pixelcnn.data.embedder").load(folder_of(source), on)
    return embedder


def folder_of(source: str | Path) -> Path:
    """The model folder that a source means, as `load` takes it."""
    if str(source).startswith("models:/"):
        source = import_module("pixelcnn.tracking.registry").fetch(str(source))  # so that a folder needs no MLflow
    return pretrained.find(source)
