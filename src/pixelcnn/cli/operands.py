"""The operands that several verbs take: MODEL, IMAGES, --label and numbers, parsed and checked in one place."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import pixelcnn
from pixelcnn import api, device, pretrained
from pixelcnn.config import COLDEST, HOTTEST, Given
from pixelcnn.data import image_files
from pixelcnn.data.dataset import Split, SplitName, read_info, read_split
from pixelcnn.data.decoding import SUFFIXES
from pixelcnn.data.embedder import Embedder
from pixelcnn.data.images import check_images
from pixelcnn.data.layouts import counted, is_image
from pixelcnn.files import check_name, excerpt
from pixelcnn.generation.sampling import check_temperature
from pixelcnn.model import Model

MODEL = (
    f"one that comes with pixelcnn ({', '.join(pretrained.folders())}), a folder with model.safetensors and "
    "config.json, or models:/NAME@ALIAS or models:/NAME/VERSION"
)
IMAGES = (
    "image files, folders of image files, or a split of a prepared data set as data/prepared/cifar10:test[:N] "
    "(its first N images)"
)
PREPARED = re.compile(r"(?P<folder>.+):(?P<split>train|validation|test)(?::(?P<num>[1-9][0-9]*))?")


@dataclass(frozen=True)
class Images:
    """Images (C, h, w) uint8 of any size, their names, and their labels and embeddings if a data set has them."""

    names: list[str]
    images: list[Tensor]
    labels: Tensor | None = None
    embeddings: Tensor | None = None

    @property
    def stems(self) -> list[str]:
        """The names without suffixes."""
        return [Path(name).stem for name in self.names]


# Numbers


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """A whole number of 0 ... 2**31 - 1, as in params.yaml."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 ... {2**31 - 1}")
    return int(text)


def temperature(text: str) -> float:
    """A temperature at which images can be drawn."""
    try:
        return check_temperature(float(text))
    except ValueError:
        message = f"{text!r} is not a number from {COLDEST:g} to {HOTTEST:g}"
        raise argparse.ArgumentTypeError(message) from None


# MODEL and its label


def load_model(text: str, on: str | None = None) -> Model:
    """The model that MODEL means, on the device `on`: by default a GPU if there is one."""
    return pixelcnn.load(text, on or str(device.default())).inner


def label(model: Model, text: str) -> int:
    """The label of a class, given by its name or number. Raises ValueError where the model has no such class."""
    try:
        return api.Model(model).label(text)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


# IMAGES


def read_images(operands: Sequence[str], model: Model | Embedder, of_any_size: bool = False) -> Images:
    """The images of IMAGES, with the model's channels and levels, and its size unless they may be of any.

    Raises ValueError with the file, split or folder that is not as it should be.
    """
    prepared = [match for match in map(PREPARED.fullmatch, operands) if match]
    if prepared and len(operands) > 1:
        raise ValueError(f"IMAGES: {prepared[0].group()} is a prepared split, to which no other images can be added")
    if prepared:
        return _of_split(Path(prepared[0]["folder"]), prepared[0]["split"], prepared[0]["num"], model)
    files = [path for operand in operands for path in _files(Path(operand))]
    channels, *size = model.shape
    wanted = None if of_any_size else (size[0], size[1])
    changes: list[str] = []
    images = [image_files.read(path, channels, model.data.levels, wanted, changes.append) for path in files]
    if changes:
        print(f"note: converted without loss: {counted(Counter(changes))}", file=sys.stderr)
    return Images([path.name for path in files], images)


def check_stems(stems: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError unless each image's stem can be the name of a file of its own; `names` are the images'."""
    seen: dict[str, str] = {}
    for stem, name in zip(stems, names, strict=True):
        check_name(stem, "IMAGES")
        if stem in seen:
            raise ValueError(f"{excerpt(name)}: a second image of the name {excerpt(stem)}; rename it")
        seen[stem] = name


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if is_image(file.name))
    if not files:
        raise ValueError(f"{path}: holds no file that ends in {', '.join(SUFFIXES)}")
    return files


def _of_split(folder: Path, name: str, num: str | None, model: Model | Embedder) -> Images:
    info = read_info(folder)
    if (info.shape, info.levels) != (model.shape, model.data.levels):
        raise ValueError(
            f"{folder}: images of {info.shape} with {info.levels} levels, the model's are {model.shape} with "
            f"{model.data.levels}"
        )
    split = read_split(folder, cast(SplitName, name)).part(slice(None if num is None else int(num)))
    labels = split.labels if info.classes == model.data.classes else None
    names = [f"{name}-{n:05d}" for n in range(len(split.images))]
    return Images(names, list(split.images), labels, split.embeddings)


def as_split(given: Images, model: Model, label_text: str | None) -> Split:
    """Images of the model's own size as a split, with the conditions that the model needs.

    Raises ValueError for another size, and where neither --label nor the data set has the condition.
    """
    channels, height, width = model.shape
    images = [
        check_images(image, channels, model.data.levels, (height, width), name)
        for name, image in zip(given.names, given.images, strict=True)
    ]  # (1, C, H, W) each
    labels = given.labels
    if label_text is not None:
        labels = torch.full((len(images),), label(model, label_text))
    if model.given is Given.LABEL and labels is None:
        raise ValueError("--label: missing; this model is class-conditional and these images come without labels")
    if model.given is Given.EMBEDDING and given.embeddings is None:
        raise ValueError("IMAGES: this model needs an embedding of each, which a prepared data set with embeddings has")
    return Split(torch.cat(images), labels, given.embeddings)
