"""Models and training states on disk. A model folder is two files that hold no code: model.safetensors and config.json.

Beside them training.json says what the weights have cost, where a training of this project wrote them.

config.json: {"format": N, "model": section, "likelihood": section, "data": ..., "weights_sha256": ...}. The sha256 of
model.safetensors as it was written is the model's identity.
"""

import hashlib
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from pixelcnn import files
from pixelcnn.config import Sha256, check
from pixelcnn.data.dataset import read_info
from pixelcnn.likelihoods.base import check_nll
from pixelcnn.migrations import FORMAT, migrated
from pixelcnn.model import Data, Model, build
from pixelcnn.params import ModelSections
from pixelcnn.schemas import Trained, TrainReport

WEIGHTS, CONFIG, TRAINING = "model.safetensors", "config.json", "training.json"
PACKED = "run.json"  # of a model package (pixelcnn.tracking.model_package)
MAX_BYTES = 2**34  # of the weights


class ModelConfig(ModelSections):
    """What config.json holds, in today's format."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, allow_inf_nan=False
    )  # JSON has lists where Data has tuples

    format: int
    data: Data
    weights_sha256: Sha256

    @property
    def registered_name(self) -> str:
        """The registered model that this one is a version of: its data set, and the task if it has one."""
        return self.data.dataset + self.model.task


def save(folder: Path, model: Model, weights: dict[str, Tensor]) -> str:
    """Write a model with these weights into a folder; returns the sha256 of the weights' file."""
    content = to_bytes(weights)
    sha256 = hashlib.sha256(content).hexdigest()
    sections = {"model": model.config.model_dump(), "likelihood": model.likelihood_config.model_dump()}
    files.write_bytes(folder / WEIGHTS, content)
    files.write_json(
        folder / CONFIG, {"format": FORMAT, **sections, "data": asdict(model.data), "weights_sha256": sha256}
    )
    return sha256


def to_bytes(weights: dict[str, Tensor]) -> bytes:
    """The content of the weights' file; the same weights give the same bytes."""
    return save_safetensors({name: weight.contiguous() for name, weight in weights.items()})


def identity(model: Model) -> str:
    """The sha256 of the weights' file that the model was loaded from, or of the file that `save` would write."""
    return model.weights_sha256 or hashlib.sha256(to_bytes(model.network.state_dict())).hexdigest()


def read_config(folder: Path) -> ModelConfig:
    """A model folder's config.json, migrated to today's format. ValueError for a folder that holds none, or another."""
    path = folder / CONFIG
    content = files.read_json(path, f"{folder}: no {CONFIG} there; a model's folder holds {CONFIG} and {WEIGHTS}")
    missing = [key for key in ("model", "data", "weights_sha256") if key not in content]
    if missing:
        raise ValueError(f"{path}: not a model of pixelcnn: no {', '.join(missing)} there")
    return check(ModelConfig, migrated(content, str(path)), str(path))


def read_trained(folder: Path) -> Trained | None:
    """What a model's weights have cost, from its training.json or, in a package, run.json; None where neither is."""
    if (folder / TRAINING).is_file():
        return Trained.read(folder / TRAINING, "train the model again")
    if not (folder / PACKED).is_file():
        return None
    return TrainReport.model_validate(files.read_json(folder / PACKED, "").get("train")).trained


def load(folder: Path, device: torch.device | str = "cpu") -> Model:
    """A saved model of any format, in evaluation mode. Executes nothing that the files hold.

    Raises ValueError when the weights are not those that config.json names, or do not fit the network.
    """
    described = read_config(folder)
    content = files.read_bytes(folder / WEIGHTS, MAX_BYTES)
    if len(content) < described.model.fewest_weights:
        raise ValueError(f"{folder / WEIGHTS}: {len(content):,} bytes are too few for the sizes of {folder / CONFIG}")
    found, expected = hashlib.sha256(content).hexdigest(), described.weights_sha256
    if found != expected:
        raise ValueError(f"{folder / WEIGHTS}: sha256 is {found}, {CONFIG} says {expected}: changed or damaged")
    model = build(described.model, described.likelihood, described.data)
    try:
        weights = load_safetensors(content)
        model.network.load_state_dict(weights, strict=True)
    except (RuntimeError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / WEIGHTS}: {files.excerpt(str(error))}") from None
    _check_numbers(model, weights, str(folder / WEIGHTS))
    model.network.to(device).eval()
    return replace(model, weights_sha256=found)


def _check_numbers(model: Model, read: dict[str, Tensor], where: str) -> None:
    """Raise ValueError for weights that are not finite, and for those by which an image of zeros has no probability."""
    for name, weight in model.network.state_dict().items():
        if weight.is_floating_point() != read[name].is_floating_point():
            raise ValueError(f"{where}: {name} is of {read[name].dtype}, not of {weight.dtype}")
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{where}: {name} contains non-finite numbers: not the weights of a completed training")
    model.network.eval()
    with torch.no_grad():
        check_nll(model.nll(*model.example()), where)


def load_for(data: Path, folder: Path, device: torch.device | str = "cpu") -> Model:
    """A saved model, to be used on the prepared data set in `data`; ValueError if it was trained on other images."""
    model = load(folder, device)
    if Data.of(read_info(data)) != model.data:
        raise ValueError(f"{folder}: trained on other data than {data} holds; train it again")
    return model


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training's state (tensors and plain values), atomically. OSError where it cannot be written."""
    with files.atomic(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own writer hides what the file said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise OSError(f"{path}: cannot be written: {files.excerpt(str(error))}") from None


def load_state(path: Path) -> dict[str, Any] | None:
    """A training's state onto the CPU, without executing what the file holds; None where there is none.

    Raises ValueError for a file that no training has written, or that is damaged.
    """
    if not path.exists():
        return None
    remedy = "remove it, and the training starts over"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        reason = files.excerpt(str(error).partition(". ")[0]) or "it is empty"
        raise ValueError(f"{path}: cannot be read: {reason}; {remedy}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: is not the state of a training; {remedy}")
    return state
