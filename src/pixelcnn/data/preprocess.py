"""Preprocess a source's archives into a prepared data set: Parquet shards in three splits, and their card.

Images are streamed; only a row group of each split is in memory. Whether a training image is held out for validation is
decided by a hash of its pixels, so the order does not matter and exact duplicates fall into the same split. Our test
split is exactly the publisher's test images.
"""

from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pixelcnn.data.archives import decode_png
from pixelcnn.data.class_names import named
from pixelcnn.data.config import Dataset
from pixelcnn.data.dataset import CARD, DatasetInfo, SplitInfo, SplitName, image_hash, write_info
from pixelcnn.data.parallel import in_batches, map_in_order
from pixelcnn.data.provenance import check_counts, is_comparable
from pixelcnn.data.sources import Item, PublishedSplit, Source
from pixelcnn.data.writer import SplitWriter, channel_statistics, start_over, uniform
from pixelcnn.files import read_json
from pixelcnn.progress import progress

BATCH = 256  # images that a worker process is given at a time


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
    classes = named(source.classes, settings.preprocess.class_names)
    start_over(out)
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
        classes=classes,
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
        first = next(items, None)
        is_slow = first is not None and isinstance(first[1], bytes)  # a PNG, to be decoded
        batches = in_batches(chain([] if first is None else [first], items), BATCH)
        for batch in map_in_order(prepare, batches, workers if is_slow else 1):
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
        prepared.append(Prepared(pixels, label, image_hash(pixels), uniform(pixels, seed) < fraction))
    return prepared


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
