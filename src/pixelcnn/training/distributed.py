"""Data-parallel training by several processes, started by torchrun: each takes its shard of every batch, and gradients
are all-reduced.

All ranks have the same weights, optimizer states and EMA at every step, so that any of them holds the whole state and
any number of processes continues it. Gradients are summed in one all-reduce after the backward pass rather than by
DistributedDataParallel during it: so a rank may split its shard into micro-batches when its device runs out of memory
without the others' knowledge, and the network that is compiled, saved and averaged is the network itself.

Gradients and losses go by the devices' own backend (NCCL, or gloo without GPUs); signals, scores and names by gloo,
which does not synchronise with a device.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from pixelcnn.data.sampler import number

T = TypeVar("T")
TIMEOUT = timedelta(minutes=60)  # a data set may have to be copied before the first step


class LostRank(ConnectionError):
    """Another rank of the training has ended or does not answer."""


class World:
    """The ranks of one training; in `World(0, 1)`, a single process, collectives do nothing."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.host: dist.ProcessGroup | None = None
        if size > 1:
            self.host = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=TIMEOUT))

    @property
    def is_rank0(self) -> bool:
        """Whether this process logs, prints and saves."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """This rank's shard of the rows of a batch or a split; the shards, in the order of ranks, are the rows."""
        return rows if self.size == 1 else rows.tensor_split(self.size)[self.rank]

    def seed_dropout(self, seed: int, step: int) -> None:
        """Before a step: let each rank's dropout draw its own numbers, the same ones when the step is repeated."""
        if self.size > 1:
            torch.manual_seed(number(f"dropout of process {self.rank}", seed, step))

    def all_reduce_sum(self, gradients: list[Tensor], loss: Tensor) -> Tensor:
        """Sum the ranks' gradients, in place, and their losses, in one all-reduce."""
        if self.size == 1:
            return loss
        flat = torch.cat([loss.view(1), *(gradient.reshape(-1) for gradient in gradients)])
        with _naming_lost_ranks():
            dist.all_reduce(flat)
        sums = flat[1:].split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
        return flat[0]

    def all_reduce_max(self, value: int) -> int:
        """The greatest of the ranks' values."""
        if self.size == 1:
            return value
        shared = torch.tensor(value)
        with _naming_lost_ranks():
            dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.host)
        return int(shared)

    def all_gather(self, values: T) -> list[T]:
        """The values of all ranks, in their order."""
        if self.size == 1:
            return [values]
        gathered: list[T | None] = [None] * self.size
        with _naming_lost_ranks():
            dist.all_gather_object(gathered, values, group=self.host)
        return gathered  # type: ignore[return-value]  # none is missing now

    def once_per_machine(self, work: Callable[[], None]) -> None:
        """Let one rank of each machine do something, and the others wait for it."""
        if self.size == 1 or int(os.environ["LOCAL_RANK"]) == 0:
            work()
        self.all_reduce_max(0)


def started_by_torchrun() -> bool:
    """Whether this process is one of torchrun's."""
    return dist.is_torchelastic_launched()


def device() -> torch.device:
    """This process's device: a GPU of its own where there are any."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index, num = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= num:
        raise ValueError(
            f"train.processes, --nproc-per-node: more than the {num} GPUs of this machine; each process needs one"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def world(on: torch.device) -> Iterator[World]:
    """The ranks that torchrun has started; a world of one where it has started none."""
    if not started_by_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        yield World(0, 1)
        return
    dist.init_process_group("nccl" if on.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def _naming_lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostRank(f"lost another process of this training ({reason})") from error
