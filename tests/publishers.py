"""Tiny archives in the publishers' formats: a few 4x4 images of noise per split."""

import dataclasses
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io
from PIL import Image

from pixelcnn.data import sources
from pixelcnn.data.archives import CIFAR10_BATCHES, IMAGENET_BATCHES
from pixelcnn.data.sources import Archive, Source

SHAPE = (3, 4, 4)
NUM = {"train": 40, "test": 10}
Images = npt.NDArray[np.uint8]


def noise(num: int, seed: int) -> Images:
    """(num, 3, 4, 4) random images."""
    return np.random.default_rng(seed).integers(0, 256, (num, *SHAPE), dtype=np.uint8)


IMAGES = {"train": noise(NUM["train"], 0), "test": noise(NUM["test"], 1)}
LABELS = {split: [k % 10 for k in range(num)] for split, num in NUM.items()}


def tiny(name: str) -> Source:
    """The source `name` with the sizes of this file, and without checksums and fingerprints."""

    def anonymous(archive: Archive) -> Archive:
        return dataclasses.replace(archive, sha256=None, md5=None, num_bytes=None)

    source = sources.load(name)
    shape = (source.shape[0], *SHAPE[1:])
    archives = {s: tuple(tuple(anonymous(a) for a in one) for one in ways) for s, ways in source.archives.items()}
    return dataclasses.replace(source, archives=archives, shape=shape, num_images=NUM, fingerprints={})


def png(image: Images, mode: str = "RGB", kind: str = "PNG") -> bytes:
    """A (3, H, W) image as a file."""
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).convert(mode).save(file, kind)
    return file.getvalue()


def pngs(images: Images) -> dict[str, bytes]:
    """Numbered PNG members."""
    return {f"split/{k:07d}.png": png(image) for k, image in enumerate(images, 1)}


def python2_batch(data: Images, labels: list[int], keys: tuple[bytes, ...] = (b"labels",)) -> bytes:
    """A batch as Python 2 pickled it: strings where Python 3 has bytes. The labels stand under each of the keys."""
    rows = data.reshape(len(data), -1)
    raw = rows.tobytes()
    shape = b"K" + bytes([rows.shape[0]]) + b"K" + bytes([rows.shape[1]]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
    array += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    named = b"".join(b"U" + bytes([len(key)]) + key + numbers for key in keys)
    return b"\x80\x02}(U\x04data" + array + named + b"u."


def python3_batch(data: Images, labels: list[int], protocol: int = 4) -> bytes:
    """A batch as Python 3 pickles it."""
    return pickle.dumps({"data": data.reshape(len(data), -1), "labels": labels, "mean": data.mean(0)}, protocol)


def npz_batch(data: Images, labels: list[int]) -> bytes:
    """A batch as numpy's savez writes it."""
    file = io.BytesIO()
    np.savez(file, data=data.reshape(len(data), -1), labels=np.array(labels), mean=data.mean(0))
    return file.getvalue()


def shares(split: str, num: int, first_label: int = 0) -> list[tuple[Images, list[int]]]:
    """The images and labels of a split in `num` equal batches."""
    size = NUM[split] // num
    labels = [label + first_label for label in LABELS[split]]
    return [(IMAGES[split][k : k + size], labels[k : k + size]) for k in range(0, NUM[split], size)]


def images_of(source: Source, split: str) -> Images:
    """The images that `publish` puts into a split, as the source describes them."""
    images = IMAGES[split][:, : source.shape[0]]
    return images & 1 if source.levels == 2 else images


def write_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w") -> None:
    """A tar of plain files; a TarInfo stands for a member without content, such as a link."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """A deflated zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def cifar10_members() -> dict[str, bytes]:
    """All of the CIFAR-10 archive."""
    members = {"cifar-10-batches-py/readme.html": b"<html>"}
    for split, batches in CIFAR10_BATCHES.items():
        for name, (data, labels) in zip(batches, shares(split, len(batches)), strict=True):
            members[f"cifar-10-batches-py/{name}"] = python2_batch(data, labels)
    return members


def imagenet_members(split: str, kind: str = "pickle") -> dict[str, bytes]:
    """A zip of the 2017 release."""
    write, suffix = (npz_batch, ".npz") if kind == "npz" else (python3_batch, "")
    batches = IMAGENET_BATCHES[split]
    return {
        name + suffix: write(data, labels)
        for name, (data, labels) in zip(batches, shares(split, len(batches), first_label=1), strict=True)
    }


def cifar100_members() -> dict[str, bytes]:
    """All of the CIFAR-100 archive."""
    keys = (b"coarse_labels", b"fine_labels")
    batches = {split: python2_batch(IMAGES[split], LABELS[split], keys) for split in NUM}
    return {f"cifar-100-python/{name}": content for name, content in batches.items()} | {"cifar-100-python/meta": b""}


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """An idx file of unsigned bytes, gzipped."""
    return gzip.compress(struct.pack(f">{array.ndim + 1}I", 0x800 | array.ndim, *array.shape) + array.tobytes())


def amat(images: Images) -> bytes:
    """Lines of 0 and 1 with spaces between them."""
    rows = images.reshape(len(images), -1) & 1
    return "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist()).encode()


def publish(name: str, folder: Path, kind: str = "pickle") -> None:
    """All archives of the source `name` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "cifar100":
        write_tar(folder / "cifar-100-python.tar.gz", cifar100_members(), "w:gz")
    elif name in ("mnist", "fashion_mnist"):
        for split, short in (("train", "train"), ("test", "t10k")):
            (folder / f"{short}-images-idx3-ubyte.gz").write_bytes(idx(IMAGES[split][:, 0]))
            (folder / f"{short}-labels-idx1-ubyte.gz").write_bytes(idx(np.array(LABELS[split], np.uint8)))
    elif name == "svhn":
        for split in NUM:
            labels = np.array(LABELS[split], np.uint8)
            content = {"X": IMAGES[split].transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
            scipy.io.savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
    elif name == "binarized_mnist":
        for file, images in {
            "train": IMAGES["train"][:30, :1], "valid": IMAGES["train"][30:, :1], "test": IMAGES["test"][:, :1],
        }.items():  # fmt: skip
            (folder / f"binarized_mnist_{file}.amat").write_bytes(amat(images))
    elif name == "cifar10":
        write_tar(folder / "cifar-10-python.tar.gz", cifar10_members(), "w:gz")
    elif name == "imagenet32_vdo2016":
        for split, file in (("train", "train_32x32.tar"), ("test", "valid_32x32.tar")):
            write_tar(folder / file, pngs(IMAGES[split]))
    elif name == "imagenet32_box2017":
        end = "_npz.zip" if kind == "npz" else ".zip"
        for split, short in (("train", "train"), ("test", "val")):
            write_zip(folder / f"Imagenet32_{short}{end}", imagenet_members(split, kind))
