"""Preprocess a source's archives into a prepared data set: Parquet shards in three splits, and their card.

Images are streamed; only a row group of each split is in memory. Whether a training image is held out for validation is
decided by a hash of its pixels, so the order does not matter and exact duplicates fall into the same split. Our test
split is exactly the publisher's test images.
"""

import hashlib
import math
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelcnn.data.archives import decode_png
from pixelcnn.data.config import Dataset
from pixelcnn.data.dataset import CARD, DatasetInfo, SplitInfo, SplitName, image_hash, write_info
from pixelcnn.data.provenance import check_counts, is_comparable
from pixelcnn.data.sources import Item, PublishedSplit, Source
from pixelcnn.data.writer import SplitWriter
from pixelcnn.files import read_json
from pixelcnn.progress import progress

BATCH = 256  # images that a worker process is given at a time
IN_PROCESS = 4  # with fewer batches than this no worker is started, which would take longer than decoding them


class Prepared(NamedTuple):
    """An image's bytes in the order C, H, W, its label, its `image_hash`, and whether it is held out for validation."""

    pixels: bytes
    label: int | None
    hash_: int
    held_out: bool


def preprocess(name: str, source: Source, settings: Dataset, archives: Path, out: Path, workers: int) -> DatasetInfo:
    """Write the shards and card of the data set `name` to `out`; the bytes do not depend on the number of `workers`.

    Raises ValueError for archives that are missing or damaged, and for counts that are not the publisher's unless
    `verify` is "any".
    """
    manifest = _read_manifest(archives)
    out.mkdir(parents=True, exist_ok=True)
    for old in [out / CARD, *out.glob("*.parquet"), *out.glob(".*.part")]:
        old.unlink(missing_ok=True)  # the card first: without it the folder is not a data set
    fraction = settings.preprocess.validation_fraction
    train, validation = _write(source, settings, archives, out, workers, "train", ("train", "validation"), fraction)
    (test,) = _write(source, settings, archives, out, workers, "test", ("test",), 0.0)
    splits: dict[SplitName, SplitInfo] = {"train": train.info, "validation": validation.info, "test": test.info}
    if settings.download.verify == "publisher":
        check_counts(source, splits)
    means, deviations = channel_statistics(train.histogram)
    comparable, reason = is_comparable(source, splits, manifest)
    info = DatasetInfo(
        dataset=name,
        source=settings.download.source,
        title=source.title,
        shape=source.shape,
        levels=source.levels,
        classes=source.classes,
        splits=splits,
        channel_means=means,
        channel_deviations=deviations,
        comparable=comparable,
        comparable_reason=reason,
        licence=source.licence,
        citation=source.citation,
        homepage=source.homepage,
    )
    write_info(info, out / CARD)
    return info


def is_held_out(pixels: bytes, seed: int, fraction: float) -> bool:
    """Whether a training image is held out for validation: a pseudo-random function of `seed` and the image alone."""
    digest = hashlib.sha256(seed.to_bytes(8, "little", signed=True) + pixels).digest()
    return int.from_bytes(digest, "big") / 2**256 < fraction


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


# Streaming


def _write(
    source: Source,
    settings: Dataset,
    archives: Path,
    out: Path,
    workers: int,
    published: PublishedSplit,
    names: tuple[SplitName, ...],
    fraction: float,
) -> list[SplitWriter]:
    """Stream a published split into the splits `names`: the images that stay, and the held-out `fraction`."""
    prepare = partial(prepare_batch, shape=source.shape, seed=settings.preprocess.seed, fraction=fraction)
    items = source.read(source, archives, published)
    with ExitStack() as stack:
        bar = stack.enter_context(progress(f"{source.title}, {published}", source.num_images[published], "images"))
        writers = [
            stack.enter_context(
                SplitWriter(out, name, source.shape, bool(source.classes), settings.preprocess.images_per_shard)
            )
            for name in names
        ]
        for batch in _in_order(prepare, _batches(items), workers):
            for image in batch:
                writers[image.held_out].add(image.pixels, image.label, image.hash_)
            bar.update(len(batch))
    for name, writer in zip(names, writers, strict=True):
        if not writer.num_images:
            hint = "; validation_fraction decides how many of the train images it gets" if name == "validation" else ""
            raise ValueError(f"{archives}: no image is left for the {name} split{hint}")
    return writers


def prepare_batch(items: list[Item], shape: tuple[int, int, int], seed: int, fraction: float) -> list[Prepared]:
    """Decode and hash a batch: the slow part, a function of the batch alone, so that processes can share the work."""
    prepared = []
    for name, image, label in items:
        pixels = (decode_png(image, shape, name) if isinstance(image, bytes) else image).tobytes()
        prepared.append(Prepared(pixels, label, image_hash(pixels), is_held_out(pixels, seed, fraction)))
    return prepared


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, BATCH)):
        yield batch


def _in_order(
    work: Callable[[list[Item]], list[Prepared]], batches: Iterator[list[Item]], workers: int
) -> Iterator[list[Prepared]]:
    """`map(work, batches)`, in worker processes where there are many PNGs to decode."""
    head = list(islice(batches, IN_PROCESS))
    if workers == 1 or len(head) < IN_PROCESS or not isinstance(head[0][0][1], bytes):
        yield from map(work, chain(head, batches))
        return
    # spawned, not forked: forking a process that has threads (pyarrow's) is unsafe
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from _windowed(pool, work, chain(head, batches), 2 * workers)


def _windowed(
    pool: ProcessPoolExecutor,
    work: Callable[[list[Item]], list[Prepared]],
    batches: Iterable[list[Item]],
    window: int,
) -> Iterator[list[Prepared]]:
    """The results in the batches' order, with at most `window` batches in flight, which bounds the memory."""
    pending: deque[Future[list[Prepared]]] = deque()
    for batch in batches:
        pending.append(pool.submit(work, batch))
        if len(pending) == window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _read_manifest(archives: Path) -> dict[str, Any]:
    """The manifest that the stage download wrote. Raises ValueError unless its files have the sizes it states."""
    path = archives / "manifest.json"
    again = "run the stage download again"
    manifest = read_json(path, f"{path}: no such file; the stage download makes it", again)
    for file, entry in manifest.items():
        found = (archives / file).stat().st_size if (archives / file).is_file() else "no"
        if found != entry["num_bytes"]:
            raise ValueError(f"{archives / file}: {found} bytes, {path} says {entry['num_bytes']}; {again}")
    return manifest
