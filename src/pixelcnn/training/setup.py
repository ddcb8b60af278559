"""What a training starts from: its images, its model, and the keys by which it finds its checkpoints again."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from pixelcnn.data import loader
from pixelcnn.data.dataset import DatasetInfo, Split, read_counted
from pixelcnn.device import arrange, prepare
from pixelcnn.model import Data, Model, build
from pixelcnn.params import Run
from pixelcnn.training.distributed import World

MOST_NAMES = 8  # of weights in a message


def training_images(data: Path, pixels: Path, world: World) -> tuple[loader.Images, Split]:
    """The train split; its images on disk, in the file `pixels`, where they are too many for the memory."""
    empty = [name for name, split in read_counted(data).splits.items() if not split.num_images]
    if empty:
        raise ValueError(f"{data}: has no images in {', '.join(empty)}, and training needs some in each split")
    limit = loader.OF_MEMORY * loader.memory()

    def prepare_file() -> None:
        if loader.is_large(data, "train", limit):
            loader.flatten(data, "train", pixels)

    world.once_per_machine(prepare_file)
    return loader.read(data, "train", pixels, limit)


def fresh_model(run: Run, info: DatasetInfo, device: torch.device, data: Split) -> Model:
    """The model before its first step, on the device; the same on every rank. Seeds torch's global generator."""
    torch.manual_seed(run.train.seed)
    model = build(run.model, run.likelihood, Data.of(info))
    model.standardise(data)
    prepare(device)
    arrange(model.network, model.network.memory_format, math.prod(model.shape[1:]), device)
    return model


def start_from(model: Model, initial: Model) -> list[str]:
    """Initialise a model with the weights of a trained one; returns the names of the weights that it does not have.

    Only those of the conditioning may be missing: a model of other classes, or of none, is still a start. They are zero
    where a layer takes in the condition, so that a model of none starts with the very outputs of the trained one; what
    makes a map of the condition stays random. Raises ValueError with the names and shapes of all other weights that do
    not match.
    """
    if (initial.data.levels, initial.shape[0]) != (model.data.levels, model.shape[0]):
        raise ValueError(
            f"its images have {initial.shape[0]} channels and {initial.data.levels} levels, not "
            f"{model.shape[0]} and {model.data.levels}"
        )
    ours, theirs = model.network.state_dict(), initial.network.state_dict()
    other = {
        name: "missing there" if name not in theirs else f"{tuple(weight.shape)}, not {tuple(theirs[name].shape)}"
        for name, weight in ours.items()
        if name not in theirs or theirs[name].shape != weight.shape
    }
    unknown = [f"{name} (missing here)" for name in theirs if name not in ours and not _of_condition(name)]
    refused = [f"{name} ({what})" for name, what in other.items() if not _of_condition(name)] + unknown
    if refused:
        rest = len(refused) - MOST_NAMES
        some = ", ".join(refused[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
        raise ValueError(f"{initial.config.name} has other weights than {model.config.name}: {some}")
    is_new_map = any(map(_makes_condition, other))  # what layers do with the old one means nothing then
    zero = [
        name for name in ours if (name in other or is_new_map) and _of_condition(name) and not _makes_condition(name)
    ]
    known = {name: theirs[name] for name in ours if name not in other}
    model.network.load_state_dict(known | {name: torch.zeros_like(ours[name]) for name in zero}, strict=False)
    return list(other)


def _of_condition(name: str) -> bool:
    """Whether a weight belongs to what a network is conditioned on: `condition.…`, `layers.0.cond_vertical.…`."""
    return any(part.startswith("cond") for part in name.split("."))


def _makes_condition(name: str) -> bool:
    """Whether a weight belongs to what makes the condition's map, rather than to a layer that takes it in."""
    return name.startswith("condition.")


def what_decides_the_weights(run: Run) -> dict[str, Any]:
    """The sections of a run that its weights follow from."""
    return run.model_dump(include={"dataset", "model", "likelihood", "train"})


def training_key(run: Run, info: DatasetInfo) -> str:
    """A hash of all that the weights follow from: the run's params, the pixels and their embeddings."""
    return _key(what_decides_the_weights(run), info)


def trunk_key(run: Run, info: DatasetInfo) -> str:
    """A hash of all that decides the weights along a trunk: trainings that differ in `steps` and cool-down share it."""
    content = what_decides_the_weights(run)
    content["train"] = {key: value for key, value in content["train"].items() if key != "steps"} | {"schedule": "wsd"}
    return _key(content, info)


def _key(content: dict[str, Any], info: DatasetInfo) -> str:
    fingerprints = [info.splits[split].fingerprint for split in ("train", "validation")]
    content = content | {"fingerprints": fingerprints}
    content["embeddings"] = info.embeddings.sha256 if info.embeddings else ""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
