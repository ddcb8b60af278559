"""Models and trainings on disk. A model is two files that hold no code: model.safetensors and config.json.

Everything is written to a temporary name and then renamed, so a file that is there is whole.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from pixelcnn import config
from pixelcnn.model import Data, Model, build

WEIGHTS, CONFIG = "model.safetensors", "config.json"
KEYS = "model", "data", "weights_sha256"  # of config.json


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def save(folder: Path, model: Model, weights: dict[str, Tensor]) -> str:
    """Write a model with these weights into a folder; returns the sha256 of the weights' file, the model's identity."""
    content = save_safetensors({name: w.contiguous() for name, w in weights.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    description = {"model": model.config.model_dump(), "data": asdict(model.data), "weights_sha256": sha256}
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / CONFIG, (json.dumps(description, indent=2) + "\n").encode())
    return sha256


def read_config(folder: Path) -> dict[str, Any]:
    """A saved model's config.json: {"model": ..., "data": ..., "weights_sha256": ...}. ValueError for any other."""
    path = folder / CONFIG
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {CONFIG} there; a model's folder holds {CONFIG} and {WEIGHTS}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    missing = [key for key in KEYS if not isinstance(description, dict) or key not in description]
    if missing:
        raise ValueError(f"{path}: not a model of pixelcnn: no {', '.join(missing)} there")
    return description


def load(folder: Path, device: torch.device | str = "cpu") -> Model:
    """A saved model in evaluation mode. Executes nothing that the files hold.

    Raises ValueError when the weights are not those that config.json names, or do not fit the network.
    """
    description = read_config(folder)
    content = (folder / WEIGHTS).read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), description["weights_sha256"]
    if found != expected:
        raise ValueError(f"{folder / WEIGHTS}: sha256 is {found}, {CONFIG} says {expected}: changed or damaged")
    section = config.check(config.ModelFile, {"model": description["model"]}, str(folder / CONFIG)).model
    data = description["data"]
    data = Data(**{**data, "shape": tuple(data["shape"]), "classes": tuple(data["classes"])})
    model = build(section, data)
    try:
        model.network.load_state_dict(load_safetensors(content), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS}: {error}") from None
    model.network.to(device).eval()
    return model


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training's state (tensors and plain values), atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as handle:
        torch.save(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """A training's state onto the CPU, without executing what the file holds; None where there is none."""
    if not path.exists():
        return None
    return torch.load(path, map_location="cpu", weights_only=True)
