"""Import a user's own images as a prepared data set: decoded, brought to one size, cut into splits.

Each image is decoded once, by worker processes, and spooled to a temporary file, since channels and levels are known
only when all images have been read. An image is held out for test or validation by a hash of its pixels, so exact
duplicates fall into the same split.

Shapes: H rows, W columns, C channels.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from pixelcnn.data.class_names import named
from pixelcnn.data.config import Exact, Images, Resized
from pixelcnn.data.dataset import CARD, SPLITS, DatasetInfo, SplitName, image_hash, write_info
from pixelcnn.data.decoding import LOSSES, MAX_BYTES, Pixels, Refused, decode_picture, with_channels
from pixelcnn.data.layouts import Found, Layout, counted, find
from pixelcnn.data.parallel import in_batches, map_in_order
from pixelcnn.data.writer import SplitWriter, channel_statistics, start_over, uniform
from pixelcnn.files import excerpt, read_bytes
from pixelcnn.progress import progress

SOURCE = "images"  # where a card of a published data set has its source
BATCH = 8  # images that a worker process is given at a time; photographs have some MB each
MAX_SIDE = 4096
MOST_REFUSED = 100  # images that are looked at further after the first refused one
MOST_SHOWN = 8  # of them
FEW_LEVELS = 128  # arrays with values below this have as many levels as values; others have all 256 of a byte


class Ready(NamedTuple):
    """A decoded image: its pixels (H, W, C) in C order, their shape, and what was converted."""

    where: str
    pixels: bytes
    shape: tuple[int, int, int]
    changes: tuple[str, ...]


class Unusable(NamedTuple):
    """An image that is refused: why, and the one of LOSSES that would accept it, "" for none."""

    where: str
    fault: str
    loss: str


@dataclass
class Seen:
    """Running statistics of the decoded images: their number, size, channels, values and conversions."""

    channels: bytearray = field(default_factory=bytearray)  # of each image
    places: list[tuple[SplitName | None, int | None]] = field(default_factory=list)  # split and label of each
    first: Ready | None = None
    highest: int = 0
    only_black_and_white: bool = True
    changes: Counter[str] = field(default_factory=Counter)
    unusable: list[Unusable] = field(default_factory=list)


def import_images(name: str, settings: Images, out: Path, workers: int) -> tuple[DatasetInfo, list[str]]:
    """Write the shards and card of the user's images to `out`; returns the card, and what a user should know.

    Raises ValueError where the images are refused, of several sizes, or too few for three splits.
    """
    layout = find(Path(settings.path), settings.labels == "read")
    classes = named(layout.classes, settings.class_names)
    start_over(out)
    with tempfile.TemporaryFile(dir=out) as spool:
        seen = _decode_all(layout, settings, spool, workers)
        _check(settings, seen)
        assert seen.first is not None
        height, width, _ = seen.first.shape
        channels = 3 if settings.colour == "rgb" or 3 in seen.channels else 1
        levels = _levels(seen, layout.are_files)
        spool.seek(0)
        records = _records(spool, seen, (height, width), channels, levels)
        writers, copies = _write(settings, out, seen, records, (channels, height, width), bool(classes))
    means, deviations = channel_statistics(writers["train"].histogram)
    info = DatasetInfo(
        dataset=name,
        source=SOURCE,
        title=settings.title,
        shape=(channels, height, width),
        levels=levels,
        classes=classes,
        splits={split: writer.info for split, writer in writers.items()},
        channel_means=means,
        channel_deviations=deviations,
        comparable=False,
        comparable_reason="your own images",
        licence=settings.licence,
        citation=settings.citation,
        homepage="",
    )
    write_info(info, out / CARD)
    return info, _notes(layout, seen, info, copies)


def prepare(items: list[Found], settings: Images) -> list[Ready | Unusable]:
    """Decode a batch and bring it to its size: a function of the batch alone, so that processes can share the work."""
    return [_prepare(item, settings) for item in items]


def _prepare(item: Found, settings: Images) -> Ready | Unusable:
    accept = {*settings.accept, *(["colour"] if settings.colour == "grey" else [])}
    try:
        pixels, changes = _pixels(item, 1 if settings.colour == "grey" else None, accept)
    except Refused as error:
        return Unusable(error.where, error.fault, error.loss)
    except (ValueError, OSError) as error:
        return Unusable(item.where, str(error).removeprefix(f"{item.where}: "), "")
    fitted = np.ascontiguousarray(fit(pixels, settings.size))
    height, width, channels = fitted.shape
    if max(height, width) > MAX_SIDE:
        return Unusable(item.where, f"is {width} x {height} pixels, at most {MAX_SIDE:,} a side", "size")
    return Ready(item.where, fitted.tobytes(), (height, width, channels), changes)


def _pixels(item: Found, channels: int | None, accept: set[str]) -> tuple[Pixels, tuple[str, ...]]:
    """The pixels (H, W, C) of an image, and what was converted."""
    if isinstance(item.image, np.ndarray):
        return _of_array(item.where, item.image, channels, accept)
    content = read_bytes(item.image, MAX_BYTES) if isinstance(item.image, Path) else item.image
    return decode_picture(content, item.where, channels, accept=accept)


def _of_array(where: str, pixels: Pixels, channels: int | None, accept: set[str]) -> tuple[Pixels, tuple[str, ...]]:
    changes: list[str] = []
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.uint16)
        if alpha.min() == 255:
            changes.append("opaque alpha dropped")
        elif "alpha" not in accept:
            raise Refused(where, "has transparency", "alpha")
        else:
            changes.append("alpha accepted")
        pixels = ((pixels[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return with_channels(where, pixels, channels, accept, changes), tuple(changes)


def fit(pixels: Pixels, size: Exact | Resized) -> Pixels:
    """Pixels (H, W, C) brought to the size that is wanted: stretched, or the largest centred part of its shape."""
    if isinstance(size, Exact):
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    filter_ = Image.Resampling[size.filter.upper()]
    shape = (size.width, size.height)
    made = ImageOps.fit(image, shape, filter_) if size.name == "crop" else image.resize(shape, filter_)
    return np.array(made).reshape(size.height, size.width, -1)


def _decode_all(layout: Layout, settings: Images, spool: IO[bytes], workers: int) -> Seen:
    """Decode all images into the temporary file, one after another, without what is unusable."""
    seen = Seen()
    places: list[tuple[SplitName | None, int | None]] = []  # of those that are being decoded

    def remembered() -> Iterator[Found]:
        for item in layout.read():
            places.append((item.split, item.label))
            yield item

    done = 0
    with progress(settings.title, layout.num_images, "images") as bar:
        for batch in map_in_order(partial(prepare, settings=settings), in_batches(remembered(), BATCH), workers):
            for result in batch:
                _note(seen, result, places[done], spool)
                done += 1
            bar.update(len(batch))
            if len(seen.unusable) > MOST_REFUSED and "unreadable" not in settings.accept:
                break
    return seen


def _note(seen: Seen, result: Ready | Unusable, place: tuple[SplitName | None, int | None], spool: IO[bytes]) -> None:
    if isinstance(result, Unusable):
        seen.unusable.append(result)
        return
    seen.first = seen.first or result
    if result.shape[:2] != seen.first.shape[:2]:
        (height, width, _), (rows, columns, _) = result.shape, seen.first.shape
        fault = f"is {width} x {height} pixels, and {excerpt(seen.first.where)} is {columns} x {rows}"
        seen.unusable.append(Unusable(result.where, fault, "size"))
        return
    values = np.bincount(np.frombuffer(result.pixels, np.uint8), minlength=256)
    seen.only_black_and_white &= not values[1:255].any()
    seen.highest = max(seen.highest, int(values.nonzero()[0][-1]))
    seen.channels.append(result.shape[2])
    seen.places.append(place)
    seen.changes.update(result.changes)
    spool.write(result.pixels)


def _check(settings: Images, seen: Seen) -> None:
    """Raise ValueError where images are refused, with what would accept them, or are too large or too few."""
    refused = [each for each in seen.unusable if each.loss or "unreadable" not in settings.accept]
    if refused:
        lines = [f"{each.where}: {each.fault}" for each in refused[:MOST_SHOWN]]
        more = len(refused) - len(lines)
        lines += [f"... and {more:,}{' or more' if more > MOST_REFUSED - MOST_SHOWN else ''} others"] if more else []
        raise ValueError("\n".join([*lines, *sorted({_remedy(each.loss) for each in refused})]))
    if seen.first is None:
        raise ValueError(f"{settings.path}: holds no image that can be read")
    if len(seen.places) < len(SPLITS):
        raise ValueError(
            f"{settings.path}: holds {len(seen.places)} image(s); training, validation and test need at least one each"
        )


def _remedy(loss: str) -> str:
    """What in params.yaml would accept an image."""
    if loss == "size":
        return "`size: {name: crop, height: ..., width: ..., filter: lanczos}` makes images alike; exact takes one size"
    if loss:
        return f"`accept: [{loss}]` {LOSSES[loss]}"
    return "`accept: [unreadable]` leaves out what cannot be read"


def _levels(seen: Seen, are_files: bool) -> int:
    """How many levels the pixels have: 2 where all are black or white, 256 of other files, of arrays what they hold."""
    if seen.only_black_and_white and seen.highest:
        return 2
    return 256 if are_files or seen.highest >= FEW_LEVELS else max(seen.highest + 1, 2)


def _records(spool: IO[bytes], seen: Seen, size: tuple[int, int], channels: int, levels: int) -> Iterator[bytes]:
    """The images of the temporary file as bytes in the order C, H, W."""
    scale = 255 if levels == 2 and seen.highest == 255 else 1
    for stored in seen.channels:
        pixels = np.frombuffer(spool.read(math.prod(size) * stored), np.uint8).reshape(*size, stored)
        yield np.broadcast_to(pixels // scale, (*size, channels)).transpose(2, 0, 1).tobytes()


def _write(
    settings: Images,
    out: Path,
    seen: Seen,
    records: Iterator[bytes],
    shape: tuple[int, int, int],
    has_labels: bool,
) -> tuple[dict[SplitName, SplitWriter], int]:
    """Write each image into its split; returns the writers, and how many test images are among the training images."""
    given = {split for split, _ in seen.places}
    hashes: dict[SplitName, set[int]] = {split: set() for split in SPLITS}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(SplitWriter(out, split, shape, has_labels, settings.images_per_shard))
            for split in SPLITS
        }
        for pixels, (split, label) in zip(records, seen.places, strict=True):
            hash_ = image_hash(pixels)
            split = _split(split, uniform(pixels, settings.seed), settings, given)
            writers[split].add(pixels, label, hash_)
            hashes[split].add(hash_)
        for split, writer in writers.items():
            if not writer.num_images:
                raise ValueError(
                    f"{settings.path}: none of {len(seen.places):,} images falls into the {split} split; use "
                    f"more images, another test_fraction ({settings.test_fraction:g}), validation_fraction "
                    f"({settings.validation_fraction:g}) or seed ({settings.seed})"
                )
    return writers, len(hashes["test"] & (hashes["train"] | hashes["validation"]))


def _split(split: SplitName | None, drawn: float, settings: Images, given: set[SplitName | None]) -> SplitName:
    """The split of an image: the given one, or the one that its hash, a number in [0, 1), falls into."""
    if split in ("test", "validation"):
        return split
    test = 0.0 if "test" in given else settings.test_fraction
    held_out = 0.0 if "validation" in given else settings.validation_fraction
    if drawn < test:
        return "test"
    return "validation" if drawn < test + (1 - test) * held_out else "train"


def _notes(layout: Layout, seen: Seen, info: DatasetInfo, copies: int) -> list[str]:
    """What a user should know of an import, a line each."""
    channels, height, width = info.shape
    sizes = ", ".join(f"{info.splits[split].num_images:,} {split}" for split in SPLITS)
    classes = f", {len(info.classes)} class(es): {_some(info.classes)}" if info.classes else ", without classes"
    notes = [f"{len(seen.places):,} images of {channels} x {height} x {width}, {info.levels} levels{classes}; {sizes}"]
    if seen.changes:
        notes.append(f"converted: {counted(seen.changes)}")
    if left_out := layout.left_out + Counter({"that cannot be read": len(seen.unusable)} if seen.unusable else {}):
        notes.append(f"left out: {counted(left_out)}")
    if copies:
        notes.append(f"{copies:,} of the test images are also among the others, so the test bits/dim are too low")
    labels = {label for (split, label) in seen.places if split in (None, "train") and label is not None}
    if lacking := [name for n, name in enumerate(info.classes) if n not in labels]:
        notes.append(f"no training image of {_some(tuple(lacking))}")
    return notes


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
