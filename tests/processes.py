"""A small training by several processes, for tests/test_distributed.py: what torchrun starts, without its start-up."""

import os
import socket
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step imports it, which takes seconds: here it is done once for all

from pixelcnn import checkpoint, config
from pixelcnn.data.dataset import Split
from pixelcnn.model import Data, build
from pixelcnn.training import distributed
from pixelcnn.training.loop import Training, train

NETWORK = {
    "name": "gated_pixelcnn", "condition": "label", "num_layers": 2, "hidden_channels": 12, "kernel_size": 3,
    "first_kernel_size": 5, "head_channels": 12, "dropout": 0.0,
}  # fmt: skip
SETTINGS = {
    "seed": 3, "steps": 50, "batch_size": 10, "learning_rate": 0.01, "warmup_steps": 3,
    "optimizer": "adamw", "betas": [0.9, 0.99], "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.9,
    "flips": True, "precision": "float32", "validate_every": 10,
}  # fmt: skip
STARTED_ONCE = get_context("forkserver")  # forks a process that has imported this module, and done nothing else
STARTED_ONCE.set_forkserver_preload([__name__])


@dataclass
class Outcome:
    """What a process saw: losses and validations of its steps, its weights, or the error that ended it."""

    losses: list[float]
    validations: list[float]
    weights: list[float]
    error: str = ""


def data() -> Split:
    """31 images with something to learn: each row repeats one value."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 4, (31, 3, 5, 1), generator=generator, dtype=torch.uint8)
    return Split(rows.expand(-1, -1, -1, 8).contiguous(), torch.arange(31) % 3)


def begin(dropout: float) -> Training:
    """The training before its first step."""
    torch.manual_seed(0)
    shape = Data("stripes", (3, 5, 8), 4, ("cat", "dog", "emu"), {"train": "0", "validation": "1", "test": "2"})
    model = build(config.GatedPixelCNN.model_validate(NETWORK | {"dropout": dropout}), shape)
    return Training.begin(model, config.Train.model_validate(SETTINGS))


def go(num: int, state: Path, last: int, dropout: float = 0.0, dies: int = 0) -> list[Outcome | None]:
    """Train from the file `state`, if it is there, to step `last` by `num` processes: the outcome of each.

    From 1 on `dies` is the process that is killed after step 3; its outcome is None.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcomes: Queue[tuple[int, Outcome]] = STARTED_ONCE.Queue()
    arguments = [(rank, num, port, state, last, dropout, rank == dies > 0, outcomes) for rank in range(num)]
    processes = [STARTED_ONCE.Process(target=one, args=each) for each in arguments]
    for process in processes:
        process.start()
    found = dict(outcomes.get(timeout=120) for _ in range(num - (dies > 0)))
    for process in processes:
        process.join()
    return [found.get(rank) for rank in range(num)]


def one(
    rank: int, num: int, port: int, state: Path, last: int, dropout: float, dies: bool, outcomes: "Queue[Any]"
) -> None:
    """What one of the processes does."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    training, outcome = begin(dropout), Outcome([], [], [])
    with distributed.team(distributed.device()) as team:
        if (known := checkpoint.load_state(state)) is not None:
            training.load_state_dict(known)
        team.gather(None)  # all have read it before one writes it anew
        try:
            learn(training, team, last, dies, outcome)
        except distributed.LostProcess as error:
            outcome.error = str(error)
        outcome.weights = torch.cat([p.detach().flatten() for p in training.model.network.parameters()]).tolist()
        if team.first:
            checkpoint.save_state(state, training.state_dict())
        outcomes.put((rank, outcome))


def learn(training: Training, team: distributed.Team, last: int, dies: bool, outcome: Outcome) -> None:
    """Train to step `last`, or die after step 3."""
    split = data()
    for step in train(training, split.images, split.labels, split, team):
        outcome.losses.append(float(step.loss))
        outcome.validations += [] if step.validation is None else [step.validation]
        if dies and step.step == 3:
            os.kill(os.getpid(), 9)
        if step.step == last:
            break
