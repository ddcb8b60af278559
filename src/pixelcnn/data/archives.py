"""Readers of the publishers' archives: streams of (name, image, label), strict about each format.

Nothing is extracted to disk and no pickle is executed. A ValueError names the archive, the member and what is wrong.
An image is uint8 (C, H, W), or the bytes of a PNG file of that size, which `decode_png` decodes: that is slow, so the
caller may spread it over processes.

Shapes: N rows of a batch, C channels, H rows, W columns.
"""

import gzip
import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pixelcnn.data.decoding import decode, refusing
from pixelcnn.data.members import check_size, tar_members, zip_members
from pixelcnn.data.pickles import load_batch
from pixelcnn.data.sources import Item, PublishedSplit, Source
from pixelcnn.files import excerpt

Image = npt.NDArray[np.uint8]

CIFAR10_BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
IDX_BYTES = 0x800  # the type of idx files of unsigned bytes; the last digit is the number of dimensions
IMAGENET_BATCHES = {"train": tuple(f"train_data_batch_{k}" for k in range(1, 11)), "test": ("val_data",)}


def decode_png(png: bytes, shape: tuple[int, int, int], name: str) -> Image:
    """Decode an 8-bit RGB (or, for C = 1, grey) PNG of this shape to pixels (C, H, W).

    Raises ValueError as `pixelcnn.data.decoding.decode`.
    """
    channels, *size = shape
    pixels = decode(png, name, channels, (size[0], size[1]), formats=("PNG",))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (C, H, W)


def read_cifar10(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """Read CIFAR-10: batches of planar rows, Python 2 pickles in a tar.gz."""
    yield from _batches(source, folder, split, CIFAR10_BATCHES[split], tar_members)


def read_cifar100(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """Read CIFAR-100, laid out as CIFAR-10 with a batch for each split, by its fine labels."""
    yield from _batches(source, folder, split, (split,), tar_members, "fine_labels")


def read_idx(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """Read MNIST's idx format: of each split a gzipped file of images (N, H, W) and one of labels (N,)."""
    images, labels = (folder / archive.file for archive in source.files_in(folder, split))
    most = source.num_images[split]
    data, numbers = _idx(images, 3, most * math.prod(source.shape)), _idx(labels, 1, most)
    yield from labelled_rows(source, str(images), data.reshape(len(data), -1), numbers.astype(np.int64))


def _idx(path: Path, ndim: int, limit: int) -> Image:
    """An array of unsigned bytes with so many dimensions, of at most `limit` elements."""
    with refusing(path, "is not a readable idx file"), gzip.open(path) as file:
        kind, *shape = struct.unpack(f">{ndim + 1}I", file.read(4 * (ndim + 1)))
        if kind != IDX_BYTES | ndim or math.prod(shape) > limit:
            raise ValueError(f"is of type {kind:#x} and shape {tuple(shape)}, expected {IDX_BYTES | ndim:#x}")
        content = file.read(math.prod(shape) + 1)
        if len(content) != math.prod(shape):
            raise ValueError(f"the bytes of its shape {tuple(shape)} are not all there, or not alone")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_downsampled_imagenet(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """Read ImageNet of 2017: batches of planar rows, pickles or npz files in zips.

    One batch is in memory at a time, about 128,000 images.
    """
    yield from _batches(source, folder, split, IMAGENET_BATCHES[split], zip_members)


def read_numbered_pngs(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """Read ImageNet of 2016: PNG files in a tar, without labels, and nothing else."""
    limit = 2 * math.prod(source.shape) + 2**16  # noise does not compress; the rest is for metadata
    for archive in source.files_in(folder, split):
        path = folder / archive.file
        for name, stream in tar_members(path, limit):
            where = f"{path}: {name}"
            if not name.lower().endswith(".png"):
                raise ValueError(f"{where}: does not end in .png; this format holds images and nothing else")
            with refusing(where, "cannot be read"):
                png = stream.read()
            yield where, png, None


def _batch_limit(source: Source, split: PublishedSplit, num_batches: int) -> int:
    """An upper bound on a batch's bytes: an equal share of the split, 1,000 bytes a row for labels and names, 1 MiB."""
    rows = math.ceil(source.num_images[split] / num_batches)
    return rows * (math.prod(source.shape) + 1000) + 2**20


def _batches(
    source: Source,
    folder: Path,
    split: PublishedSplit,
    wanted: tuple[str, ...],
    members: Callable[[Path, int], Iterator[tuple[str, IO[bytes]]]],
    labels: str = "labels",
) -> Iterator[Item]:
    """The rows of the `wanted` batches, each of which must occur exactly once in the split's archives."""
    archives, limit = source.files_in(folder, split), _batch_limit(source, split, len(wanted))
    seen: set[str] = set()
    for archive in archives:
        path = folder / archive.file
        for name, stream in members(path, limit):
            batch, suffix = PurePosixPath(name).name.removesuffix(".npz"), PurePosixPath(name).suffix
            if batch not in wanted:
                continue
            where = f"{path}: {name}"
            if batch in seen:
                raise ValueError(f"{where}: the batch {batch} is there twice")
            seen.add(batch)
            read = _read_npz if suffix == ".npz" else _read_pickle
            content = read(stream, where, limit, ("data", labels))
            yield from labelled_rows(source, where, content["data"], content[labels])
            del content  # frees the memory before the next batch is read
    if missing := [batch for batch in wanted if batch not in seen]:
        paths = ", ".join(str(folder / archive.file) for archive in archives)
        raise ValueError(f"{paths}: lacks {', '.join(missing)}")


def labelled_rows(source: Source, where: str, data: Any, labels: Any) -> Iterator[Item]:
    """The images and labels of planar rows (N, C*H*W). Raises ValueError where they are not what the source says."""
    width = math.prod(source.shape)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != width:
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{where}: data is {found}, expected uint8 of shape (N, {width})")
    for row, (pixels, label) in enumerate(zip(data, _labels(source, where, labels, len(data)), strict=True)):
        yield f"{where}[{row}]", pixels.reshape(source.shape), label


def _labels(source: Source, where: str, labels: Any, num_rows: int) -> list[int]:
    """The labels of a batch, counted from 0."""
    first, last = source.first_label, source.first_label + len(source.classes) - 1
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(values, list) or len(values) != num_rows:
        found = f"{len(values):,}" if isinstance(values, list) else type(values).__name__
        raise ValueError(f"{where}: labels: {found} for {num_rows:,} rows of data")
    for row, label in enumerate(values):
        if not isinstance(label, int) or not first <= label <= last:
            found = repr(label) if isinstance(label, int | str | bytes) else f"a {type(label).__name__}"
            raise ValueError(f"{where}[{row}]: label {excerpt(found)} is not one of {first} to {last}")
    return [label - first for label in values]


def _read_npz(stream: IO[bytes], where: str, limit: int, keys: tuple[str, ...]) -> dict[str, Any]:
    with refusing(where, "is not a readable npz file"):
        content = io.BytesIO(stream.read())
        with zipfile.ZipFile(content) as members:
            sizes = {info.filename: info.file_size for info in members.infolist()}
    for name, size in sizes.items():
        check_size(f"{where}: {name}", size, limit)
    with refusing(where, "is not a readable npz file"), np.load(content, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in keys}


def _read_pickle(stream: IO[bytes], where: str, limit: int, keys: tuple[str, ...]) -> dict[str, Any]:
    with refusing(where, "is not a pickled batch"):
        batch = load_batch(stream.read(), limit)
        return {key: batch[key] for key in keys}
