"""The loader: batches are the same from memory and from disk, and the flat file of pixels is complete or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pixelcnn.data import loader
from pixelcnn.data.dataset import CARD, Split, read_info, read_split, write_info
from pixelcnn.data.loader import PixelFile, flatten, is_large, prefetch, read
from pixelcnn.data.sampler import BatchSampler
from pixelcnn.training.distributed import World
from pixelcnn.training.loop import train
from pixelcnn.training.state import Training
from tests.conftest import Build
from tests.publishers import SHAPE, noise
from tests.test_datasets import write
from tests.test_training import begin, settings, stripes

IMAGES = noise(70, 0)
LABELS = [k % 2 for k in range(70)]
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared data set whose train split has three shards and labels."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", IMAGES, LABELS, per_shard=30)
    return tmp_path / "data"


def on_disk(folder: Path) -> tuple[PixelFile, Split]:
    path = folder.parent / "pixels"
    flatten(folder, "train", path)
    images, rest = read(folder, "train", path, limit=100)
    assert isinstance(images, PixelFile)
    return images, rest


def test_a_pixel_file_returns_the_images_of_the_rows_in_their_order(folder: Path) -> None:
    images, _ = on_disk(folder)
    rows = torch.tensor([69, 0, 31, 31])
    assert len(images) == 70
    assert torch.equal(images[rows], torch.from_numpy(IMAGES)[rows])
    assert images[rows[:0]].shape == (0, *SHAPE)


def test_labels_of_images_on_disk_are_in_memory(folder: Path) -> None:
    _, rest = on_disk(folder)
    assert rest.labels is not None
    assert rest.labels.tolist() == LABELS
    assert rest.labels.dtype == torch.int64
    assert rest.images.shape == (0, *SHAPE)


def test_without_classes_there_are_no_labels_on_disk_either(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", IMAGES, [None] * 70)
    assert on_disk(tmp_path / "data")[1].labels is None


def test_a_split_is_read_from_disk_where_it_is_larger_than_the_limit(folder: Path, tmp_path: Path) -> None:
    assert is_large(folder, "train", IMAGES.nbytes - 1)
    assert not is_large(folder, "train", IMAGES.nbytes)
    images, data = read(folder, "train", tmp_path / "none", limit=IMAGES.nbytes)
    assert images is data.images
    assert torch.equal(data.images, read_split(folder, "train").images)


def test_available_memory_is_at_most_the_machines() -> None:
    assert 0 < loader.memory() <= psutil.virtual_memory().total


def test_a_pixel_file_is_written_once_and_leftovers_are_removed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".pixels.part").write_bytes(b"of a process that was killed")
    on_disk(folder)
    written = (tmp_path / "pixels").stat().st_mtime_ns
    on_disk(folder)
    assert (tmp_path / "pixels").stat().st_mtime_ns == written
    assert not list(tmp_path.glob(".*.part"))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def drop(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -IMAGES[0].nbytes])


@pytest.mark.parametrize(("damage", "message"), [(shorten, "not a whole number of images"), (drop, "holds 69 images")])
def test_a_pixel_file_of_the_wrong_size_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    on_disk(folder)
    damage(tmp_path / "pixels")
    with pytest.raises(ValueError, match=f"pixels: .*{message}.*delete it"):
        on_disk(folder)


def test_a_damaged_shard_leaves_no_pixel_file(folder: Path, tmp_path: Path) -> None:
    first = read_info(folder).splits["train"].shards[0]
    (folder / first).write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=first):
        flatten(folder, "train", tmp_path / "pixels")
    assert not (tmp_path / "pixels").exists()


def test_batches_from_disk_equal_those_from_memory(folder: Path) -> None:
    disk, rest = on_disk(folder)
    data = read_split(folder, "train")
    rows, steps = BatchSampler(70, 16, seed=3), range(5, 45)
    memory = prefetch(data.images, data.labels, rows, steps, CPU)
    for (x, cond), (y, other) in zip(memory, prefetch(disk, rest.labels, rows, steps, CPU), strict=True):
        assert torch.equal(x, y)
        assert cond is not None
        assert other is not None
        assert torch.equal(cond, other)


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_prefetching_may_be_closed_before_its_end(folder: Path, taken: int) -> None:
    disk, _ = on_disk(folder)
    batches = prefetch(disk, None, BatchSampler(70, 16, seed=3), range(1, 40), CPU)
    assert [len(next(batches)[0]) for _ in range(taken)] == [16] * taken
    batches.close()


def test_a_failed_read_raises_in_the_training_loop(folder: Path, tmp_path: Path) -> None:
    disk, _ = on_disk(folder)
    with (tmp_path / "pixels").open("r+b") as handle:
        handle.truncate(10 * IMAGES[0].nbytes)
    with pytest.raises(OSError, match="read from the file of pixels"):
        list(prefetch(disk, None, BatchSampler(70, 16, seed=3), range(1, 40), CPU))


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.network.parameters()])


def test_training_from_disk_resumes_in_mid_epoch_with_the_same_weights_as_from_memory(
    small_model: Build, tmp_path: Path
) -> None:
    data = stripes(30, label=True)
    path = tmp_path / "pixels"
    path.write_bytes(data.images.numpy().tobytes())
    changed: dict[str, Any] = {"steps": 20}
    whole = begin(small_model, **changed)
    list(train(whole, data.images, data.labels, data, World(0, 1)))

    first, second = begin(small_model, **changed), begin(small_model, **changed)
    disk = PixelFile(path, (3, 5, 8))
    for step in train(first, disk, data.labels, data, World(0, 1)):
        if step.step == 11:  # an epoch has 7.5
            state = first.state_dict()
            break
    second.load_state_dict(state)
    list(train(second, PixelFile(path, (3, 5, 8)), data.labels, data, World(0, 1)))
    assert second.settings == settings(**changed)
    assert torch.equal(weights(second), weights(whole))


def test_a_card_with_more_images_than_the_pixel_file_is_refused(folder: Path, tmp_path: Path) -> None:
    on_disk(folder)
    card = read_info(folder)
    split = card.splits["train"].model_copy(update={"num_images": 71})
    write_info(card.model_copy(update={"splits": {"train": split}}), folder / CARD)
    with pytest.raises(ValueError, match="the data set 71; delete it"):
        read(folder, "train", tmp_path / "pixels", limit=100)
