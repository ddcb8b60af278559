"""The operands that several verbs take: MODEL, its device and label, and IMAGES, read and checked in one place."""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import pixelcnn
from pixelcnn import api, device
from pixelcnn.config import Given, quoted
from pixelcnn.data import image_files
from pixelcnn.data.config import Resized
from pixelcnn.data.dataset import CARD, SPLITS, Split, SplitName, read_info, read_split
from pixelcnn.data.decoding import SUFFIXES
from pixelcnn.data.embedder import Embedder
from pixelcnn.data.images import check_images
from pixelcnn.data.importing import fit
from pixelcnn.data.layouts import counted, is_image
from pixelcnn.files import ACTING, check_name, excerpt
from pixelcnn.model import Model
from pixelcnn.spelling import hint

PREPARED = re.compile(rf"(?P<folder>.+):(?P<split>{'|'.join(SPLITS)})(?::(?P<num>[1-9][0-9]*))?")
MOST_NAMED = 20  # files that cannot be used, of one command
Note = Callable[[str], object]  # of a conversion of an image that lost nothing


@dataclass(frozen=True)
class Images:
    """Images (C, h, w) uint8 of any size, their names, and their labels and embeddings if a data set has them."""

    names: list[str]
    images: list[Tensor]
    labels: Tensor | None = None
    embeddings: Tensor | None = None

    @property
    def stems(self) -> list[str]:
        """The names without suffixes, as names of files in one folder."""
        return ["-".join(Path(name).with_suffix("").parts) for name in self.names]


# MODEL, its device and its label


def load_model(text: str, on: str | None) -> Model:
    """The model that MODEL means, on the device of this name: by default a GPU if there is one."""
    model = pixelcnn.load(text, str(chosen_device(on))).inner
    if model.shape[0] not in (1, 3):
        raise ValueError(f"MODEL: of images of {model.shape[0]} channels, and files of images have 1 or 3")
    return model


def chosen_device(name: str | None) -> torch.device:
    """The device of this name, prepared; by default a GPU if there is one."""
    if name is not None:
        check_device(name)
    chosen = device.default() if name is None else torch.device(name)
    device.prepare(chosen)
    return chosen


def check_device(name: str) -> None:
    """Raise ValueError unless this machine has the device cpu, cuda or cuda:N."""
    kind, _, number = name.partition(":")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= there:
        raise ValueError(f"--device: {name!r}: PyTorch finds {there or 'no'} GPU{'s' * (there > 1)} here")


def label(model: Model, text: str) -> int:
    """The label of a class, given by its name or number. Raises ValueError where the model has no such class."""
    try:
        return api.Model(model).label(text)
    except ValueError as error:
        remedy = hint(text, model.data.classes) if model.given is Given.LABEL else ""
        raise ValueError(f"--{error}{remedy}") from None


# IMAGES


def read_images(args: argparse.Namespace, model: Model | Embedder, of_any_size: bool = False) -> Images:
    """The images of IMAGES, with the model's channels and levels, and its size unless they may be of any.

    Raises ValueError that names the split, or each file, that is not as it should be, before any work; --skip-bad goes
    on without such files. With --resize images get the model's size.
    """
    prepared = [match for match in map(PREPARED.fullmatch, args.images) if match]
    if prepared and len(args.images) > 1:
        raise ValueError(f"IMAGES: {prepared[0].group()} is a prepared split, to which no other images can be added")
    if prepared:
        return _of_split(Path(prepared[0]["folder"]), prepared[0]["split"], prepared[0]["num"], model)
    files = [each for operand in args.images for each in _files(operand)]
    if getattr(args, "resize", False):
        return _each(files, lambda path, note: _resized(path, model, note), args.skip_bad)
    if of_any_size:
        return _each(files, lambda path, note: _of_any_size(path, model, note), args.skip_bad)
    remedy = "--resize or --tiles takes any size" if "tiles" in args else "--resize takes any size"
    return _each(files, lambda path, note: _of_its_size(path, model, note, remedy), args.skip_bad)


def _each(files: Sequence[tuple[Path, str]], read: Callable[[Path, Note], Tensor], skip_bad: bool) -> Images:
    """The images of files, each with its name, in which one that cannot be used does not hide the others."""
    names, images, faults = [], [], []
    changes: Counter[str] = Counter()
    for path, name in files:
        noted: list[str] = []
        try:
            if ACTING.search(name):  # it is printed, and becomes a name of files
                raise ValueError(f"IMAGES: {quoted(str(path))} has characters that do not belong in the name of a file")
            images.append(read(path, noted.append))
        except FileNotFoundError:
            faults.append(f"{path}: no such file")
        except (ValueError, OSError) as error:
            faults.append(str(error))
        else:
            names.append(name)
            changes.update(noted)
    more = [f"... and {len(faults) - MOST_NAMED:,} more"] if len(faults) > MOST_NAMED else []
    report = "\n".join([*faults[:MOST_NAMED], *more])
    some = f"{len(faults):,} of {len(files):,} files cannot be used"
    if faults and len(files) == 1:
        raise ValueError(report)
    if faults and (not skip_bad or not images):
        raise ValueError(f"{some}{'; --skip-bad leaves them out' if images else ''}\n{report}")
    if faults:
        print(f"note: {some} and are left out\n{report}", file=sys.stderr)
    if changes:
        print(f"note: converted without loss: {counted(changes)}", file=sys.stderr)
    return Images(names, images)


def _of_any_size(path: Path, model: Model | Embedder, note: Note) -> Tensor:
    return image_files.read(path, model.shape[0], model.data.levels, note=note)


def _of_its_size(path: Path, model: Model | Embedder, note: Note, remedy: str) -> Tensor:
    image, (_, height, width) = _of_any_size(path, model, note), model.shape
    if tuple(image.shape[1:]) != (height, width):
        found = f"{path}: is {image.shape[2]} x {image.shape[1]} pixels, not {width} x {height}"
        raise ValueError(f"{found}; {remedy}")
    return image


def _resized(path: Path, model: Model | Embedder, note: Note) -> Tensor:
    """The centre of the model's proportions, at the model's size, in its levels."""
    channels, height, width = model.shape
    pixels = image_files.read(path, channels, levels=256, note=note).permute(1, 2, 0).numpy()  # (h, w, C)
    fitted = fit(pixels, Resized(name="crop", height=height, width=width, filter="lanczos"))  # (H, W, C)
    greys = torch.from_numpy(fitted).permute(2, 0, 1)  # (C, H, W)
    return (greys.double() * (model.data.levels - 1) / 255).round().to(torch.uint8)


def check_stems(stems: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError unless each image's stem can be the name of a file of its own; `names` are the images'."""
    seen: dict[str, str] = {}
    for stem, name in zip(stems, names, strict=True):
        check_name(stem, "IMAGES")
        if stem in seen:
            raise ValueError(f"{excerpt(name)}: a second image named {excerpt(stem)}; rename it")
        seen[stem] = name


def _files(operand: str) -> list[tuple[Path, str]]:
    """The image files that an operand means, also in the folders below it, each with its name."""
    path, (folder, colon, split) = Path(operand), operand.rpartition(":")
    if not path.exists() and colon and (Path(folder) / CARD).exists():
        raise ValueError(f"IMAGES: {operand}: {split!r} is not one of {', '.join(SPLITS)}{hint(split, SPLITS)}")
    if (path / CARD).exists():
        raise ValueError(f"IMAGES: {path} is a prepared data set: name one of its splits, as {path}:test")
    if not path.is_dir():
        return [(path, path.name)]
    below = (Path(folder, file).relative_to(path) for folder, _, files in os.walk(path) for file in files)
    names = sorted(str(name) for name in below if is_image(str(name)))
    if not names:
        raise ValueError(f"{path}: holds no file that ends in {', '.join(SUFFIXES)}")
    return [(path / name, name) for name in names]


def _of_split(folder: Path, name: str, num: str | None, model: Model | Embedder) -> Images:
    if not folder.is_dir():
        others = [str(each.parent) for each in folder.parent.glob(f"*/{CARD}")]
        remedy = hint(str(folder), others) or "; `dvc repro preprocess` prepares those of params.yaml"
        raise ValueError(f"IMAGES: {folder}: no such data set{remedy}")
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
