"""The format of a prepared data set: Parquet shards of uint8 images in three splits, and a card that describes them.

    card.json  train-00000.parquet ...  validation-00000.parquet ...  test-00000.parquet ...

A shard has a column `image`, fixed-size binary of C*H*W bytes; where the data has classes also `label`, int16.
A data set with embeddings also has a file SPLIT.embeddings.parquet per split: a column `embedding` of fixed-size lists
of float32, one row for each image in the order of the shards; and, of embeddings by a classifier, that classifier in a
folder `embedder` (pixelcnn.data.embedder).

torch is imported only where tensors are made, so that stages without it start quickly.

Shapes: N images, C channels, H rows, W columns, D dimensions of an embedding.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pixelcnn.config import RENAMED, ClassName, Dims, Levels, Name, Shape
from pixelcnn.files import MAX_JSON, check_name, excerpt, read_bytes, write_text

if TYPE_CHECKING:
    import torch

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
CARD = "card.json"
EMBEDDER = "embedder"  # the folder of what made the embeddings; a training copies it beside its model

# Data sets prepared by an earlier release hold the old names of sources
SourceName = Annotated[str, AfterValidator(lambda name: RENAMED.get(name, name))]


class SplitInfo(BaseModel):
    """One split: how many images in which shards; `fingerprint` identifies the images regardless of their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_images: Annotated[int, Field(ge=0, lt=2**31)]
    fingerprint: str
    shards: tuple[Annotated[str, AfterValidator(lambda name: check_name(name, "shard"))], ...]


class EmbeddingsInfo(BaseModel):
    """The embeddings of a data set's images: their dimension, where they come from, and a hash of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dims: Dims
    origin: str
    sha256: str


class DatasetInfo(BaseModel):
    """The card of a prepared data set: origin, shape, splits, statistics, licence.

    Channel means and standard deviations are those of the train split, in units of levels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Name  # its name in params.yaml
    source: SourceName  # its name in pixelcnn.data.sources
    title: str
    shape: Shape  # C, H, W
    levels: Levels  # pixel values are 0 .. levels - 1
    classes: tuple[ClassName, ...]  # empty if there are no labels
    splits: dict[SplitName, SplitInfo]
    channel_means: tuple[float, ...]
    channel_deviations: tuple[float, ...]
    comparable: bool  # with the published likelihoods of this data set
    comparable_reason: str
    licence: str
    citation: str
    homepage: str
    embeddings: EmbeddingsInfo | None = None


@dataclass(frozen=True)
class Split:
    """The images (N, C, H, W) uint8 of one split; labels (N,) int64 and embeddings (N, D) float32 where it has any."""

    images: "torch.Tensor"
    labels: "torch.Tensor | None"
    embeddings: "torch.Tensor | None" = None

    def part(self, rows: Any) -> "Split":
        """The images at `rows` (a slice or indices) with their labels and embeddings."""
        images = self.images[rows] if len(self.images) else self.images
        labels = None if self.labels is None else self.labels[rows]
        return Split(images, labels, None if self.embeddings is None else self.embeddings[rows])


def read_info(folder: Path) -> DatasetInfo:
    """Read the card of the prepared data set in `folder`, with the source's current name.

    Raises ValueError naming the file if it is missing or damaged.
    """
    path = folder / CARD
    try:
        return DatasetInfo.model_validate_json(read_bytes(path, MAX_JSON))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; the stage preprocess makes it (or `dvc pull` fetches it)") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{path}: is not a card: {excerpt(place + ': ' + first['msg'] if place else first['msg'])}"
        ) from None


def read_counted(folder: Path) -> DatasetInfo:
    """`read_info`, after the shards of all splits were found to hold as many images as the card says."""
    info = read_info(folder)
    for name, split in info.splits.items():
        _check_count(folder, name, split)
    return info


def _check_count(folder: Path, name: SplitName, described: SplitInfo) -> None:
    """Raise ValueError unless the shards' footers sum to the card's number, before memory is allocated for so many."""
    found = sum(_num_rows(folder / file) for file in described.shards)
    if found != described.num_images:
        raise ValueError(f"{folder}: the {name} shards hold {found:,} images, {CARD} says {described.num_images:,}")


def write_info(info: DatasetInfo, path: Path) -> None:
    """Write a data set's card as JSON, atomically."""
    write_text(path, info.model_dump_json(indent=2) + "\n")


def read_split(folder: Path, split: SplitName) -> Split:
    """Read one split into tensors. Peak memory is the split and one shard.

    A column of fixed-size binaries is one buffer, so no row is touched by Python. Raises ValueError naming the shard
    that is missing, damaged or not as the card says.
    """
    import torch

    info = read_info(folder)
    described = info.splits[split]
    _check_count(folder, split, described)
    images = np.empty((described.num_images, math.prod(info.shape)), np.uint8)
    labels = np.empty(described.num_images, np.int64) if info.classes else None
    row = 0
    for pixels, numbers in read_shards(folder, split):
        images[row : row + len(pixels)] = pixels
        if labels is not None:
            labels[row : row + len(pixels)] = numbers
        row += len(pixels)
    return Split(
        torch.from_numpy(images).view(-1, *info.shape) if row else torch.empty((0, *info.shape), dtype=torch.uint8),
        None if labels is None else torch.from_numpy(labels),
        torch.from_numpy(_read_embeddings(folder, split, row, info.embeddings)) if info.embeddings else None,
    )


def read_shards(folder: Path, split: SplitName) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]]:
    """Iterate over the shards of one split: pixels (N, C*H*W) and labels (N,), which are empty without classes.

    Raises ValueError naming the shard that is missing, damaged or not as the card says.
    """
    info = read_info(folder)
    _check_count(folder, split, info.splits[split])
    for file in info.splits[split].shards:
        pixels, numbers = _read_shard(folder / file, math.prod(info.shape), bool(info.classes))
        yield pixels, numbers


def chosen(total: int, num: int, seed: int) -> "torch.Tensor":
    """The rows (at most `num`,) int64 of images chosen by seed from a split of `total` images."""
    import torch

    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:num]


def read_rows(folder: Path, split: SplitName, rows: "torch.Tensor") -> Split:
    """Read the images of one split at `rows` (N,) int64, in that order. Peak memory is these images and one shard."""
    import torch

    conditions = read_conditions(folder, split).part(rows)
    images = torch.empty((len(rows), *conditions.images.shape[1:]), dtype=torch.uint8)
    start = 0
    for pixels, _ in read_shards(folder, split):
        here = ((rows >= start) & (rows < start + len(pixels))).nonzero()[:, 0]
        images[here] = torch.from_numpy(pixels)[rows[here] - start].view(-1, *images.shape[1:])
        start += len(pixels)
    return Split(images, conditions.labels, conditions.embeddings)


def read_conditions(folder: Path, split: SplitName) -> Split:
    """Read the labels and embeddings of one split, not its images, which may exceed memory: `images` is empty."""
    import torch

    info = read_info(folder)
    described = info.splits[split]
    _check_count(folder, split, described)
    labels = [pq.read_table(folder / file, columns=["label"])["label"] for file in described.shards if info.classes]
    embeddings = _read_embeddings(folder, split, described.num_images, info.embeddings) if info.embeddings else None
    return Split(
        torch.empty((0, *info.shape), dtype=torch.uint8),
        torch.from_numpy(pa.chunked_array(labels, pa.int16()).to_numpy().astype(np.int64)) if info.classes else None,
        None if embeddings is None else torch.from_numpy(embeddings),
    )


def embeddings_file(split: SplitName) -> str:
    """The name of the file that holds a split's embeddings."""
    return f"{split}.embeddings.parquet"


def _read_embeddings(folder: Path, split: SplitName, num: int, info: EmbeddingsInfo) -> npt.NDArray[np.float32]:
    """The embeddings (N, D) of a split."""
    path = folder / embeddings_file(split)
    try:
        column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, though {CARD} describes embeddings; run embed again") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path}: is damaged: {' '.join(str(error).split())}") from None
    if column.type != pa.list_(pa.float32(), info.dims) or len(column) != num:
        raise ValueError(f"{path}: {len(column):,} x {column.type}, {CARD} says {num:,} x {info.dims} float32")
    return column.flatten().to_numpy(zero_copy_only=False, writable=True).reshape(num, info.dims)


def _num_rows(path: Path) -> int:
    with _faults_of(path):
        num: int = pq.read_metadata(path).num_rows
    return num


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Raise ValueError naming the shard that is missing or cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, though {CARD} lists it; run preprocess again or `dvc pull`") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is damaged: {' '.join(str(error).split())}") from None


def _read_shard(path: Path, width: int, has_labels: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    """The pixels (N, width) and labels (N,), empty if there are none, of one shard."""
    with _faults_of(path), pq.ParquetFile(path, page_checksum_verification=True) as shard:
        table, num = shard.read(), shard.metadata.num_rows
    expected = shard_schema(width, has_labels)
    if table.num_rows != num:
        raise ValueError(f"{path}: is damaged: holds {table.num_rows:,} images, its footer says {num:,}")
    if not table.schema.equals(expected):
        raise ValueError(f"{path}: has columns {_columns(table.schema)}, {CARD} says {_columns(expected)}")
    pixels = [_values(chunk, np.uint8, width) for chunk in table["image"].chunks]
    labels = [_values(chunk, np.int16, 1) for chunk in table["label"].chunks] if has_labels else []
    return (
        np.concatenate([np.empty(0, np.uint8), *pixels]).reshape(-1, width),
        np.concatenate([np.empty(0, np.int16), *labels]),
    )


def _values(chunk: pa.Array, kind: type, width: int) -> npt.NDArray[Any]:
    """The values of a column's chunk as a flat array without a copy, `width` of them per row."""
    assert chunk.null_count == 0
    values: npt.NDArray[Any] = np.frombuffer(chunk.buffers()[1], kind)
    return values[chunk.offset * width : (chunk.offset + len(chunk)) * width]


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in schema) or "none"


def shard_schema(width: int, has_labels: bool) -> pa.Schema:
    """The Parquet schema of a shard whose images have `width` bytes."""
    image = pa.field("image", pa.binary(width), nullable=False)
    return pa.schema([image, pa.field("label", pa.int16(), nullable=False)] if has_labels else [image])


# Fingerprints


def image_hash(pixels: bytes) -> int:
    """The SHA-256 of an image's bytes in the order C, H, W, as an integer."""
    return int.from_bytes(hashlib.sha256(pixels).digest(), "big")


def fingerprint(hashes: Iterable[int]) -> str:
    """Order-independent fingerprint of a set of images: the sum of their `image_hash` modulo 2**256, 64 hex digits."""
    return f"{sum(hashes) % 2**256:064x}"


def join_fingerprints(*fingerprints: str) -> str:
    """The fingerprint of the union of several sets of images, from theirs."""
    return fingerprint(int(each, 16) for each in fingerprints)
