"""One training by several processes, started by torchrun: each takes its part of every batch, and gradients are added.

All processes have the same weights, moments and averages at every step, so that any of them holds the whole state and
any number of processes continues it. The sum of the gradients is taken once per step, after the backward pass, rather
than by DistributedDataParallel during it: so a process may split its part into micro-batches when its device runs out
of memory without the others knowing, and the network that is compiled, saved and averaged is the network itself.

What goes between processes: gradients and losses by the devices' own network (NCCL, or gloo without GPUs); signals,
scores and names by gloo, which waits for no device.
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
PATIENCE = timedelta(minutes=60)  # a data set may have to be copied before the first step


class LostProcess(ConnectionError):
    """Another process of the training has ended or does not answer."""


class Team:
    """The processes of one training; `Team(0, 1)` is a training alone, whose methods do nothing."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.host: dist.ProcessGroup | None = None
        if size > 1:
            self.host = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks, logs and saves."""
        return self.rank == 0

    def part(self, rows: Tensor) -> Tensor:
        """This process's part of the rows of a batch or a split; the parts, in the order of ranks, are the rows."""
        return rows if self.size == 1 else rows.tensor_split(self.size)[self.rank]

    def seed(self, seed: int, step: int) -> None:
        """Before a step: let dropout draw other numbers in each process, the same ones when the step is repeated."""
        if self.size > 1:
            torch.manual_seed(number(f"dropout of process {self.rank}", seed, step))

    def add(self, gradients: list[Tensor], loss: Tensor) -> Tensor:
        """Add the processes' gradients, in place, and their losses: one message."""
        if self.size == 1:
            return loss
        flat = torch.cat([loss.view(1), *(gradient.reshape(-1) for gradient in gradients)])
        with _company():
            dist.all_reduce(flat)
        sums = flat[1:].split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
        return flat[0]

    def highest(self, value: int) -> int:
        """The highest of the processes' values."""
        if self.size == 1:
            return value
        shared = torch.tensor(value)
        with _company():
            dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.host)
        return int(shared)

    def gather(self, values: T) -> list[T]:
        """The values of all processes, in the order of ranks."""
        if self.size == 1:
            return [values]
        gathered: list[T | None] = [None] * self.size
        with _company():
            dist.all_gather_object(gathered, values, group=self.host)
        return gathered  # type: ignore[return-value]  # none is missing now

    def once_per_machine(self, work: Callable[[], None]) -> None:
        """Let one process of each machine do something, and the others wait for it."""
        if self.size == 1 or int(os.environ["LOCAL_RANK"]) == 0:
            work()
        self.highest(0)


def started_by_torchrun() -> bool:
    """Whether this process is one of torchrun's."""
    return dist.is_torchelastic_launched()


def device() -> torch.device:
    """This process's device: a GPU of its own where there are any."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index, num = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= num:
        raise ValueError(f"train.processes, --nproc-per-node: more than the {num} GPUs of this machine, a process each")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def team(on: torch.device) -> Iterator[Team]:
    """The processes that torchrun has started; this one alone where it has started none."""
    if not started_by_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Team(0, 1)
        return
    dist.init_process_group("nccl" if on.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def _company() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostProcess(f"another process of this training is gone ({reason})") from error
