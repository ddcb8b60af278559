"""Where a training's images lie: on the device, in memory, or on disk. The steps get the same images from each.

On the device they cost no transfer; a split that would take too much of it stays in memory, and one too large for
memory becomes a flat file of its pixels, read image by image. A few threads read and transfer the next batches
meanwhile. Reads, not a memory map: pages of a map would count as this process's memory, 16 GB of them for ImageNet
64x64, and every miss would read 32 pages around the one asked for.

Shapes: N images, C channels, H rows, W columns, B images of a step.
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

from pixelcnn.data.dataset import Split, SplitName, read_card, read_conditions, read_shards, read_split

OF_MEMORY = 0.5  # the share of the machine's memory that a split may take; the rest is the training's and others'
OF_DEVICE = 0.25  # and of the device's that is free: activations want the rest
AHEAD = 8  # batches in the making: that many reads of a cold disk are under way at once

Batch = tuple[Tensor, Tensor | None]  # images (B, C, H, W) uint8 and their conditions (B, ...)


class PixelFile:
    """Images (N, C, H, W) uint8 in a flat file, indexed by rows. Memory is that of the rows asked for."""

    def __init__(self, path: Path, shape: tuple[int, int, int]):
        self.shape, self.width = shape, math.prod(shape)
        self.file = os.open(path, os.O_RDONLY)
        size = os.fstat(self.file).st_size
        if size % self.width:
            raise ValueError(f"{path}: {size:,} bytes are no whole number of images of {self.width:,}; delete it")
        self.num = size // self.width
        if hasattr(os, "posix_fadvise"):  # not on every system: no reading ahead, the next row is elsewhere
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
    """Write a split's pixels one image after the other, if the file is not there yet; memory is that of one shard."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):  # by one killed meanwhile
        left.unlink()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as handle:
        for pixels, _ in read_shards(folder, split):
            handle.write(pixels.data)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def memory() -> int:
    """Bytes of memory that this process may hope for: the machine's, or less where a container says so."""
    total = psutil.virtual_memory().total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def read(folder: Path, split: SplitName, path: Path, limit: float) -> tuple[Images, Split]:
    """A split's images, and the split for what else belongs to them (its own images are none where they lie on disk).

    Beyond `limit` bytes they stay on disk, in the file `path`, which `flatten` has made.
    """
    if not is_large(folder, split, limit):
        data = read_split(folder, split)
        return data.images, data
    card = read_card(folder)
    pixels, num = PixelFile(path, card.shape), card.splits[split].num_images
    if len(pixels) != num:
        raise ValueError(f"{path}: holds {len(pixels):,} images, the data set {num:,}; delete it")
    return pixels, read_conditions(folder, split)


def is_large(folder: Path, split: SplitName, limit: float) -> bool:
    """Whether a split's pixels are more than `limit` bytes."""
    card = read_card(folder)
    return card.splits[split].num_images * math.prod(card.shape) > limit


def feed(
    images: Images, conditions: Tensor | None, rows: Callable[[int], Tensor], steps: range, device: torch.device
) -> Iterator[Batch]:
    """What each of `steps` trains on, on the device: the images of rows(step) and their conditions."""
    if isinstance(images, Tensor) and _fits(images, conditions, device):
        images, conditions = images.to(device), None if conditions is None else conditions.to(device)
        for step in steps:
            yield _pick(images, conditions, rows(step).to(device))
        return

    def make(of_step: Tensor) -> Batch:
        x, cond = _pick(images, conditions, of_step)
        return (x, cond) if device.type == "cpu" else (x.pin_memory(), None if cond is None else cond.pin_memory())

    for x, cond in _ahead(make, rows, steps):
        yield x.to(device, non_blocking=True), None if cond is None else cond.to(device, non_blocking=True)


def _pick(images: Images, conditions: Tensor | None, rows: Tensor) -> Batch:
    return images[rows], None if conditions is None else conditions[rows]


def _ahead(make: Callable[[Tensor], Batch], rows: Callable[[int], Tensor], steps: range) -> Iterator[Batch]:
    """make(rows(step)) for each step, the next few being made by threads meanwhile."""
    with ThreadPoolExecutor(AHEAD, "batches") as pool:
        making: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                making.append(pool.submit(make, rows(step)))
                if len(making) == AHEAD:
                    yield making.popleft().result()
            while making:
                yield making.popleft().result()
        finally:
            for future in making:
                future.cancel()


def _fits(images: Tensor, conditions: Tensor | None, device: torch.device) -> bool:
    """Whether the images may lie on the device from the first step to the last."""
    if device == images.device:
        return True
    size = images.nbytes + (0 if conditions is None else conditions.nbytes)
    return size <= OF_DEVICE * torch.cuda.mem_get_info(device)[0]
