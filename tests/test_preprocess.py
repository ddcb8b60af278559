"""Preprocessing puts every image into one split, deterministically, and the card describes the result."""

import collections
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelcnn.data import parallel
from pixelcnn.data import preprocess as preprocessing
from pixelcnn.data.config import Dataset
from pixelcnn.data.dataset import DatasetInfo, fingerprint, image_hash, read_info, read_split
from pixelcnn.data.sources import Source
from pixelcnn.data.writer import uniform
from pixelcnn.stages import preprocess as stage
from tests import publishers
from tests.conftest import DEMO
from tests.publishers import IMAGES, LABELS, noise, tiny, write_tar

OLD = "imagenet32_vdo2016"


def settings(
    source: str = OLD,
    fraction: float = 0.3,
    seed: int = 0,
    verify: str = "any",
    class_names: dict[str, str] | None = None,
) -> Dataset:
    return Dataset.model_validate(
        {
            "download": {"source": source, "origin": "somewhere", "verify": verify},
            "preprocess": {
                "validation_fraction": fraction,
                "seed": seed,
                "images_per_shard": 16,
                "class_names": class_names,
            },
        }
    )


def archives(folder: Path, name: str = OLD, kind: str = "pickle", verified: str = "any") -> Path:
    """A folder as the stage download writes it."""
    publishers.publish(name, folder, kind)
    manifest(folder, verified)
    return folder


def manifest(folder: Path, verified: str = "any") -> None:
    files = [*folder.glob("*.tar"), *folder.glob("*.gz"), *folder.glob("*.zip")]
    entries = {p.name: {"sha256": "", "num_bytes": p.stat().st_size, "verified": verified} for p in files}
    (folder / "manifest.json").write_text(json.dumps(entries))


def prepare(raw: Path, out: Path, source: Source | None = None, workers: int = 1, **changed: Any) -> DatasetInfo:
    chosen = settings(**changed)
    return preprocessing.preprocess("mine", source or tiny(chosen.download.source), chosen, raw, out, workers)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels(folder: Path, split: Any) -> list[bytes]:
    return [image.numpy().tobytes() for image in read_split(folder, split).images]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cifar10", "pickle"),
        (OLD, "png"),
        ("imagenet32_box2017", "pickle"),
        ("imagenet32_box2017", "npz"),
        ("cifar100", "pickle"),
        ("mnist", "idx"),
        ("fashion_mnist", "idx"),
        ("svhn", "mat"),
        ("binarized_mnist", "amat"),
    ],
)
def test_every_image_of_every_format_is_in_exactly_one_split(name: str, kind: str, tmp_path: Path) -> None:
    card = prepare(archives(tmp_path / "raw", name, kind), tmp_path / "out", source=tiny(name), verify="publisher")
    images = publishers.images_of(tiny(name), "train")
    expected = {image.tobytes(): label for image, label in zip(images, LABELS["train"], strict=True)}
    found: dict[bytes, int] = {}
    for split in ("train", "validation"):
        data = read_split(tmp_path / "out", split)
        labels = (
            data.labels.tolist() if data.labels is not None else [expected[p] for p in pixels(tmp_path / "out", split)]
        )
        found |= dict(zip(pixels(tmp_path / "out", split), labels, strict=True))
    assert found == expected
    assert card.splits["train"].num_images + card.splits["validation"].num_images == 40
    assert pixels(tmp_path / "out", "test") == [image.tobytes() for image in publishers.images_of(tiny(name), "test")]
    assert (read_split(tmp_path / "out", "test").labels is None) == (not tiny(name).classes)


def test_the_card_describes_what_was_written(tmp_path: Path) -> None:
    card = prepare(archives(tmp_path / "raw", "cifar10"), tmp_path / "out", source=tiny("cifar10"))
    assert read_info(tmp_path / "out") == card
    assert (card.dataset, card.shape, card.levels, card.classes[3]) == ("mine", (3, 4, 4), 256, "cat")
    for split in ("train", "validation", "test"):
        hashes = [image_hash(image) for image in pixels(tmp_path / "out", split)]
        assert (card.splits[split].num_images, card.splits[split].fingerprint) == (len(hashes), fingerprint(hashes))
    train = read_split(tmp_path / "out", "train").images.numpy().astype(float)
    np.testing.assert_allclose(card.channel_means, train.mean((0, 2, 3)))
    np.testing.assert_allclose(card.channel_deviations, train.std((0, 2, 3)))


def test_the_same_archives_give_the_same_bytes(tmp_path: Path) -> None:
    raw = archives(tmp_path / "raw")
    for out in ("a", "b"):
        prepare(raw, tmp_path / out)
    (tmp_path / "b" / ".train-00000.parquet.part").write_bytes(b"of a killed process")
    prepare(raw, tmp_path / "b")  # replaces what is there
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_output_does_not_depend_on_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "BATCH", 3)
    monkeypatch.setattr(parallel, "IN_PROCESS", 1)
    started = []
    original = parallel.ProcessPoolExecutor
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", lambda *given: started.append(given[0]) or original(*given))
    raw = archives(tmp_path / "raw")
    for workers in (1, 2):
        prepare(raw, tmp_path / str(workers), workers=workers)
    assert started == [2, 2]  # for train and for test
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_few_images_start_no_worker_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(parallel, "ProcessPoolExecutor")
    prepare(archives(tmp_path / "raw"), tmp_path / "out", workers=8)


def test_duplicates_are_never_split_between_train_and_validation(tmp_path: Path) -> None:
    raw = archives(tmp_path / "raw")
    write_tar(raw / "train_32x32.tar", publishers.pngs(np.concatenate([noise(60, 2)] * 3)))
    manifest(raw)
    prepare(raw, tmp_path / "out")
    counts = [collections.Counter(pixels(tmp_path / "out", split)) for split in ("train", "validation")]
    assert all(set(count.values()) == {3} for count in counts)
    assert not set(counts[0]) & set(counts[1])


def test_holding_out_depends_on_seed_and_image_alone() -> None:
    images = [image.tobytes() for image in noise(4000, 3)]
    held_out = [uniform(image, 0) < 0.3 for image in images]
    assert 0.27 < np.mean(held_out) < 0.33
    assert held_out == [uniform(image, 0) < 0.3 for image in images]
    assert held_out != [uniform(image, -1) < 0.3 for image in images]
    assert min(uniform(image, 0) for image in images) >= 0
    larger = [uniform(image, 0) < 0.5 for image in images]
    assert all(more or not less for less, more in zip(held_out, larger, strict=True))


def test_a_validation_split_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation_fraction\n.*greater than 0"):
        settings(fraction=0.0)
    with pytest.raises(ValueError, match="no image is left for the validation split; validation_fraction decides"):
        prepare(archives(tmp_path / "raw"), tmp_path / "out", fraction=1e-12)


@pytest.mark.parametrize(
    ("known", "verified", "num_test", "comparable", "reason"),
    [
        ("same", "any", 10, True, "the 10 test images are the published ones, so are the training images"),
        ("other train", "any", 10, True, "the 10 test images are the published ones, not all of the training images"),
        ("none", "publisher", 10, True, "every archive has the publisher's checksum"),
        ("none", "any", 49, False, "a sample: 10 test images, the publisher's test split has 49"),
        ("none", "any", 9, False, "10 test images, the publisher's test split has 9"),
        ("other", "any", 10, False, "10 test images as published, but not the same ones"),
        ("none", "any", 10, False, "train_32x32.tar, valid_32x32.tar could not be verified by a published checksum"),
    ],
)
def test_a_data_set_is_comparable_only_if_its_images_are_the_published_ones(
    known: str, verified: str, num_test: int, comparable: bool, reason: str, tmp_path: Path
) -> None:
    true = {split: fingerprint(image_hash(image.tobytes()) for image in IMAGES[split]) for split in ("train", "test")}
    fingerprints = {"same": true, "other train": {**true, "train": "0"}, "none": {}, "other": {"test": "0"}}[known]
    source = dataclasses.replace(tiny(OLD), fingerprints=fingerprints, num_images={"train": 40, "test": num_test})
    card = prepare(archives(tmp_path / "raw", verified=verified), tmp_path / "out", source=source)
    assert card.comparable == comparable
    assert reason in card.comparable_reason


def test_a_subset_is_refused_unless_verify_is_any(tmp_path: Path) -> None:
    source = dataclasses.replace(tiny(OLD), num_images={"train": 40, "test": 49_999})
    with pytest.raises(ValueError, match=r"the test archives hold 10 images, the publisher's 49,999; `verify: any`"):
        prepare(archives(tmp_path / "raw"), tmp_path / "out", source=source, verify="publisher")
    assert not (tmp_path / "out" / "card.json").exists()


def test_a_failed_run_leaves_no_card(tmp_path: Path) -> None:
    raw = archives(tmp_path / "raw")
    prepare(raw, tmp_path / "out")
    write_tar(raw / "valid_32x32.tar", {**publishers.pngs(IMAGES["test"]), "z.png": b"not a picture"})
    manifest(raw)
    with pytest.raises(ValueError, match=r"valid_32x32\.tar: z\.png: is not an image of PNG that can be read"):
        prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out" / "card.json").exists()


def test_an_image_that_a_worker_process_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "BATCH", 3)
    monkeypatch.setattr(parallel, "IN_PROCESS", 1)
    raw = archives(tmp_path / "raw")
    write_tar(raw / "train_32x32.tar", {**publishers.pngs(IMAGES["train"]), "z.png": b"not a picture"})
    manifest(raw)
    with pytest.raises(ValueError, match=r"train_32x32\.tar: z\.png: is not an image of PNG that can be read"):
        prepare(raw, tmp_path / "out", workers=2)


def test_archives_without_images_are_refused(tmp_path: Path) -> None:
    raw = archives(tmp_path / "raw")
    write_tar(raw / "train_32x32.tar", {})
    manifest(raw)
    with pytest.raises(ValueError, match="no image is left for the train split"):
        prepare(raw, tmp_path / "out")


def _forget(raw: Path) -> None:
    (raw / "manifest.json").unlink()


def _damage(raw: Path) -> None:
    (raw / "manifest.json").write_text("{")


def _shorten(raw: Path) -> None:
    (raw / "valid_32x32.tar").write_bytes(b"short")


def _lose(raw: Path) -> None:
    (raw / "valid_32x32.tar").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_forget, r"manifest\.json: no such file; the stage download makes it"),
        (_damage, r"manifest\.json: not JSON: .*; run the stage download again"),
        (_shorten, r"valid_32x32\.tar: 5 bytes, .*manifest\.json says \d+; run the stage download again"),
        (_lose, r"valid_32x32\.tar: no bytes, .*manifest\.json says"),
    ],
)
def test_an_incomplete_download_is_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    raw = archives(tmp_path / "raw")
    spoil(raw)
    with pytest.raises(ValueError, match=message):
        prepare(raw, tmp_path / "out")


def test_the_stage_preprocesses_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path("raw/manifest.json").write_text("{}")
    monkeypatch.setattr(
        sys, "argv", ["preprocess", "digits", "--archives", "raw", "--out", "out", "--report", "reports/digits.json"]
    )
    stage.main()
    assert Path("reports/digits.json").read_bytes() == Path("out/card.json").read_bytes()
    card = read_info(Path("out"))
    assert card.comparable
    assert (card.levels, card.shape, card.splits["test"].num_images) == (17, (1, 8, 8), 500)
    assert read_split(Path("out"), "train").images.max() == 16


def test_the_stage_refuses_a_name_that_is_not_in_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["preprocess", "no", "--archives", "raw", "--out", "out", "--report", "r.json"])
    with pytest.raises(ValueError, match=r"params\.yaml: datasets: 'no' is not one of .*digits"):
        stage.main()
