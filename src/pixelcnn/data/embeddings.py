"""Embeddings of a prepared data set's images, by a classifier or from the user's file, written as a data set again.

Shapes: N images, D dimensions of an embedding.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixelcnn.config import MAX_DIMS
from pixelcnn.data.config import Classifier, EmbeddingsFile
from pixelcnn.data.dataset import (
    CARD,
    SPLITS,
    DatasetInfo,
    EmbeddingsInfo,
    SplitName,
    embeddings_file,
    read_split,
    write_info,
)
from pixelcnn.files import atomic, excerpt, sha256_of
from pixelcnn.progress import progress

if TYPE_CHECKING:
    from pixelcnn.data.embedder import Embedder

Vectors = dict[SplitName, npt.NDArray[np.float32]]  # (N, D) of each split
COLUMNS = ("split", "image", "embedding")


def from_classifier(
    settings: Classifier, info: DatasetInfo, data: Path
) -> tuple["Embedder", Vectors, dict[str, float]]:
    """Embed all splits by a network trained on the train split: it, the embeddings, its accuracy on the test split."""
    import torch

    from pixelcnn.data.embedder import train_classifier

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = {name: read_split(data, name) for name in SPLITS}
    embedder = train_classifier(settings, info, splits["train"], device)
    with progress("embeddings", sum(len(split.images) for split in splits.values()), "images") as bar:
        vectors = {name: embedder(split.images, bar.update) for name, split in splits.items()}
    labels = splits["test"].labels
    assert labels is not None
    report = {"test_accuracy": embedder.accuracy(vectors["test"], labels)}
    return embedder, {name: v.numpy() for name, v in vectors.items()}, report


def from_file(settings: EmbeddingsFile, info: DatasetInfo) -> Vectors:
    """Read the embeddings of all splits from the user's Parquet file, in the order of the prepared images.

    Raises ValueError for a file whose hash is not `sha256`, that lacks a column or does not name every image once.
    """
    path = Path(settings.path).expanduser()
    if not path.is_file():
        raise ValueError(f"embeddings: path: {path}: no such file")
    if (found := sha256_of(path)) != settings.sha256:
        raise ValueError(f"embeddings: sha256: {settings.sha256} is not that of {path}, which is {found}")
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: is not a Parquet file: {' '.join(str(error).split())}") from None
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}: its columns are split, image (row there) and embedding")
    vectors = {name: _of_split(table, name, info.splits[name].num_images, path) for name in SPLITS}
    dims = {len(rows[0]) for rows in vectors.values()}
    if len(dims) > 1 or not 1 <= min(dims) <= MAX_DIMS:
        found = " and ".join(map(str, sorted(dims)))
        raise ValueError(f"{path}: embeddings of {found} numbers; all have one of 1 ... {MAX_DIMS:,}")
    return vectors


def _of_split(table: pa.Table, name: SplitName, num: int, path: Path) -> npt.NDArray[np.float32]:
    """The embeddings (N, D) of one split's `num` images, sorted by image."""
    try:
        rows = table.filter(pa.compute.equal(table["split"], name))
        images, lists = rows["image"].to_numpy(), np.asarray(rows["embedding"].to_pylist(), np.float32)
        if lists.ndim != 2:
            raise ValueError(f"{lists.ndim - 1} axes")
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: split {name}: columns are not split (text), image (number) and embedding (lists of one length): "
            f"{excerpt(str(error))}"
        ) from None
    if not np.array_equal(np.sort(images), np.arange(num)):
        raise ValueError(
            f"{path}: split {name}: {len(images):,} rows, which are not images 0 ... {num - 1:,} once each"
        )
    if not np.isfinite(lists).all():
        raise ValueError(f"{path}: split {name}: embeddings contain non-finite numbers")
    return lists[np.argsort(images)]


def write(vectors: Vectors, info: DatasetInfo, data: Path, out: Path, origin: str) -> EmbeddingsInfo:
    """Write a data set with embeddings: the shards of `data` (hard links where possible), embeddings, and the card."""
    out.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, rows in vectors.items():
        for shard in info.splits[name].shards:
            _link(data / shard, out / shard)
        flat = pa.array(np.ascontiguousarray(rows, np.float32).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
        with atomic(out / embeddings_file(name)) as file:
            pq.write_table(pa.table({"embedding": column}), file)
        digest.update(rows.astype("<f4").tobytes())
    embeddings = EmbeddingsInfo(dims=vectors["train"].shape[1], origin=origin, sha256=digest.hexdigest())
    write_info(info.model_copy(update={"embeddings": embeddings}), out / CARD)
    return embeddings


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
