"""Write prepared splits: images one by one into Parquet shards (pixelcnn.data.dataset reads them)."""

import hashlib
import math
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixelcnn.data.dataset import CARD, SplitInfo, SplitName, fingerprint, shard_schema
from pixelcnn.files import atomic

ROWS_PER_GROUP = 256  # images that a writer holds in memory


class SplitWriter:
    """Writes the shards of one split, image by image; memory is that of one row group.

    Each shard is written atomically. The same images in the same order give the same bytes. After `close` (or the end
    of `with`), `info` describes the split. An exception inside `with` discards the unfinished shard.
    """

    def __init__(
        self, folder: Path, split: SplitName, shape: tuple[int, int, int], has_labels: bool, images_per_shard: int
    ) -> None:
        self._folder, self._split, self._images_per_shard = folder, split, images_per_shard
        self._channels, self._width = shape[0], math.prod(shape)
        self._schema = shard_schema(self._width, has_labels)
        self._pixels: list[bytes] = []
        self._labels: list[int | None] = []
        self._shard: pq.ParquetWriter | None = None
        self._open = ExitStack()  # closes the Parquet writer, then the atomic file under it
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
    def info(self) -> SplitInfo:
        """Number, fingerprint and files of the images written so far."""
        return SplitInfo(
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
        else:
            self._open.__exit__(kind, error, trace)

    def _write_group(self) -> None:
        if self._shard is None:
            self._shard = self._open_shard()
        joined = b"".join(self._pixels)
        images = pa.Array.from_buffers(pa.binary(self._width), len(self._pixels), [None, pa.py_buffer(joined)])
        columns = [images] + ([pa.array(self._labels, pa.int16())] if len(self._schema) == 2 else [])
        self._shard.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._count(np.frombuffer(joined, np.uint8).reshape(len(self._pixels), self._channels, -1))  # (N, C, H*W)
        self._pixels, self._labels = [], []

    def _open_shard(self) -> pq.ParquetWriter:
        file = self._open.enter_context(atomic(self._folder / self._file))
        writer = pq.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
        return self._open.enter_context(writer)

    def _count(self, images: npt.NDArray[np.uint8]) -> None:
        for channel in range(self._channels):
            self.histogram[channel] += np.bincount(images[:, channel].ravel(), minlength=256)

    def _end_shard(self) -> None:
        if self._pixels:
            self._write_group()
        self._open.close()
        self._shards.append(self._file)
        self._shard, self._rows_in_shard = None, 0

    @property
    def _file(self) -> str:
        return f"{self._split}-{len(self._shards):05d}.parquet"


def start_over(out: Path) -> None:
    """Make the folder of a prepared data set, without what an earlier preparation has left in it."""
    out.mkdir(parents=True, exist_ok=True)
    for old in [out / CARD, *out.glob("*.parquet"), *out.glob(".*.part")]:
        old.unlink(missing_ok=True)  # the card first: without it the folder is not a data set


def uniform(pixels: bytes, seed: int) -> float:
    """A number of [0, 1) that decides an image's split: a pseudo-random function of `seed` and the image alone."""
    digest = hashlib.sha256(seed.to_bytes(8, "little", signed=True) + pixels).digest()
    return int.from_bytes(digest, "big") / 2**256


def channel_statistics(histogram: npt.NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel from its histogram (C, values). Sums of integers are exact, so the
    order of the images does not matter.
    """
    values = np.arange(histogram.shape[1])
    count = [int(n) for n in histogram.sum(1)]
    means = [int(total) / n for total, n in zip(histogram @ values, count, strict=True)]
    squares = [int(total) / n for total, n in zip(histogram @ values**2, count, strict=True)]
    deviations = [math.sqrt(max(square - mean**2, 0)) for square, mean in zip(squares, means, strict=True)]
    return tuple(means), tuple(deviations)
