"""A folder of many samples, a PNG each, that is written batch by batch and continued where it was interrupted.

`samples.json` says what the images are samples of, and how many of them are there. It is written after each batch, so
that a killed process loses one batch at most, and what is drawn after it are the images that an uninterrupted process
would have drawn: a batch depends on nothing but the numbers that were drawn before it from the seed.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelcnn import files
from pixelcnn.data import image_files

MANIFEST = "samples.json"
DRAWN = "drawn"  # the key of the manifest that counts the images


def names_of(conditions: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    """What tells conditions apart: their names, and of embeddings a hash of the values too."""
    return [name if h is None or h.ndim == 0 else f"{name} {_hash(h)}" for name, h in conditions]


def _hash(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


def begin(folder: Path, content: dict[str, Any]) -> int:
    """How many images of this content the folder holds already. content: all that decides them.

    Raises ValueError where its images are of other content, or where nothing says of which.
    """
    path = folder / MANIFEST
    if not path.exists():
        if any(folder.glob("*.png")):
            raise ValueError(f"--out: {folder} holds images, but no {MANIFEST} that says of what; name a new folder")
        _count(folder, content, 0)
        return 0
    there = files.read_json(path, f"{path}: is gone", f"remove {folder} or name another folder")
    for key, wanted in content.items():
        if there.get(key) != wanted:
            raise ValueError(
                f"--out: {folder} holds samples of {key} {str(there.get(key))[:80]!r}, not {str(wanted)[:80]!r}; name "
                "another folder, or give what it was begun with to continue it"
            )
    drawn = there.get(DRAWN)
    if not isinstance(drawn, int) or drawn < 0:
        raise ValueError(f"{path}: {DRAWN} is {str(drawn)[:80]!r}, not a number of images")
    return drawn


def write(folder: Path, content: dict[str, Any], drawn: int, batches: Iterable[Tensor], levels: int) -> None:
    """Add batches of images (B, C, H, W) to those that are there already."""
    for batch in batches:
        for n, image in enumerate(batch.cpu(), drawn):
            image_files.write(folder / f"{n:05d}.png", image, levels)
        drawn += len(batch)
        _count(folder, content, drawn)


def _count(folder: Path, content: dict[str, Any], drawn: int) -> None:
    files.write_json(folder / MANIFEST, content | {DRAWN: drawn})


def one_ahead(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """On a GPU, each batch after the next one has been begun, which is then drawn while this one is written."""
    if device.type != "cuda":
        yield from batches
        return
    last = next(batches, None)
    for batch in batches:
        assert last is not None
        yield last
        last = batch
    if last is not None:
        yield last
