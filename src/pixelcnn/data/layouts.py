"""How a user's images lie on the disk, and so which image belongs to which split and class.

    folder, tar, zip   [train/ test/ valid/] [CLASS/] IMAGE, as torchvision's ImageFolder reads it
    .npz, .npy         arrays uint8 (N, H, W, C), (N, C, H, W) or (N, H, W); labels and splits by the arrays' names
    .parquet           or a folder of them, as Hugging Face writes it: a column of {bytes, path}, a column of labels

Without train/ and test/ the images are cut into splits later, by a hash. What is no image is left out and counted.
No pixel is decoded here. Shapes: N images, C channels, H rows, W columns.
"""

import json
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixelcnn.data.class_names import unique
from pixelcnn.data.dataset import SplitName
from pixelcnn.data.decoding import MAX_BYTES, SUFFIXES, refusing
from pixelcnn.data.members import tar_members, zip_members
from pixelcnn.files import excerpt

SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train", "test": "test", "valid": "validation", "val": "validation",
    "validation": "validation",
}  # fmt: skip
KINDS = "a folder, .npz, .npy, .parquet, .tar, .tar.gz or .zip"
JUNK = ("thumbs.db", "desktop.ini", "__macosx")  # of other systems; so are names that begin with a dot
LABELS = ("label", "labels", "y", "fine_label", "fine_labels")  # arrays and columns
PIECE = 2**20  # bytes of an array that are read at a time, or one image
ROWS = 8  # of a Parquet file at a time, each of which may stand for an image of MAX_BYTES
MAX_CLASSES = 2**15  # labels are int16
MAX_IMAGES = 2**25  # of an array or a Parquet file, of which a few bytes may claim any number


class Found(NamedTuple):
    """An image: its place for messages, its file, its content or its pixels (H, W, C), its split and its label."""

    where: str
    image: "Path | bytes | npt.NDArray[np.uint8]"
    split: SplitName | None
    label: int | None


@dataclass(frozen=True)
class Layout:
    """A user's images: `read` streams the `num_images` in a fixed order. `left_out` counts what is no image."""

    num_images: int
    classes: tuple[str, ...]
    read: Callable[[], Iterator[Found]]
    left_out: Counter[str] = field(default_factory=Counter)
    are_files: bool = True  # not arrays, whose levels may be fewer


def find(path: Path, with_labels: bool) -> Layout:
    """The images that lie at a path. Raises ValueError for what is none of KINDS, holds none, or mixes layouts."""
    suffix = path.suffix.lower()
    if path.is_dir():
        layout = _folder(path, with_labels)
    elif not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    elif suffix == ".parquet":
        layout = _parquet(path, [path], with_labels)
    elif suffix == ".npy":
        layout = _arrays(path, [path.stem], with_labels)
    elif suffix == ".npz":
        with refusing(path, "is not a readable npz file"), zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        layout = _arrays(path, names, with_labels)
    elif suffix == ".zip" or path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        layout = _archive(path, zip_members if suffix == ".zip" else tar_members, with_labels)
    else:
        raise ValueError(f"{path}: is none of {KINDS}")
    if not layout.num_images:
        left_out = f"; left out: {counted(layout.left_out)}" if layout.left_out else ""
        raise ValueError(f"{path}: holds no image ({', '.join(SUFFIXES)}){left_out}")
    return layout


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, and not of what other systems leave beside images."""
    return not _is_junk(name) and PurePosixPath(name).suffix.lower() in SUFFIXES


def counted(counts: Counter[str]) -> str:
    """Counts in words: "3 .txt, 1 .mp4"."""
    return ", ".join(f"{num:,} {excerpt(what)}" for what, num in counts.most_common())


# Trees of image files: folders, tar and zip archives


def _is_junk(name: str) -> bool:
    return any(part.startswith(".") or part.casefold() in JUNK for part in PurePosixPath(name).parts)


def _folder(path: Path, with_labels: bool) -> Layout:
    names, links = [], 0
    for folder, folders, files in os.walk(path):
        links += sum(Path(folder, each).is_symlink() for each in folders)  # not followed: they may lead in a circle
        names += [str(Path(folder, file).relative_to(path)) for file in files]
    names.sort()
    parquets = [name for name in names if name.lower().endswith(".parquet") and not _is_junk(name)]
    if parquets and not any(map(is_image, names)):
        return _parquet(path, [path / name for name in parquets], with_labels)
    planned, classes, left_out = _plan(path, names, with_labels)
    if links:
        left_out["linked folder(s)"] = links

    def read() -> Iterator[Found]:
        for name, (split, label) in planned.items():
            yield Found(str(path / name), path / name, split, label)

    return Layout(len(planned), classes, read, left_out)


def _archive(path: Path, members: Callable[[Path, int], Iterator[tuple[str, IO[bytes]]]], with_labels: bool) -> Layout:
    names = [name for name, _ in members(path, MAX_BYTES)]
    if twice := [name for name, num in Counter(names).items() if num > 1]:
        raise ValueError(f"{path}: {excerpt(twice[0])} is there twice")
    planned, classes, left_out = _plan(path, names, with_labels, is_archive=True)

    def read() -> Iterator[Found]:
        for name, stream in members(path, MAX_BYTES):
            if (place := planned.get(name)) is not None:
                with refusing(f"{path}: {name}", "cannot be read"):
                    content = stream.read()
                yield Found(f"{path}: {name}", content, *place)

    return Layout(len(planned), classes, read, left_out)


def _plan(
    path: Path, names: list[str], with_labels: bool, is_archive: bool = False
) -> tuple[dict[str, tuple[SplitName | None, int | None]], tuple[str, ...], Counter[str]]:
    """The split and label of each image by its name, the classes, and what is left out.

    The one folder that holds all that is in an archive is the archive's name again, and no class.
    """
    left_out = Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in names if _is_foreign(name))
    parts = {name: PurePosixPath(name).parts for name in names if is_image(name)}
    tops = {each[0].casefold() if len(each) > 1 else "" for each in parts.values()}
    if is_archive and len(tops) == 1 and not tops & {"", *SPLITS}:
        parts = {name: each[1:] for name, each in parts.items()}
        tops = {each[0].casefold() if len(each) > 1 else "" for each in parts.values()}
    has_splits = bool(tops & {"train", "training"})
    if not has_splits and "test" in tops:
        raise ValueError(f"{path}: has test/ but no train/")
    places: dict[str, tuple[SplitName | None, str | None]] = {}
    for name, each in parts.items():
        split = SPLITS.get(each[0].casefold()) if has_splits else None
        if has_splits and (split is None or len(each) == 1):
            raise ValueError(
                f"{path}: {excerpt(name)} is beside train/ but is not the name of a split (train, valid, test)"
            )
        folders = each[has_splits:-1]
        places[name] = (split, folders[0] if folders and with_labels else None)
    classes = sorted({label for _, label in places.values() if label is not None})
    bare = [name for name, (_, label) in places.items() if label is None]
    if classes and bare:
        raise ValueError(
            f"{path}: {excerpt(bare[0])}{' and others' if len(bare) > 1 else ''} are not in a class folder such as "
            f"{excerpt(classes[0])}; `labels: none` reads all images without classes"
        )
    numbers = {name: n for n, name in enumerate(classes)}
    planned = {name: (split, None if label is None else numbers[label]) for name, (split, label) in places.items()}
    return planned, unique(classes, str(path)), left_out


def _is_foreign(name: str) -> bool:
    return not is_image(name) and not _is_junk(name)


# Arrays: .npy files and the members of .npz files, read row by row


class _Array(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _arrays(path: Path, names: list[str], with_labels: bool) -> Layout:
    found = [_array_header(path, name) for name in names]
    images = {_split_of(each.name): each for each in found if len(each.shape) >= 3}
    if not images or len(images) < sum(len(each.shape) >= 3 for each in found):
        listed = ", ".join(f"{excerpt(each.name)} {each.dtype} {each.shape}" for each in found) or "nothing"
        raise ValueError(f"{path}: holds {listed}; expected one array uint8 (N, H, W, C) or (N, C, H, W) a split")
    if (None in images and len(images) > 1) or (None not in images and "train" not in images):
        raise ValueError(f"{path}: {', '.join(each.name for each in images.values())}: which of them is train?")
    for each in images.values():
        _check_array(path, each)
    labels = {}
    for each in found:
        split, is_label = _split_of(each.name), _words(each.name) & set(LABELS)
        if with_labels and is_label and len(each.shape) < 3 and split in images:
            if split in labels:
                raise ValueError(f"{path}: {excerpt(each.name)} is a second array of labels; `labels: none` reads none")
            labels[split] = _array_labels(path, each, images[split])
    if labels and set(labels) != set(images):
        raise ValueError(f"{path}: has labels of some splits and not of others; `labels: none` reads none")
    classes, numbered = _numbered({split: list(values) for split, values in labels.items()}, None, str(path))

    def read() -> Iterator[Found]:
        for split, array in images.items():
            ours = numbered.get(split)
            for row, pixels in enumerate(_rows(path, array)):  # (H, W, C)
                label = None if ours is None else ours[row]
                yield Found(f"{path}: {array.name}[{row}]", pixels, split, label)

    return Layout(sum(each.shape[0] for each in images.values()), classes, read, are_files=False)


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower())) | {name.lower()}


def _split_of(name: str) -> SplitName | None:
    return next((SPLITS[word] for word in sorted(_words(name)) if word in SPLITS), None)


def _open_array(path: Path, name: str) -> Any:
    """A binary stream of an array in numpy's format."""
    return path.open("rb") if path.suffix.lower() == ".npy" else zipfile.ZipFile(path).open(f"{name}.npy")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _array_header(path: Path, name: str) -> _Array:
    with refusing(f"{path}: {excerpt(name)}", "is not an array of numpy"), _open_array(path, name) as stream:
        shape, is_fortran, dtype = _header(stream)
        if is_fortran and len(shape) > 1:
            raise ValueError("is in Fortran's order; save np.ascontiguousarray of it")
        if dtype.hasobject:
            raise ValueError("holds Python objects, which are not read")
    return _Array(name, shape, dtype)


def _check_array(path: Path, array: _Array) -> None:
    """Raise ValueError for an array that is not one of images."""
    where = f"{path}: {excerpt(array.name)}"
    if array.dtype not in (np.dtype(np.uint8), np.dtype(bool)):
        raise ValueError(
            f"{where}: is {array.dtype} {array.shape}, expected uint8 with 0 ... 255"
            + ("; of values in [0, 1] save (255 * x).round().astype('uint8')" if array.dtype.kind == "f" else "")
        )
    if (
        len(array.shape) not in (3, 4)
        or min(array.shape[1:]) < 1
        or (len(array.shape) == 4 and not _channel_axis(array))
    ):
        raise ValueError(
            f"{where}: is {array.shape}: which axis is that of the channels, 1, 3 or 4? Expected "
            "(N, H, W, C), (N, C, H, W) or (N, H, W)"
        )
    if math.prod(array.shape[1:]) > MAX_BYTES:
        raise ValueError(
            f"{where}: is {array.shape}: images of {math.prod(array.shape[1:]):,} bytes, at most {MAX_BYTES:,}"
        )
    _check_number(where, array.shape[0])


def _check_number(where: str | Path, num: int) -> None:
    if num > MAX_IMAGES:
        raise ValueError(f"{where}: holds {num:,} images, at most {MAX_IMAGES:,} are read")


def _channel_axis(array: _Array) -> int | None:
    """Which axis of (N, H, W, C) or (N, C, H, W) is C: the one of 1 or 3, or else of 4; None where both may be."""
    for channels in ((1, 3), (4,)):
        axes = [axis for axis in (1, 3) if array.shape[axis] in channels]
        if axes:
            return axes[0] if len(axes) == 1 else None
    return None


def _rows(path: Path, array: _Array) -> Iterator[npt.NDArray[np.uint8]]:
    """The images (H, W, C) of an array, some read at a time, whatever its size."""
    width = math.prod(array.shape[1:])
    order = (0, 2, 3, 1) if len(array.shape) == 4 and _channel_axis(array) == 1 else None
    with refusing(f"{path}: {excerpt(array.name)}", "cannot be read"), _open_array(path, array.name) as stream:
        _header(stream)
        rows = max(1, PIECE // width)
        for start in range(0, array.shape[0], rows):
            num = min(rows, array.shape[0] - start)
            content = stream.read(num * width)
            if len(content) < num * width:
                raise ValueError(f"ends after image {start + len(content) // width:,} of {array.shape[0]:,}")
            images = np.frombuffer(content, np.uint8).reshape(num, *array.shape[1:])
            yield from images[..., None] if images.ndim == 3 else images if order is None else images.transpose(order)


def _array_labels(path: Path, array: _Array, images: _Array) -> list[int]:
    where = f"{path}: {excerpt(array.name)}"
    num = images.shape[0]
    if array.shape not in ((num,), (num, 1)) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: is {array.dtype} {array.shape}, expected an integer for each of the {num:,} images "
            f"of {excerpt(images.name)}; `labels: none` reads none"
        )
    with refusing(where, "cannot be read"), _open_array(path, array.name) as stream:
        _header(stream)
        content = stream.read(num * array.dtype.itemsize)
        if len(content) < num * array.dtype.itemsize:
            raise ValueError(f"ends after label {len(content) // array.dtype.itemsize:,} of {num:,}")
        return [int(each) for each in np.frombuffer(content, array.dtype)]


def _numbered(
    labels: dict[Any, list[Any]], names: list[str] | None, where: str
) -> tuple[tuple[str, ...], dict[Any, list[int]]]:
    """Classes, and the labels of each split as numbers from 0: of `names`, or of the values that occur, sorted."""
    values = sorted({value for of_split in labels.values() for value in of_split})
    if names is not None:
        if any(not isinstance(value, int) or not 0 <= value < len(names) for value in values):
            raise ValueError(f"{where}: a label that is none of the {len(names)} classes, or missing")
        return unique(names, where), labels
    if len(values) > MAX_CLASSES:
        raise ValueError(f"{where}: {len(values):,} labels, at most {MAX_CLASSES:,}; `labels: none` reads none")
    numbers = {value: n for n, value in enumerate(values)}
    numbered = {split: [numbers[value] for value in of_split] for split, of_split in labels.items()}
    return unique([str(value) for value in values], where), numbered


# Parquet files as Hugging Face writes them


def _parquet(path: Path, files: list[Path], with_labels: bool) -> Layout:
    schemas = {}
    for file in files:
        with refusing(file, "is not a readable Parquet file"):
            schemas[file] = pq.read_schema(file)
    first = schemas[files[0]]
    image = _image_column(path, first)
    label = _label_column(first) if with_labels else None
    for file, schema in schemas.items():
        for column in filter(None, (image, label)):
            if column not in schema.names:
                raise ValueError(f"{file}: lacks the column {column} of {files[0]}")
            kind, wanted = schema.field(column).type, first.field(column).type
            if _kind(kind) != _kind(wanted):
                raise ValueError(f"{file}: {column} is {excerpt(str(kind))}, and in {files[0]} {excerpt(str(wanted))}")
    splits = {file: _parquet_split(file.relative_to(path) if file != path else Path(file.name)) for file in files}
    if len(set(splits.values())) > 1 and (None in splits.values() or "train" not in splits.values()):
        raise ValueError(f"{path}: which of its files are train? Name them train-*.parquet, test-*.parquet")
    if set(splits.values()) in ({"test"}, {"validation"}, {"train"}):
        splits = dict.fromkeys(files)
    num = sum(pq.read_metadata(file).num_rows for file in files)
    _check_number(path, num)
    labels: dict[Any, list[Any]] = {}
    if label is not None:
        for file in files:
            with refusing(file, "cannot be read"):
                labels[file] = pq.read_table(file, columns=[label])[label].to_pylist()
            if None in labels[file]:
                raise ValueError(f"{file}: {label}: a row has none; `labels: none` reads none")
    classes, numbered = _numbered(labels, _names_of_hugging_face(first, label), str(path))

    def read() -> Iterator[Found]:
        for file in files:
            for row, content in enumerate(_parquet_images(file, image)):
                ours = numbered[file][row] if file in numbered else None
                yield Found(f"{file}: row {row}", content, splits[file], ours)

    return Layout(num, classes, read)


def _parquet_split(name: Path) -> SplitName | None:
    """The split of a file by its name ("train-00000-of-00001.parquet") or its folder ("test/0000.parquet")."""
    parts = [*name.parts[:-1], re.split(r"[-_.]", name.name)[0]]
    return next((SPLITS[part.casefold()] for part in reversed(parts) if part.casefold() in SPLITS), None)


def _image_column(path: Path, schema: pa.Schema) -> str:
    found = [column.name for column in schema if _holds_files(column.type)]
    if len(found) != 1:
        listed = ", ".join(f"{excerpt(column.name)} ({excerpt(str(column.type))})" for column in schema)
        raise ValueError(f"{path}: has columns {listed}; expected one of images, {{bytes, path}} or binary")
    return str(found[0])


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(each.name == "bytes" and pa.types.is_binary(each.type) for each in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _kind(kind: pa.DataType) -> str:
    """What is read of a column of this type: images, whole numbers or texts; else its own name."""
    if _holds_files(kind):
        return "images"
    return "number" if pa.types.is_integer(kind) else "text" if pa.types.is_string(kind) else str(kind)


def _label_column(schema: pa.Schema) -> str | None:
    simple = {each.name for each in schema if _kind(each.type) in ("number", "text")}
    return next((name for name in LABELS if name in simple), None)


def _names_of_hugging_face(schema: pa.Schema, label: str | None) -> list[str] | None:
    """The names of a ClassLabel, from the metadata that Hugging Face's `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _parquet_images(file: Path, column: str) -> Iterator[bytes]:
    with refusing(file, "cannot be read"), pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS, columns=[column]):
            for value in batch.column(0):
                content = value.as_py()
                content = content.get("bytes") if isinstance(content, dict) else content
                if not content:
                    raise ValueError("a row holds the path of an image and not the image itself")
                if len(content) > MAX_BYTES:
                    raise ValueError(f"a row holds {len(content):,} bytes, at most {MAX_BYTES:,} are read")
                yield content
