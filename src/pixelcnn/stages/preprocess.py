"""The stage preprocess@NAME: from the publisher's archives to Parquet shards in three splits, and their card.

Images stream through: none is held longer than its row group takes to fill. Whether a training image is held out for
validation is decided by a hash of its pixels, so the order does not matter and exact duplicates stay together. The
publisher's test images are our test images, all of them, and nothing else is.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
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

from pixelcnn import config
from pixelcnn.data.archives import Item, decode_png, read_images
from pixelcnn.data.dataset import CARD, Card, SplitCard, SplitName, image_hash, write_card
from pixelcnn.data.provenance import check_counts, is_comparable
from pixelcnn.data.sources import SOURCES, PublishedSplit, Source
from pixelcnn.data.writer import SplitWriter
from pixelcnn.progress import progress
from pixelcnn.stages import run

BATCH = 256  # images that a process is given at a time
IN_PROCESS = 4  # batches that are decoded here: starting processes takes longer


class Prepared(NamedTuple):
    """An image's bytes in the order C, H, W, its label, and its `image_hash`; `held_out` for validation."""

    pixels: bytes
    label: int | None
    hash_: int
    held_out: bool


def main() -> None:
    """Prepare one entry of params.yaml's `datasets`."""
    parser = argparse.ArgumentParser(description="Parquet shards of uint8 images, splits and a card of one data set")
    parser.add_argument("name", help="an entry of `datasets` in params.yaml")
    parser.add_argument("--archives", type=Path, required=True, help="folder that the stage download filled")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards and card.json")
    parser.add_argument("--report", type=Path, required=True, help="the card once more, for the report")
    arguments = parser.parse_args()
    datasets = config.load(Path("params.yaml")).datasets
    if arguments.name not in datasets:
        raise ValueError(f"params.yaml: datasets: {arguments.name!r} is not one of {', '.join(datasets)}")
    settings = datasets[arguments.name]
    card = preprocess(
        arguments.name,
        SOURCES[settings.download.source],
        settings,
        arguments.archives,
        arguments.out,
        workers=os.cpu_count() or 1,
    )
    write_card(card, arguments.report)


def preprocess(name: str, source: Source, settings: config.Dataset, archives: Path, out: Path, workers: int) -> Card:
    """Fill `out` with the shards and card of the data set `name`; the number of `workers` changes no byte of them.

    Raises ValueError for archives that are missing or damaged, and for counts that are not the publisher's unless
    `verify` is "any".
    """
    manifest = _read_manifest(archives)
    out.mkdir(parents=True, exist_ok=True)
    for old in [out / CARD, *out.glob("*.parquet"), *out.glob("*.parquet.tmp")]:
        old.unlink(missing_ok=True)  # the card first: without it nothing here passes for a data set
    fraction = settings.preprocess.validation_fraction
    train, validation = _write(source, settings, archives, out, workers, "train", ("train", "validation"), fraction)
    (test,) = _write(source, settings, archives, out, workers, "test", ("test",), 0.0)
    splits: dict[SplitName, SplitCard] = {"train": train.card, "validation": validation.card, "test": test.card}
    if settings.download.verify == "publisher":
        check_counts(source, splits)
    means, deviations = channel_statistics(train.histogram)
    comparable, reason = is_comparable(source, splits, manifest)
    card = Card(
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
    write_card(card, out / CARD)
    return card


def is_held_out(pixels: bytes, seed: int, fraction: float) -> bool:
    """Whether a training image is for validation: a draw that depends on `seed` and the image alone."""
    digest = hashlib.sha256(seed.to_bytes(8, "little", signed=True) + pixels).digest()
    return int.from_bytes(digest, "big") / 2**256 < fraction


def channel_statistics(histogram: npt.NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel from its histogram (C, values); exact sums, so order is no matter."""
    values = np.arange(histogram.shape[1])
    count = [int(n) for n in histogram.sum(1)]
    means = [int(total) / n for total, n in zip(histogram @ values, count, strict=True)]
    squares = [int(total) / n for total, n in zip(histogram @ values**2, count, strict=True)]
    deviations = [math.sqrt(max(square - mean**2, 0)) for square, mean in zip(squares, means, strict=True)]
    return tuple(means), tuple(deviations)


# Streaming


def _write(
    source: Source,
    settings: config.Dataset,
    archives: Path,
    out: Path,
    workers: int,
    published: PublishedSplit,
    names: tuple[SplitName, ...],
    fraction: float,
) -> list[SplitWriter]:
    """Stream the publisher's split into the splits `names`: what is kept, and the held-out `fraction`."""
    prepare = partial(prepare_batch, shape=source.shape, seed=settings.preprocess.seed, fraction=fraction)
    items = read_images(source, archives, published)
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
    if not writers[0].num_images:
        raise ValueError(f"{archives}: no image is left for the {names[0]} split")
    return writers


def prepare_batch(items: list[Item], shape: tuple[int, int, int], seed: int, fraction: float) -> list[Prepared]:
    """The slow part of the work: decode, hash, draw. A function of a batch alone, so processes may share it out."""
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
    """`map(work, batches)`, shared out to processes where PNGs in number are to be decoded."""
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
    ahead: int,
) -> Iterator[list[Prepared]]:
    """The results in the batches' order, with at most `ahead` batches under way: that bounds the memory."""
    waiting: deque[Future[list[Prepared]]] = deque()
    for batch in batches:
        waiting.append(pool.submit(work, batch))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_manifest(archives: Path) -> dict[str, Any]:
    """The manifest that download wrote, once its files are there in the length it says."""
    path = archives / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; the stage download makes it") from None
    except ValueError as error:
        raise ValueError(f"{path}: is damaged: {error}; run the stage download again") from None
    for file, entry in manifest.items():
        found = (archives / file).stat().st_size if (archives / file).is_file() else "no"
        if found != entry["num_bytes"]:
            raise ValueError(
                f"{archives / file}: {found} bytes, {path} says {entry['num_bytes']}; run the stage download again"
            )
    return manifest


if __name__ == "__main__":
    run(main)
