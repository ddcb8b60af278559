"""The prepared data set: Parquet shards of uint8 images in three splits, and a card that describes them.

    card.json  train-00000.parquet ...  validation-00000.parquet ...  test-00000.parquet ...

A shard has a column `image`, fixed-size binary of C*H*W bytes, and where the data has classes a column `label`, int16.
Shape letters: N images, C channels, H rows, W columns. torch is imported only where tensors are made, so that stages
without it start quickly.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    import torch

SplitName = Literal["train", "validation", "test"]
CARD = "card.json"
ROWS_PER_GROUP = 256  # a writer's memory: this many images


class SplitCard(BaseModel):
    """What lies in one split; `fingerprint` tells its images whatever their order (see `fingerprint`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_images: int
    fingerprint: str
    shards: tuple[str, ...]


class Card(BaseModel):
    """A prepared data set in words and numbers. Means and deviations are of the train split, in units of levels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str  # its name in params.yaml
    source: str  # its name in pixelcnn.data.sources
    title: str
    shape: tuple[int, int, int]  # C, H, W
    levels: int  # pixel values are 0 .. levels - 1
    classes: tuple[str, ...]  # empty if there are no labels
    splits: dict[SplitName, SplitCard]
    channel_means: tuple[float, ...]
    channel_deviations: tuple[float, ...]
    comparable: bool  # with the published likelihoods of this data set
    comparable_reason: str
    licence: str
    citation: str
    homepage: str


@dataclass(frozen=True)
class Split:
    """The images (N, C, H, W) uint8 and labels (N) int64 of one split; `labels` is None where there are no classes."""

    images: "torch.Tensor"
    labels: "torch.Tensor | None"


def read_card(folder: Path) -> Card:
    """The card of the prepared data set in `folder`; ValueError naming the file if it is missing or damaged."""
    path = folder / CARD
    try:
        return Card.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; the stage preprocess makes it (or `dvc pull` fetches it)") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: is not a card: {place + ': ' if place else ''}{first['msg']}") from None


def write_card(card: Card, path: Path) -> None:
    """Write `card` as JSON; a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_split(folder: Path, split: SplitName) -> Split:
    """The whole of one split as tensors; ValueError naming the shard that is missing, damaged or not as the card says.

    A column of fixed-size binaries is one buffer, so no row is touched by Python; the memory peak is the split itself
    and one shard.
    """
    import torch

    card = read_card(folder)
    described = card.splits[split]
    images = np.empty((described.num_images, math.prod(card.shape)), np.uint8)
    labels = np.empty(described.num_images, np.int64) if card.classes else None
    row = 0
    for file in described.shards:
        pixels, numbers = _read_shard(folder / file, images.shape[1], labels is not None)
        if row + len(pixels) > len(images):
            raise ValueError(f"{folder / file}: holds images beyond the {len(images):,} of the card's {split} split")
        images[row : row + len(pixels)] = pixels
        if labels is not None:
            labels[row : row + len(pixels)] = numbers
        row += len(pixels)
    if row != len(images):
        raise ValueError(f"{folder}: the {split} shards hold {row:,} images, {CARD} says {len(images):,}")
    return Split(
        torch.from_numpy(images).view(-1, *card.shape) if row else torch.empty((0, *card.shape), dtype=torch.uint8),
        None if labels is None else torch.from_numpy(labels),
    )


def _read_shard(path: Path, width: int, has_labels: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    """The pixels (N, width) and labels (N; empty without) of a shard."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            table = shard.read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, though {CARD} lists it; run preprocess again or `dvc pull`") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is damaged: {' '.join(str(error).split())}") from None
    expected = _schema(width, has_labels)
    if not table.schema.equals(expected):
        raise ValueError(f"{path}: has columns {_columns(table.schema)}, {CARD} says {_columns(expected)}")
    pixels = [_values(chunk, np.uint8, width) for chunk in table["image"].chunks]
    labels = [_values(chunk, np.int16, 1) for chunk in table["label"].chunks] if has_labels else []
    return (
        np.concatenate([np.empty(0, np.uint8), *pixels]).reshape(-1, width),
        np.concatenate([np.empty(0, np.int16), *labels]),
    )


def _values(chunk: pa.Array, kind: type, width: int) -> npt.NDArray[Any]:
    """The buffer behind `chunk`, `width` values a row."""
    assert chunk.null_count == 0
    values: npt.NDArray[Any] = np.frombuffer(chunk.buffers()[1], kind)
    return values[chunk.offset * width : (chunk.offset + len(chunk)) * width]


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in schema) or "none"


def _schema(width: int, has_labels: bool) -> pa.Schema:
    image = pa.field("image", pa.binary(width), nullable=False)
    return pa.schema([image, pa.field("label", pa.int16(), nullable=False)] if has_labels else [image])


# Fingerprints


def image_hash(pixels: bytes) -> int:
    """The SHA-256 of an image's bytes in the order C, H, W, as a number."""
    return int.from_bytes(hashlib.sha256(pixels).digest(), "big")


def fingerprint(hashes: Iterable[int]) -> str:
    """The sum of `image_hash`es modulo 2**256 in 64 hex digits: the same for the same images in whatever order."""
    return f"{sum(hashes) % 2**256:064x}"


def join_fingerprints(*fingerprints: str) -> str:
    """The fingerprint of several sets of images taken together."""
    return fingerprint(int(each, 16) for each in fingerprints)


# Writing


class SplitWriter:
    """Writes the shards of one split, image by image; memory stays that of one row group.

    A shard lies under a temporary name until it is whole. The same images in the same order give the same bytes.
    After `close` (or the end of `with`), `card` describes the split.
    """

    def __init__(
        self, folder: Path, split: SplitName, shape: tuple[int, int, int], has_labels: bool, images_per_shard: int
    ) -> None:
        self._folder, self._split, self._images_per_shard = folder, split, images_per_shard
        self._channels, self._width = shape[0], math.prod(shape)
        self._schema = _schema(self._width, has_labels)
        self._pixels: list[bytes] = []
        self._labels: list[int | None] = []
        self._shard: pq.ParquetWriter | None = None
        self._rows_in_shard = self._hash_sum = self.num_images = 0
        self._shards: list[str] = []
        self.histogram = np.zeros((self._channels, 256), np.int64)  # how often each value occurs in each channel

    def add(self, pixels: bytes, label: int | None, hash_: int) -> None:
        """Append an image: its bytes in the order C, H, W, its label, and its `image_hash`."""
        self._pixels.append(pixels)
        self._labels.append(label)
        self._hash_sum += hash_
        self.num_images += 1
        self._rows_in_shard += 1
        if self._rows_in_shard == self._images_per_shard:
            self._end_shard()
        elif len(self._pixels) == ROWS_PER_GROUP:
            self._write_group()

    @property
    def card(self) -> SplitCard:
        """Number, fingerprint and files of the images so far."""
        return SplitCard(
            num_images=self.num_images, fingerprint=fingerprint([self._hash_sum]), shards=tuple(self._shards)
        )

    def close(self) -> None:
        """Complete the last shard."""
        if self._rows_in_shard:
            self._end_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._shard.close()  # under its temporary name

    def _write_group(self) -> None:
        if self._shard is None:
            path = self._folder / (self._file + ".tmp")
            self._shard = pq.ParquetWriter(
                path,
                self._schema,
                compression="zstd",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )
        joined = b"".join(self._pixels)
        images = pa.Array.from_buffers(pa.binary(self._width), len(self._pixels), [None, pa.py_buffer(joined)])
        columns = [images] + ([pa.array(self._labels, pa.int16())] if len(self._schema) == 2 else [])
        self._shard.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._count(np.frombuffer(joined, np.uint8).reshape(len(self._pixels), self._channels, -1))
        self._pixels, self._labels = [], []

    def _count(self, images: npt.NDArray[np.uint8]) -> None:
        for channel in range(self._channels):
            self.histogram[channel] += np.bincount(images[:, channel].ravel(), minlength=256)

    def _end_shard(self) -> None:
        if self._pixels:
            self._write_group()
        assert self._shard is not None
        self._shard.close()
        (self._folder / (self._file + ".tmp")).replace(self._folder / self._file)
        self._shards.append(self._file)
        self._shard, self._rows_in_shard = None, 0

    @property
    def _file(self) -> str:
        return f"{self._split}-{len(self._shards):05d}.parquet"
