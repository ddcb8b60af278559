"""Which images a training step takes, and which of them are mirrored: functions of (seed, step) and nothing else.

So a training resumes in the middle of an epoch without a state of its data, and holds its images wherever it likes.
"""

import hashlib

import torch
from torch import Tensor


class Batches:
    """Which images each step takes: permutation after permutation of all of them, a function of (seed, step)."""

    def __init__(self, num_images: int, batch_size: int, seed: int):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """Indices (batch_size,) of step 1, 2, ..."""
        position, parts = (step - 1) * self.batch_size, []
        missing = self.batch_size
        while missing:
            epoch, offset = divmod(position, self.num_images)
            parts.append(self._permutation(epoch)[offset : offset + missing])
            position, missing = position + len(parts[-1]), missing - len(parts[-1])
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self.epoch:
            self.order = torch.randperm(self.num_images, generator=generator("order", self.seed, epoch))
            self.epoch = epoch
        return self.order


def number(purpose: str, seed: int, count: int) -> int:
    """A number for each purpose, seed and count; hashed, since torch's generators take 32 bits and no more."""
    digest = hashlib.sha256(f"{purpose} {seed} {count}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def generator(purpose: str, seed: int, count: int) -> torch.Generator:
    """A generator of its own for each purpose, seed and count."""
    return torch.Generator().manual_seed(number(purpose, seed, count))


def mirrored(num: int, seed: int, step: int) -> Tensor:
    """Which images of a step's batch are mirrored: (num,) booleans, each true with probability one half."""
    return torch.rand(num, generator=generator("flip", seed, step)) < 0.5


def flip(x: Tensor, which: Tensor) -> Tensor:
    """Those of the images (B, C, H, W) that `which` (B,) says mirrored left to right, whole."""
    return torch.where(which.to(x.device)[:, None, None, None], x.flip(3), x)
