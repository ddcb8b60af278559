"""Throughput and memory of training images read from disk: a data set larger than memory, made of one shard.

    python benchmarks/loader.py --gigabytes 20 --folder scratch

One Parquet shard of 10,000 noise images of 64x64x3 is hard-linked until the size is reached and written as the flat
file of pixels that a training reads (pixelcnn.data.loader). Batches are then prefetched in the order of training steps,
first with an empty page cache, then again. The folder needs space for the file and is removed at the end.
"""

import argparse
import hashlib
import os
import resource
import shutil
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pixelcnn.data.dataset import CARD, DatasetInfo, SplitInfo, write_info
from pixelcnn.data.loader import PixelFile, flatten, prefetch, read
from pixelcnn.data.sampler import BatchSampler
from pixelcnn.data.writer import SplitWriter

SHAPE, PER_SHARD = (3, 64, 64), 10_000
CPU = torch.device("cpu")


def write_data(folder: Path, num_shards: int) -> None:
    """A prepared data set whose shards are all the same file."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with SplitWriter(folder, "train", SHAPE, True, PER_SHARD) as writer:
        for k in range(PER_SHARD):
            writer.add(generator.bytes(3 * 64 * 64), k % 1000, 0)
    (first,) = writer.info.shards
    names = [first, *(f"train-{n:05d}.parquet" for n in range(1, num_shards))]
    for name in names[1:]:
        os.link(folder / first, folder / name)
    split = SplitInfo(num_images=num_shards * PER_SHARD, fingerprint=writer.info.fingerprint, shards=tuple(names))
    words = dict.fromkeys(["title", "comparable_reason", "licence", "citation", "homepage"], "")
    words |= {"dataset": "noise", "source": "noise"}
    numbers = {"channel_means": (0.0,) * 3, "channel_deviations": (1.0,) * 3, "comparable": False, "levels": 256}
    classes = tuple(str(n) for n in range(1000))
    write_info(DatasetInfo(**words, **numbers, shape=SHAPE, classes=classes, splits={"train": split}), folder / CARD)  # type: ignore[arg-type]


def forget(path: Path) -> None:
    """Empty the system's cache of a file."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(images: PixelFile, labels: torch.Tensor, batch: int, steps: range) -> float:
    """Images per second of prefetching alone."""
    batches = prefetch(images, labels, BatchSampler(len(images), batch, seed=0), steps, CPU)
    next(batches)
    start, count = time.perf_counter(), sum(len(x) for x, _ in batches)
    return count / (time.perf_counter() - start)


def digest(images: PixelFile, labels: torch.Tensor, batch: int, first: int, last: int, skip: int) -> str:
    """A hash of the batches of the steps first + skip ... last, where prefetching begins at step `first`."""
    sha256 = hashlib.sha256()
    batches = prefetch(images, labels, BatchSampler(len(images), batch, seed=0), range(first, last + 1), CPU)
    for x, cond in islice(batches, skip, None):
        sha256.update(x.numpy().tobytes())
        sha256.update(b"" if cond is None else cond.numpy().tobytes())
    return sha256.hexdigest()


def peak() -> float:
    """Peak resident memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()
    num_shards = -(-int(args.gigabytes * 1e9) // (3 * 64 * 64 * PER_SHARD))
    data, path, steps = args.folder / "data", args.folder / "pixels", range(1, args.steps + 1)
    try:
        write_data(data, num_shards)
        before, start = peak(), time.perf_counter()
        flatten(data, "train", path)
        seconds, size = time.perf_counter() - start, path.stat().st_size
        print(f"{size / 1e9:.1f} GB written from Parquet in {seconds:.0f} s, {size / seconds / 1e6:.0f} MB/s")
        print(f"memory: {before:.0f} MB before, at most {peak():.0f} MB with a shard of {PER_SHARD:,} images")
        images, rest = read(data, "train", path, limit=0)
        assert isinstance(images, PixelFile)
        assert rest.labels is not None
        forget(path)
        print(f"page cache emptied: {rate(images, rest.labels, args.batch, steps):,.0f} images/s")
        print(f"cached, as far as memory goes: {rate(images, rest.labels, args.batch, steps):,.0f} images/s")
        print(f"memory: at most {peak():.0f} MB")
        whole = digest(images, rest.labels, args.batch, 1, args.steps, skip=args.steps // 2)
        resumed = digest(images, rest.labels, args.batch, args.steps // 2 + 1, args.steps, skip=0)
        print(f"resumed in mid-epoch: {'the same images' if whole == resumed else 'OTHER IMAGES'}")
    finally:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
