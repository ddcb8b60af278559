"""Which images make up the batch of a training step, and which of them are flipped: functions of (seed, step) alone.

So training resumes in mid-epoch without any saved state of its data, wherever the images lie.

Shapes: B images of a batch, C channels, H rows, W columns.
"""

import hashlib

import torch
from torch import Tensor


class BatchSampler:
    """The image indices of each batch: a new permutation of all images every epoch, a function of (seed, step)."""

    def __init__(self, num_images: int, batch_size: int, seed: int):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """Indices (B,) of step 1, 2, ... A batch may span two epochs, or more where it is larger than the data set."""
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
    """A 32-bit seed derived from (purpose, seed, count) by a hash; torch's CPU generators use no more bits."""
    digest = hashlib.sha256(f"{purpose} {seed} {count}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def generator(purpose: str, seed: int, count: int) -> torch.Generator:
    """An independent random generator for each (purpose, seed, count)."""
    return torch.Generator().manual_seed(number(purpose, seed, count))


def flip_mask(num: int, seed: int, step: int) -> Tensor:
    """Which images of a step's batch are flipped: (num,) booleans, each true with probability 1/2."""
    return torch.rand(num, generator=generator("flip", seed, step)) < 0.5


def flip(x: Tensor, mask: Tensor) -> Tensor:
    """Images (B, C, H, W), those where `mask` (B,) is true flipped left to right."""
    return torch.where(mask.to(x.device)[:, None, None, None], x.flip(3), x)
