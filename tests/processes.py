"""A small training by several processes, for tests/test_distributed.py: as torchrun starts them, but faster."""

import os
import socket
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step imports it, which takes seconds: the forkserver does so once

from pixelcnn import checkpoint
from pixelcnn.data.dataset import Split
from pixelcnn.model import Data, build
from pixelcnn.params import Train
from pixelcnn.training import distributed
from pixelcnn.training.loop import train
from pixelcnn.training.state import Training
from tests.conftest import sections

NETWORK = {
    "name": "gated_pixelcnn", "condition": "label", "num_layers": 2, "hidden_channels": 12, "kernel_size": 3,
    "first_kernel_size": 5, "head_channels": 12, "dropout": 0.0,
}  # fmt: skip
SETTINGS = {
    "seed": 3, "steps": 50, "batch_size": 10, "learning_rate": 0.01, "warmup_steps": 3,
    "optimizer": "adamw", "betas": [0.9, 0.99], "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.9,
    "flips": True, "precision": "float32", "validate_every": 10, "schedule": {"name": "cosine"}, "initial": None,
}  # fmt: skip
FORKSERVER = get_context("forkserver")  # forks a process that has imported this module and done nothing else
FORKSERVER.set_forkserver_preload([__name__])


@dataclass
class Outcome:
    """The result of a process: losses and validations of its steps, its weights, and the error that ended it."""

    losses: list[float]
    validations: list[float]
    weights: list[float]
    error: str = ""


def data() -> Split:
    """31 images that can be learned: each row repeats one value."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 4, (31, 3, 5, 1), generator=generator, dtype=torch.uint8)
    return Split(rows.expand(-1, -1, -1, 8).contiguous(), torch.arange(31) % 3)


def begin(dropout: float) -> Training:
    """The training before its first step."""
    torch.manual_seed(0)
    shape = Data("stripes", (3, 5, 8), 4, ("cat", "dog", "emu"), {"train": "0", "validation": "1", "test": "2"})
    model = build(*sections(NETWORK | {"dropout": dropout}), shape)
    return Training.begin(model, Train.model_validate(SETTINGS))


def run_processes(num: int, state: Path, last: int, dropout: float = 0.0, killed: int = 0) -> list[Outcome | None]:
    """Train to step `last` by `num` processes, from the checkpoint `state` if it exists: the outcome of each rank.

    killed: the rank (at least 1) of a process that is killed after step 3, whose outcome is None; 0 for none.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcomes: Queue[tuple[int, Outcome]] = FORKSERVER.Queue()
    arguments = [(rank, num, port, state, last, dropout, rank == killed > 0, outcomes) for rank in range(num)]
    processes = [FORKSERVER.Process(target=worker, args=each) for each in arguments]
    for process in processes:
        process.start()
    found = dict(outcomes.get(timeout=120) for _ in range(num - (killed > 0)))
    for process in processes:
        process.join()
    return [found.get(rank) for rank in range(num)]


def worker(
    rank: int, num: int, port: int, state: Path, last: int, dropout: float, killed: bool, outcomes: "Queue[Any]"
) -> None:
    """The work of one process."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    training, outcome = begin(dropout), Outcome([], [], [])
    with distributed.world(distributed.device()) as world:
        if (saved := checkpoint.load_state(state)) is not None:
            training.load_state_dict(saved)
        world.all_gather(None)  # a barrier: all have read the checkpoint before rank 0 overwrites it
        try:
            train_to(training, world, last, killed, outcome)
        except distributed.LostRank as error:
            outcome.error = str(error)
        outcome.weights = torch.cat([p.detach().flatten() for p in training.model.network.parameters()]).tolist()
        if world.is_rank0:
            checkpoint.save_state(state, training.state_dict())
        outcomes.put((rank, outcome))


def train_to(training: Training, world: distributed.World, last: int, killed: bool, outcome: Outcome) -> None:
    """Train to step `last`; with `killed`, kill this process after step 3."""
    split = data()
    for step in train(training, split.images, split.labels, split, world):
        outcome.losses.append(float(step.loss))
        outcome.validations += [] if step.validation is None else [step.validation]
        if killed and step.step == 3:
            os.kill(os.getpid(), 9)
        if step.step == last:
            break
