"""A prepared data set is read back as written, and a damaged one is refused with the name of the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pixelcnn.data import dataset as datasets
from pixelcnn.data.dataset import (
    DatasetInfo,
    SplitName,
    fingerprint,
    image_hash,
    join_fingerprints,
    read_conditions,
    read_counted,
    read_info,
    read_rows,
    read_split,
    write_info,
)
from pixelcnn.data.writer import SplitWriter
from tests.publishers import SHAPE, noise

IMAGES = noise(700, 0)
LABELS = [k % 2 for k in range(700)]


def card(**changed: Any) -> DatasetInfo:
    """The card of an empty data set."""
    fields = {"dataset": "noise"} | dict.fromkeys(
        ["source", "title", "comparable_reason", "licence", "citation", "homepage"], ""
    )
    content: dict[str, Any] = {**fields, "shape": SHAPE, "levels": 256, "classes": ("cat", "dog"), "splits": {}}
    content |= {"channel_means": (1.0, 2.0, 3.0), "channel_deviations": (1.0, 2.0, 3.0), "comparable": False}
    return DatasetInfo(**(content | changed))


def write(
    folder: Path, images: np.ndarray, labels: Sequence[int | None], split: SplitName = "train", per_shard: int = 300
) -> SplitWriter:
    """Write a data set with one split."""
    has_labels = any(label is not None for label in labels)
    with SplitWriter(folder, split, SHAPE, has_labels, per_shard) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.add(image.tobytes(), label, image_hash(image.tobytes()))
    classes = ("cat", "dog") if has_labels else ()
    write_info(card(splits={split: writer.info}, classes=classes), folder / datasets.CARD)
    return writer


def test_images_and_labels_are_read_back_in_order(tmp_path: Path) -> None:
    write(tmp_path, IMAGES, LABELS)
    split = read_split(tmp_path, "train")
    assert (split.images.dtype, split.images.shape) == (torch.uint8, (700, *SHAPE))
    assert torch.equal(split.images, torch.from_numpy(IMAGES))
    assert split.labels is not None
    assert split.labels.dtype == torch.int64
    assert split.labels.tolist() == LABELS


def test_without_classes_there_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, IMAGES, [None] * 700)
    split = read_split(tmp_path, "train")
    assert split.labels is None
    assert torch.equal(split.images, torch.from_numpy(IMAGES))


@pytest.mark.parametrize("per_shard", [1, 7, 256, 350, 700, 10_000])
def test_shards_hold_images_per_shard_images(per_shard: int, tmp_path: Path) -> None:
    images = IMAGES if per_shard > 1 else IMAGES[:5]
    shards = write(tmp_path, images, LABELS[: len(images)], per_shard=per_shard).info.shards
    assert len(shards) == -(-len(images) // per_shard)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["card.json", *shards])
    assert torch.equal(read_split(tmp_path, "train").images, torch.from_numpy(images))


def test_an_empty_split_is_read_as_empty(tmp_path: Path) -> None:
    write(tmp_path, IMAGES[:0], [], "validation")
    assert read_split(tmp_path, "validation").images.shape == (0, *SHAPE)


def test_a_card_is_read_back_as_written(tmp_path: Path) -> None:
    written = card()
    write_info(written, tmp_path / "somewhere" / "card.json")
    assert read_info(tmp_path / "somewhere") == written


def test_a_card_of_an_earlier_release_is_read_with_the_sources_current_name(tmp_path: Path) -> None:
    written = card().model_dump_json().replace('"source":""', '"source":"imagenet32-vdo2016"')
    (tmp_path / "card.json").write_text(written)
    assert read_info(tmp_path).source == "imagenet32_vdo2016"
    assert (tmp_path / "card.json").read_text() == written  # files are not rewritten


def test_a_fingerprint_depends_on_the_images_but_not_on_their_order() -> None:
    hashes = [image_hash(image.tobytes()) for image in IMAGES]
    whole = fingerprint(hashes)
    assert len(whole) == 64
    assert fingerprint(reversed(hashes)) == whole
    assert join_fingerprints(fingerprint(hashes[:300]), fingerprint(hashes[300:])) == whole
    assert fingerprint(hashes[1:]) != whole
    assert fingerprint([*hashes, hashes[0]]) != whole
    assert fingerprint([]) == "0" * 64


def test_an_unfinished_split_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SplitWriter(tmp_path, "train", SHAPE, False, 1000) as writer:  # noqa: PT012
        for image in IMAGES:
            writer.add(image.tobytes(), None, 0)
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _replace_by_unlabelled(path: Path) -> None:
    folder = path.parent / "other"
    folder.mkdir()
    write(folder, IMAGES[:300], [None] * 300)
    (folder / "train-00000.parquet").replace(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file, though card.json lists it; run preprocess again"),
        (_flip, "is damaged"),
        (_cut, "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (_replace_by_unlabelled, r"has columns image \(fixed_size_binary\[48\]\), card.json says image .*, label"),
    ],
)
def test_a_damaged_shard_is_refused_by_name(damage: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-00001.parquet"
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_split(tmp_path, "train")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("count", "said"), [(701, "701"), (699, "699"), (2**31 - 1, "2,147,483,647")])
def test_counts_that_differ_from_the_card_are_refused_before_memory_is_taken(
    count: int, said: str, tmp_path: Path
) -> None:
    described = write(tmp_path, IMAGES, LABELS).info.model_copy(update={"num_images": count})
    write_info(card(splits={"train": described}), tmp_path / "card.json")
    for read in (read_counted, lambda it: read_split(it, "train"), lambda it: read_conditions(it, "train")):
        with pytest.raises(ValueError, match=f"the train shards hold 700 images, card.json says {said}"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"card\.json: no such file; the stage preprocess makes it"),
        ("{", r"card\.json: is not a card: Invalid JSON"),
        ("{}", r"card\.json: is not a card: dataset: Field required"),
    ],
)
def test_a_damaged_card_is_refused_by_name(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_info(tmp_path)


def test_a_sliced_column_is_read_from_its_offset() -> None:
    column = pa.array([image.tobytes() for image in IMAGES[:5]], pa.binary(48)).slice(2, 2)
    np.testing.assert_array_equal(datasets._values(column, np.uint8, 48), IMAGES[2:4].reshape(-1))


def test_rows_are_read_across_shards_in_the_requested_order(tmp_path: Path) -> None:
    writer = write(tmp_path, IMAGES, LABELS, per_shard=300)
    write_info(card(splits={"train": writer.info}), tmp_path / "card.json")
    rows = torch.tensor([650, 3, 299, 300, 0])
    part, whole = read_rows(tmp_path, "train", rows), read_split(tmp_path, "train")
    assert torch.equal(part.images, whole.images[rows])
    assert part.labels is not None
    assert part.labels.tolist() == [LABELS[row] for row in rows.tolist()]
