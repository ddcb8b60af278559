"""Size and time of lossless compression with a model, beside image formats on the same images.

    python benchmarks/coding.py models/cifar10-gated-small data/prepared/cifar10:test:256

For an unconditional model. Bits per sub-pixel of: the model's NLL, its archive (pixels alone, and the whole file), PNG
and WebP by Pillow with their strongest compression, a file per image, and JPEG XL where the program `cjxl` or the
package imagecodecs is installed. Every file is decoded again and compared. Milliseconds per image, wall clock.
"""

import argparse
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from pixelcnn.cli import arguments, operands
from pixelcnn.evaluation.nll import nll
from pixelcnn.evaluation.scores import score
from pixelcnn.generation import compression

A = TypeVar("A")
T = TypeVar("T")
Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help=arguments.MODEL)
    parser.add_argument("images", nargs="+", help=arguments.IMAGES)
    parser.add_argument("--batch-size", type=arguments.count, default=64)
    parser.set_defaults(skip_bad=False)
    args = parser.parse_args()
    model = operands.load_model(args.model, None)
    given = operands.read_images(args, model)
    images = dict(zip(given.names, given.images, strict=True))
    dims = model.dims * len(images)

    split = operands.as_split(given, model, None)
    nats, seconds = timed(lambda: nll(model, split, args.batch_size))
    total = score(nats, model.dims)
    print(f"{len(images)} images of {model.shape}, {torch.get_num_threads()} threads, model on {model.device}")
    print(f"{'':24} bits/dim   of NLL   ms/image to encode, decode")
    show("NLL", total.bits_per_dim, total.bits_per_dim, seconds / len(images))

    archive, encoding = timed(lambda: compression.compress(model, images, args.batch_size))
    decoded, decoding = timed(lambda: compression.decompress(model, archive))
    assert all(torch.equal(decoded[name], image) for name, image in images.items()), "not lossless"
    _, payload = compression.unpack(archive)
    times = encoding / len(images), decoding / len(images)
    show("archive, pixels", 8 * len(payload) / dims, total.bits_per_dim, *times)
    show("archive, whole file", 8 * len(archive) / dims, total.bits_per_dim, *times)

    arrays = [image.permute(1, 2, 0).squeeze(2).contiguous().numpy() for image in images.values()]
    for name, encode, decode in formats():
        files, encoding = timed(partial(each, encode, arrays))
        back, decoding = timed(partial(each, decode, files))
        assert all(same(a, b) for a, b in zip(arrays, back, strict=True)), f"{name}: not lossless"
        times = encoding / len(images), decoding / len(images)
        show(name, 8 * sum(map(len, files)) / dims, total.bits_per_dim, *times)


def each(work: Callable[[A], T], given: Iterable[A]) -> list[T]:
    return [work(one) for one in given]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def show(name: str, bits_per_dim: float, nll_bits_per_dim: float, *seconds: float) -> None:
    """One row of the table."""
    times = "".join(f"{1000 * each:10.1f}" for each in seconds)
    print(f"{name:24} {bits_per_dim:8.4f} {100 * bits_per_dim / nll_bits_per_dim:8.2f}% {times}", flush=True)


def formats() -> Iterable[tuple[str, Encode, Decode]]:
    """Name, encoder and decoder of the image formats that are installed."""
    yield "PNG, Pillow optimize", lambda x: by_pillow(x, format="PNG", optimize=True), read_by_pillow
    yield "WebP, Pillow method 6", lambda x: by_pillow(x, format="WEBP", lossless=True, method=6), read_by_pillow
    if find_spec("imagecodecs"):
        import imagecodecs

        decode = imagecodecs.jpegxl_decode
        yield "JPEG XL, effort 9", lambda x: imagecodecs.jpegxl_encode(x, lossless=True, effort=9), decode
    elif shutil.which("cjxl") and shutil.which("djxl"):
        yield "JPEG XL, cjxl -e 9", lambda x: converted(["cjxl", "-d", "0", "-e", "9", "--quiet"], x), read_jxl
    else:
        print("JPEG XL: skipped, neither cjxl nor imagecodecs is installed")


def same(given: np.ndarray, found: np.ndarray) -> bool:
    """Whether the pixels are equal; WebP returns grey images as RGB."""
    return bool((given.reshape(*found.shape[:2], -1) == found.reshape(*found.shape[:2], -1)).all())


def by_pillow(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, **options)
    return file.getvalue()


def read_by_pillow(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.array(image)


def converted(command: list[str], array: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "a.png"), Path(folder, "a.jxl")
        Image.fromarray(array).save(source)
        subprocess.run([*command, source, target], check=True, capture_output=True)
        return target.read_bytes()


def read_jxl(file: bytes) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "a.jxl"), Path(folder, "a.png")
        source.write_bytes(file)
        subprocess.run(["djxl", source, target, "--quiet"], check=True, capture_output=True)
        return read_by_pillow(target.read_bytes())


if __name__ == "__main__":
    main()
