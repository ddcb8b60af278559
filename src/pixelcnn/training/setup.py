"""What a training starts from: its images, its model, and the key by which it finds its checkpoint again."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from pixelcnn.data import loader
from pixelcnn.data.dataset import DatasetInfo, Split, read_info
from pixelcnn.device import arrange, prepare
from pixelcnn.model import Data, Model, build
from pixelcnn.params import Run
from pixelcnn.training.distributed import World


def training_images(data: Path, pixels: Path, world: World) -> tuple[loader.Images, Split]:
    """The train split; its images on disk, in the file `pixels`, where they are too many for the memory."""
    empty = [name for name, split in read_info(data).splits.items() if not split.num_images]
    if empty:
        raise ValueError(f"{data}: has no image in {', '.join(empty)}, of which a training needs some")
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


def what_decides_the_weights(run: Run) -> dict[str, Any]:
    """The sections of a run that its weights follow from."""
    return run.model_dump(include={"dataset", "model", "likelihood", "train"})


def training_key(run: Run, info: DatasetInfo) -> str:
    """A hash of all that the weights follow from: the run's params, the pixels and their embeddings."""
    fingerprints = [info.splits[split].fingerprint for split in ("train", "validation")]
    content = what_decides_the_weights(run) | {"fingerprints": fingerprints}
    content["embeddings"] = info.embeddings.sha256 if info.embeddings else ""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
