"""The training loop: maximum likelihood by gradient descent. No files and no tracking: `train` yields after every step.

A training is a function of its settings and its data: batches, flips and the learning rate follow from (seed, step), so
that a checkpoint needs weights, optimizer states, EMA, the best weights and the state of dropout's generator, and a
resumed training ends with the same weights as an uninterrupted one. How many ranks share the batches, the size of a
micro-batch and where the images lie change nothing but rounding and the numbers that dropout draws.

Losses stay on the device until they are read, so that the loop itself does not synchronise with it.
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.data.dataset import Split
from pixelcnn.data.loader import Images, prefetch, to_device
from pixelcnn.data.sampler import BatchSampler, flip_mask, number
from pixelcnn.evaluation.nll import nll
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.training.distributed import World
from pixelcnn.training.schedules import ema_weight, learning_rate
from pixelcnn.training.state import Training
from pixelcnn.training.update import Inputs, make_update

DIVERGED = 10  # times the bits/dim of the uniform distribution: no model that has learnt anything is as bad
REMEDY = "A lower train.learning_rate or train.gradient_clip, or precision: float32, usually helps"
WARM_UP, SECONDS_MEASURED = 5, 30.0  # steps until caches and compilers have settled; what `steps_within` takes


@dataclass(frozen=True)
class Step:
    """What happened in one step, the first being step 1."""

    step: int
    loss: Tensor  # bits/dim of the batch, still on the device
    learning_rate: float
    validation: float | None  # bits/dim of the EMA, on validation steps


def train(
    training: Training, images: Images, conditions: Tensor | None, validation: Split, world: World
) -> Iterator[Step]:
    """Train from `training.step` to `settings.steps`, yielding after every step. The state is whole at each yield.

    Each rank calls this with the same arguments.
    """
    settings, device = training.settings, training.model.device
    sampler = BatchSampler(len(images), settings.batch_size, settings.seed)
    steps = range(training.step + 1, settings.steps + 1)
    update = make_update(training, world)
    batches = prefetch(images, conditions, lambda step: world.shard(sampler(step)), steps, device)
    for step, (x, cond) in zip(steps, batches, strict=True):
        flipped = world.shard(flip_mask(settings.batch_size, settings.seed, step)) if settings.flips else None
        rate = learning_rate(settings, step)
        world.seed_dropout(settings.seed, step)
        training.generator.manual_seed(number(f"objective of rank {world.rank}", settings.seed, step))
        on_device = None if flipped is None else to_device(flipped, device)
        loss = update(Inputs(x, cond, on_device, rate))
        training.update_ema(ema_weight(settings.ema_decay, step))
        training.step = step
        validated = None
        if step % settings.validate_every == 0 or step in (settings.trunk_steps, settings.steps):
            validated = _validate(training, validation, world)
        if step == settings.steps:
            _check_best(training)
        yield Step(step, loss, rate, validated)


def steps_within(
    seconds: float, training: Training, images: Images, conditions: Tensor | None, validation: Split, world: World
) -> int:
    """How many steps such a training makes in so many seconds, validations included. Trains some, to measure it."""
    began = time.monotonic()
    _validate(training, validation, world)
    validating = (time.monotonic() - began) / training.settings.validate_every
    training.settings = training.settings.model_copy(update={"steps": sys.maxsize, "validate_every": sys.maxsize})
    steps = train(training, images, conditions, validation, world)
    for _ in range(WARM_UP):
        float(next(steps).loss)
    began, num = time.monotonic(), 0
    while not world.all_reduce_max(time.monotonic() - began > SECONDS_MEASURED):
        float(next(steps).loss)
        num += 1
    return int(seconds / ((time.monotonic() - began) / num + validating))


def _validate(training: Training, validation: Split, world: World) -> float:
    """Bits/dim of the EMA on the validation split, a shard by each rank; remembers the best weights."""
    model = training.ema
    mine = validation.part(world.shard(torch.arange(len(validation.images)))) if world.size > 1 else validation
    nats = torch.cat(world.all_gather(nll(model, mine, batch_size=4 * training.micro_batch)))
    bits = float(bits_per_dim(nats, model.dims).mean())
    if bits < training.best_bits_per_dim:
        weights = {name: w.detach().cpu().clone() for name, w in model.network.state_dict().items()}
        training.best_step, training.best_bits_per_dim, training.best_weights = training.step, bits, weights
    return bits


def _check_best(training: Training) -> None:
    """At the end: raise FloatingPointError where the best weights, by validation, are those of a diverged training."""
    best, uniform = training.best_bits_per_dim, math.log2(training.model.data.levels)
    if not best < DIVERGED * uniform:
        raise FloatingPointError(
            f"step {training.step}: the training has diverged: {best:g} bits/dim at best on validation images, where "
            f"the uniform distribution has {uniform:.4g}. {REMEDY}"
        )


def finite_mean(losses: list[Tensor], last_step: int) -> float:
    """The mean of consecutive steps' losses, the last being that of `last_step`; reads them from the device.

    Raises FloatingPointError with the first step whose loss is not a finite number.
    """
    values = torch.stack(losses).cpu()
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        step = last_step - len(losses) + 1 + int(bad[0])
        value = float(values[int(bad[0])])
        raise FloatingPointError(f"step {step}: the loss is {value}. {REMEDY}; the last checkpoint precedes it")
    return float(values.mean())
