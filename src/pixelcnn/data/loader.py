"""The training images: on the device, in memory, or on disk, and prefetched batches of them.

On the device, batches cost no transfer. A split that would take too much device memory stays in main memory; one too
large for that is written to a flat file of its pixels and read image by image. From memory and disk, a few threads
prefetch the next batches. Whichever it is, the same steps get the same images.

The file is read, not memory-mapped: mapped pages would count as this process's memory (16 GB for ImageNet 64x64), and
every page fault would read 32 pages around the one needed.

Shapes: N images, C channels, H rows, W columns, B images of a batch.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
from torch import Tensor

from pixelcnn.data.dataset import Split, SplitName, read_conditions, read_info, read_shards, read_split
from pixelcnn.files import atomic

OF_MEMORY = 0.5  # the fraction of the machine's memory that a split may take
OF_DEVICE = 0.25  # the fraction of the free device memory that a split may take; activations need the rest
PREFETCHED = 8  # batches being read at a time, by as many threads: a cold disk needs several reads in flight

Batch = tuple[Tensor, Tensor | None]  # images (B, C, H, W) uint8 and their conditions (B, ...)


class PixelFile:
    """Images (N, C, H, W) uint8 in a flat file, indexed by rows. Only the rows asked for are read into memory."""

    def __init__(self, path: Path, shape: tuple[int, int, int]):
        self.shape, self.width = shape, math.prod(shape)
        self.file = os.open(path, os.O_RDONLY)
        size = os.fstat(self.file).st_size
        if size % self.width:
            raise ValueError(f"{path}: {size:,} bytes are not a whole number of images of {self.width:,}; delete it")
        self.num = size // self.width
        if hasattr(os, "posix_fadvise"):  # not on every system; no read-ahead, since the next row lies elsewhere
            os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_RANDOM)

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images (B, C, H, W) of rows (B,), in their order."""
        images = torch.empty(len(rows), self.width, dtype=torch.uint8)
        for image, row in zip(images.numpy(), rows.tolist(), strict=True):
            read = os.preadv(self.file, [image], row * self.width)
            if read != self.width:
                raise OSError(f"image {row}: {read:,} bytes of {self.width:,} read from the file of pixels")
        return images.view(-1, *self.shape)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


Images = Tensor | PixelFile


def flatten(folder: Path, split: SplitName, path: Path) -> None:
    """Write a split's pixels to the flat file `path`, one image after the other, unless it exists.

    Memory is that of one shard. The file is written atomically.
    """
    if path.exists():
        return
    with atomic(path) as file:
        for pixels, _ in read_shards(folder, split):
            file.write(pixels.data)


def memory() -> int:
    """Bytes of memory available to this process: the machine's, or the container's limit where it is lower."""
    total = psutil.virtual_memory().total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def read(folder: Path, split: SplitName, path: Path, limit: float) -> tuple[Images, Split]:
    """A split's images, and the split with its labels and embeddings.

    Beyond `limit` bytes the images stay on disk, in the file `path` that `flatten` has written; the split's own tensor
    of images is then empty. Raises ValueError for a file of the wrong size.
    """
    if not is_large(folder, split, limit):
        data = read_split(folder, split)
        return data.images, data
    info = read_info(folder)
    pixels, num = PixelFile(path, info.shape), info.splits[split].num_images
    if len(pixels) != num:
        raise ValueError(f"{path}: holds {len(pixels):,} images, the data set {num:,}; delete it")
    return pixels, read_conditions(folder, split)


def is_large(folder: Path, split: SplitName, limit: float) -> bool:
    """Whether a split's pixels take more than `limit` bytes."""
    info = read_info(folder)
    return info.splits[split].num_images * math.prod(info.shape) > limit


def prefetch(
    images: Images, conditions: Tensor | None, rows: Callable[[int], Tensor], steps: range, device: torch.device
) -> Iterator[Batch]:
    """The batch of each of `steps`, on the device: the images of rows(step) and their conditions.

    Batches from memory or disk are prefetched by threads. Raises OSError where a read fails.
    """
    if isinstance(images, Tensor) and _fits(images, conditions, device):
        images, conditions = images.to(device), None if conditions is None else conditions.to(device)
        for step in steps:
            yield _pick(images, conditions, to_device(rows(step), device))
        return

    def make(indices: Tensor) -> Batch:
        x, cond = _pick(images, conditions, indices)
        return (x, cond) if device.type == "cpu" else (x.pin_memory(), None if cond is None else cond.pin_memory())

    for x, cond in _in_threads(make, rows, steps):
        yield to_device(x, device), None if cond is None else to_device(cond, device)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of main memory on a device, by a copy that the CPU does not wait for (it would for pageable memory)."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)


def _pick(images: Images, conditions: Tensor | None, rows: Tensor) -> Batch:
    return images[rows], None if conditions is None else conditions[rows]


def _in_threads(make: Callable[[Tensor], Batch], rows: Callable[[int], Tensor], steps: range) -> Iterator[Batch]:
    """make(rows(step)) for each step in order, the next PREFETCHED computed by threads meanwhile."""
    with ThreadPoolExecutor(PREFETCHED, "batches") as pool:
        pending: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                pending.append(pool.submit(make, rows(step)))
                if len(pending) == PREFETCHED:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _fits(images: Tensor, conditions: Tensor | None, device: torch.device) -> bool:
    """Whether the images may lie on the device during the whole training."""
    if device == images.device:
        return True
    size = images.nbytes + (0 if conditions is None else conditions.nbytes)
    return size <= OF_DEVICE * torch.cuda.mem_get_info(device)[0]
