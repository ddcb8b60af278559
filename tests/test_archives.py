"""Archives are read exactly; invalid archives are refused with the member's name; nothing in them is executed."""

import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelcnn.data import sources
from pixelcnn.data.archives import decode_png
from pixelcnn.data.sources import Source
from tests import publishers
from tests.publishers import IMAGES, LABELS, SHAPE, noise, tiny, write_tar, write_zip

CIFAR = "cifar-10-python.tar.gz"
PNGS = "valid_32x32.tar"
ZIP = "Imagenet32_val.zip"
NPZ = "Imagenet32_val_npz.zip"


def read(source: Source, folder: Path, split: Any) -> tuple[np.ndarray, list[int | None]]:
    """All images and labels."""
    items = list(source.read(source, folder, split))
    images = [decode_png(i, source.shape, name) if isinstance(i, bytes) else i for name, i, _ in items]
    return np.stack(images), [label for _, _, label in items]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cifar10", "pickle"),
        ("imagenet32_vdo2016", "png"),
        ("imagenet32_box2017", "pickle"),
        ("imagenet32_box2017", "npz"),
    ],
)
def test_every_format_is_read_exactly(name: str, kind: str, split: str, tmp_path: Path) -> None:
    publishers.publish(name, tmp_path, kind)
    images, labels = read(tiny(name), tmp_path, split)
    np.testing.assert_array_equal(images, IMAGES[split])
    assert labels == ([None] * len(images) if kind == "png" else LABELS[split])


def test_digits_have_the_last_images_as_test_split() -> None:
    train, _ = read(sources.load("digits"), Path(), "train")
    test, labels = read(sources.load("digits"), Path(), "test")
    assert train.shape == (1297, 1, 8, 8)
    assert test.shape == (500, 1, 8, 8)
    assert set(labels) == set(range(10))
    assert max(train.max(), test.max()) == 16


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_protocols_2_to_4_are_read(protocol: int, tmp_path: Path) -> None:
    batch = publishers.python3_batch(IMAGES["test"], list(range(1, 11)), protocol)
    write_zip(tmp_path / ZIP, {"val_data": batch})
    np.testing.assert_array_equal(read(tiny("imagenet32_box2017"), tmp_path, "test")[0], IMAGES["test"])


def test_labels_may_be_numpy_scalars_or_arrays(tmp_path: Path) -> None:
    for labels in ([np.int64(label + 1) for label in LABELS["test"]], np.array(LABELS["test"], np.int32) + 1):
        batch = pickle.dumps({"data": IMAGES["test"].reshape(10, -1), "labels": labels}, 4)
        write_zip(tmp_path / ZIP, {"val_data": batch})
        assert read(tiny("imagenet32_box2017"), tmp_path, "test")[1] == LABELS["test"]


def test_a_train_split_may_come_in_parts(tmp_path: Path) -> None:
    members = list(publishers.imagenet_members("train").items())
    write_zip(tmp_path / "Imagenet64_train_part1.zip", dict(members[:5]))
    write_zip(tmp_path / "Imagenet64_train_part2.zip", dict(members[5:]))
    np.testing.assert_array_equal(read(tiny("imagenet64_box2017"), tmp_path, "train")[0], IMAGES["train"])


def test_members_that_end_in_capitals_are_read_too(tmp_path: Path) -> None:
    members = publishers.pngs(IMAGES["test"])
    named = {name.upper() if n % 2 else name: member for n, (name, member) in enumerate(members.items())}
    write_tar(tmp_path / PNGS, named)
    np.testing.assert_array_equal(read(tiny("imagenet32_vdo2016"), tmp_path, "test")[0], IMAGES["test"])


def test_arrays_stored_column_by_column_are_read_exactly(tmp_path: Path) -> None:
    rows = np.asfortranarray(IMAGES["test"].reshape(10, -1))
    np.savez(tmp_path / "inner.npz", data=rows, labels=np.arange(1, 11))
    for file, member in {
        ZIP: {"val_data": pickle.dumps({"data": rows, "labels": list(range(1, 11))}, 4)},
        NPZ: {"val_data.npz": (tmp_path / "inner.npz").read_bytes()},
    }.items():
        write_zip(tmp_path / file, member)
        np.testing.assert_array_equal(read(tiny("imagenet32_box2017"), tmp_path, "test")[0], IMAGES["test"])


class Malicious:
    """A pickle of this runs a shell command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"data": x}, lambda x: {"data": [1], "labels": [x]}])
def test_a_malicious_pickle_is_refused_and_not_executed(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    malicious = pickle.dumps(wrap(Malicious(f"touch {ran}")), 2)
    write_tar(tmp_path / CIFAR, {"cifar-10-batches-py/test_batch": malicious}, "w:gz")
    with pytest.raises(ValueError, match=r"tar\.gz: .*/test_batch: .* names (posix|nt)\.system.*; nothing was run"):
        read(tiny("cifar10"), tmp_path, "test")
    assert not ran.exists()
    pickle.loads(malicious)
    assert ran.exists()  # plain unpickling executes it


# Bad input: the source, what makes its archive invalid, and the message


def _link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def _tar(folder: Path, **members: Any) -> None:
    write_tar(folder / PNGS, {f"{name}.png": content for name, content in members.items()})


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _truncated_in_a_member(folder: Path) -> None:
    _tar(folder, a=publishers.png(noise(1, 0)[0]), b=publishers.png(noise(1, 1)[0]))
    _cut(folder / PNGS, 1024 + 512 + 30)


def _truncated_between_members(folder: Path) -> None:
    _tar(folder, a=publishers.png(noise(1, 0)[0]), b=publishers.png(noise(1, 1)[0]))
    _cut(folder / PNGS, 1024)


def _damaged_header(folder: Path) -> None:
    _tar(folder, a=publishers.png(noise(1, 0)[0]), b=publishers.png(noise(1, 1)[0]))
    content = bytearray((folder / PNGS).read_bytes())
    content[1024:1034] = b"not a head"
    (folder / PNGS).write_bytes(content)


def _truncated_gzip(folder: Path) -> None:
    publishers.publish("cifar10", folder)
    _cut(folder / CIFAR, (folder / CIFAR).stat().st_size // 2)


def _gzip_without_its_end(folder: Path) -> None:
    publishers.publish("cifar10", folder)
    _cut(folder / CIFAR, (folder / CIFAR).stat().st_size - 8)


def _named(name: str) -> Callable[[Path], None]:
    return lambda folder: write_tar(folder / PNGS, {name: b""})


def _png(content: bytes) -> Callable[[Path], None]:
    return lambda folder: _tar(folder, a=content)


def _huge_member(folder: Path) -> None:
    _tar(folder, a=bytes(2**20))


def _truncated_zip(folder: Path) -> None:
    publishers.publish("imagenet32_box2017", folder)
    _cut(folder / ZIP, 300)


def _flipped_zip(folder: Path) -> None:
    publishers.publish("imagenet32_box2017", folder)
    content = bytearray((folder / ZIP).read_bytes())
    content[150] ^= 255
    (folder / ZIP).write_bytes(content)


def _zip_link(folder: Path) -> None:
    info = zipfile.ZipInfo("val_data")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(folder / ZIP, "w") as archive:
        archive.writestr(info, "/etc/passwd")


def _zip(members: dict[str, bytes]) -> Callable[[Path], None]:
    return lambda folder: write_zip(folder / ZIP, members)


def _npz(members: dict[str, bytes]) -> Callable[[Path], None]:
    return lambda folder: write_zip(folder / NPZ, members)


def _npz_bomb(folder: Path) -> None:
    write_zip(folder / "inner", {"data.npy": bytes(10**8)})
    write_zip(folder / NPZ, {"val_data.npz": (folder / "inner").read_bytes()})


def _npz_of_objects(folder: Path) -> None:
    np.savez(folder / "inner.npz", data=np.array([{}], object), labels=np.array([1]))
    write_zip(folder / NPZ, {"val_data.npz": (folder / "inner.npz").read_bytes()})


def _batch(data: Any, labels: Any) -> Callable[[Path], None]:
    return _zip({"val_data": pickle.dumps({"data": data, "labels": labels}, 4)})


def _a_batch_twice(folder: Path) -> None:
    batch = publishers.imagenet_members("test")["val_data"]
    write_zip(folder / ZIP, {"val_data": batch, "again/val_data": batch})


ROWS = IMAGES["test"].reshape(10, -1)
OLD, BOX = "imagenet32_vdo2016", "imagenet32_box2017"
BAD_INPUT = {
    "no archive": (OLD, lambda _: None, r"lacks the test archives of .*: looked for valid_32x32\.tar"),
    "no alternative": (BOX, lambda _: None, r"looked for Imagenet32_val_npz\.zip or Imagenet32_val\.zip"),
    "not a tar": (OLD, lambda folder: (folder / PNGS).write_bytes(b"<html>" * 200), "not a readable tar archive"),
    "truncated in a member": (
        OLD,
        _truncated_in_a_member,
        r"valid_32x32\.tar: b\.png: cannot be read: unexpected end of data",
    ),
    "truncated between members": (OLD, _truncated_between_members, "lacks the mark that ends a tar archive"),
    "damaged header": (OLD, _damaged_header, "lacks the mark that ends a tar archive"),
    "truncated gzip": ("cifar10", _truncated_gzip, r"cifar-10-python\.tar\.gz: .*[Cc]ompressed file ended"),
    "gzip without its end": ("cifar10", _gzip_without_its_end, "truncated: Compressed file ended"),
    "link": (OLD, _png(_link("a.png", tarfile.SYMTYPE)), r"a\.png: is a link or a device"),  # type: ignore[arg-type]
    "hard link": (OLD, _png(_link("a.png", tarfile.LNKTYPE)), r"a\.png: is a link or"),  # type: ignore[arg-type]
    "device": (OLD, _png(_link("a.png", tarfile.CHRTYPE)), r"a\.png: is a link or a device"),  # type: ignore[arg-type]
    "climbing name": (OLD, _named("x/../../a.png"), r"x/\.\./\.\./a\.png: this name leads out of the archive"),
    "absolute name": (OLD, _named("/etc/a.png"), "/etc/a.png: this name leads out of the archive"),
    "huge member": (OLD, _huge_member, r"a\.png: declares 1,048,576 bytes, but at most 65,632 are read"),
    "no picture": (OLD, _png(b"not a picture"), r"a\.png: is not an image of PNG that can be read: nothing known"),
    "another format": (
        OLD,
        _png(publishers.png(noise(1, 0)[0], kind="BMP")),
        "is not an image of PNG that can be read",
    ),
    "truncated picture": (OLD, _png(publishers.png(noise(1, 0)[0])[:60]), r"a\.png: is damaged"),
    "another size": (
        OLD,
        _png(publishers.png(noise(1, 0)[0][:, :, :3])),
        "is 3 x 4 pixels, not 4 x 4",
    ),
    "another mode": (
        OLD,
        _png(publishers.png(noise(1, 0)[0], "I;16")),
        "has 16 bits a channel",
    ),
    "a file that is no picture": (OLD, _named("readme.txt"), "readme.txt: does not end in .png"),
    "not a zip": (
        BOX,
        lambda folder: (folder / ZIP).write_bytes(b"<html>"),
        r"val\.zip: is not a readable zip archive",
    ),
    "truncated zip": (BOX, _truncated_zip, r"val\.zip: is not a readable zip archive, or truncated"),
    "flipped byte in a zip": (BOX, _flipped_zip, r"val\.zip: val_data: is not a pickled batch"),
    "link in a zip": (BOX, _zip_link, "val_data: is a link or a device"),
    "climbing name in a zip": (BOX, _zip({"../val_data": b""}), r"\.\./val_data: this name leads out"),
    "zip bomb": (BOX, _zip({"val_data": bytes(10**8)}), "val_data: declares 100,000,000 bytes, but at most"),
    "npz bomb": (BOX, _npz_bomb, r"val_data\.npz: data\.npy: declares 100,000,000 bytes"),
    "npz of objects": (BOX, _npz_of_objects, r"val_data\.npz: is not a readable npz file: Object arrays cannot"),
    "not an npz": (BOX, _npz({"val_data.npz": b"x"}), r"val_data\.npz: is not a readable npz file"),
    "no pickle": (BOX, _zip({"val_data": b"\x80\x04nonsense"}), "val_data: is not a pickled batch"),
    "pickled list": (BOX, _zip({"val_data": pickle.dumps([1])}), "it holds a list, expected a dictionary"),
    "pickle without labels": (BOX, _zip({"val_data": pickle.dumps({"data": 1})}), "is not a pickled batch: 'labels'"),
    "array of objects": (BOX, _batch(np.array([None]), []), r"val_data: is not a pickled batch: .*type '\|O8'"),
    "no array": (BOX, _batch([1, 2], [1, 2]), r"data is list, expected uint8 of shape \(N, 48\)"),
    "another row width": (
        BOX,
        _batch(ROWS[:, :47], [1] * 10),
        r"uint8 of shape \(10, 47\), expected uint8 .* \(N, 48\)",
    ),
    "another type": (BOX, _batch(ROWS.astype(float), [1] * 10), "data is float64 of shape"),
    "too few labels": (BOX, _batch(ROWS, [1] * 9), "labels: 9 for 10 rows of data"),
    "label 0": (BOX, _batch(ROWS, [1, 0] * 5), r"val_data\[1\]: label 0 is not one of 1 to 1000"),
    "label 1001": (BOX, _batch(ROWS, [1001] * 10), r"val_data\[0\]: label 1001 is not one of 1 to 1000"),
    "label of text": (BOX, _batch(ROWS, ["cat"] * 10), r"val_data\[0\]: label b?'cat' is not one of 1 to 1000"),
    "no batch": (BOX, _zip({"other": b""}), r"Imagenet32_val\.zip: lacks val_data"),
    "a batch twice": (BOX, _a_batch_twice, "again/val_data: the batch val_data is there twice"),
}


@pytest.mark.parametrize(("name", "spoil", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_refused_with_its_place(
    name: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as caught:
        read(tiny(name), tmp_path, "test")
    assert str(tmp_path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    members = publishers.imagenet_members("train")
    del members["train_data_batch_7"]
    write_zip(tmp_path / "Imagenet32_train.zip", members)
    with pytest.raises(ValueError, match=r"Imagenet32_train\.zip: lacks train_data_batch_7$"):
        read(tiny(BOX), tmp_path, "train")


def test_the_png_reader_does_not_accumulate_members(tmp_path: Path) -> None:
    write_tar(tmp_path / PNGS, publishers.pngs(noise(500, 0)))
    source = tiny(OLD)
    opened: list[tarfile.TarFile] = []
    original = tarfile.open

    def recording(*args: Any, **kwargs: Any) -> tarfile.TarFile:
        opened.append(original(*args, **kwargs))
        return opened[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile, "open", recording)
        counts = [len(opened[0].members) for _ in source.read(source, tmp_path, "test")]  # type: ignore[attr-defined]
    assert len(counts) == 500
    assert max(counts) <= 1


def test_grey_pngs_are_read_for_a_grey_source() -> None:
    grey = decode_png(publishers.png(noise(1, 0)[0], "L"), (1, *SHAPE[1:]), "a.png")
    assert grey.shape == (1, 4, 4)
