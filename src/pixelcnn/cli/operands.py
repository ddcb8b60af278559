"""What the verbs' arguments mean: MODEL, IMAGES, --label and numbers, read once, refused in one way."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import pixelcnn
from pixelcnn import pretrained
from pixelcnn.data.dataset import Split, SplitName, read_card, read_split
from pixelcnn.generation import grids as pictures
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
    """Images (C, h, w) uint8 of any size, their names, and what a prepared data set knows of them."""

    names: list[str]
    images: list[Tensor]
    labels: Tensor | None = None
    embeddings: Tensor | None = None


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


# MODEL and its label


def load_model(text: str, device: str | None = None) -> Model:
    """The model of a folder or of the registry, on `device`: by default a GPU if there is one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return pixelcnn.load(text, device)


def label(model: Model, text: str) -> int:
    """The label that a class's name or its number stands for."""
    classes = model.data.classes
    if model.given != "label":
        raise ValueError(f"--label: this model is not class-conditional (its condition is {model.config.condition!r})")
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    names = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    raise ValueError(f"--label: {text!r} is neither of 0 ... {len(classes) - 1} nor one of {names}")


# IMAGES


def read_images(operands: Sequence[str], model: Model) -> Images:
    """The images of IMAGES, with the model's channels and levels.

    Raises ValueError naming the file, the split or the folder that is not such.
    """
    prepared = [match for match in map(PREPARED.fullmatch, operands) if match]
    if prepared and len(operands) > 1:
        raise ValueError(f"IMAGES: {prepared[0].group()} is a prepared split, which stands alone")
    if prepared:
        return _of_split(Path(prepared[0]["folder"]), prepared[0]["split"], prepared[0]["num"], model)
    files = [path for operand in operands for path in _files(Path(operand))]
    channels, levels = model.shape[0], model.data.levels
    return Images([path.name for path in files], [pictures.read(path, channels, levels) for path in files])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in pictures.SUFFIXES)
    if not files:
        raise ValueError(f"{path}: holds no file that ends in {', '.join(pictures.SUFFIXES)}")
    return files


def _of_split(folder: Path, name: str, num: str | None, model: Model) -> Images:
    card = read_card(folder)
    if (card.shape, card.levels) != (model.shape, model.data.levels):
        raise ValueError(
            f"{folder}: images of {card.shape} with {card.levels} levels, the model's are {model.shape} with "
            f"{model.data.levels}"
        )
    split = read_split(folder, cast(SplitName, name)).part(slice(None if num is None else int(num)))
    labels = split.labels if card.classes == model.data.classes else None
    names = [f"{name}-{n:05d}" for n in range(len(split.images))]
    return Images(names, list(split.images), labels, split.embeddings)


def as_split(given: Images, model: Model, label_text: str | None) -> Split:
    """Images of the model's own size as a split, with the conditions that the model needs.

    Raises ValueError for another size, and where neither --label nor the data set says what the model is to be given.
    """
    _, height, width = model.shape
    for name, image in zip(given.names, given.images, strict=True):
        if tuple(image.shape) != model.shape:
            raise ValueError(
                f"{name}: is {image.shape[2]} x {image.shape[1]} pixels, the model's images are {width} x {height}"
            )
    labels = given.labels
    if label_text is not None:
        labels = torch.full((len(given.images),), label(model, label_text))
    if model.given == "label" and labels is None:
        raise ValueError("--label: missing; this model is class-conditional and these images come without labels")
    if model.given == "embedding" and given.embeddings is None:
        raise ValueError("IMAGES: this model needs an embedding of each, which a prepared data set with embeddings has")
    return Split(torch.stack(given.images), labels, given.embeddings)
