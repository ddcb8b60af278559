"""Maximum likelihood training. The loop knows no MLflow and no files: `train` yields after every step.

A training is a function of its settings and its data: batches, flips and the learning rate follow from (seed, step),
so that what is saved between two steps is weights, moments, averages, the best so far and the state of dropout's
generator, and a resumed training ends with the same weights as an uninterrupted one. How many processes share the
batches, how many images a device takes at a time and where the images lie change nothing but rounding and which
numbers dropout draws.

Nothing here waits for the device between two steps: losses stay there until somebody reads them.
"""

import copy
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixelcnn import config
from pixelcnn.data.dataset import Split
from pixelcnn.data.loader import Batch, Images, feed
from pixelcnn.data.sampler import Batches, flip, mirrored
from pixelcnn.device import Forward, autocast, dtype, forward
from pixelcnn.evaluation.nll import nll, score
from pixelcnn.likelihoods.categorical import bits_per_dim
from pixelcnn.model import Model
from pixelcnn.training.distributed import Team
from pixelcnn.training.muon import Muon

WARM_UP, SECONDS_MEASURED = 5, 30.0  # steps until caches and compilers have settled; what `steps_within` takes


@dataclass(frozen=True)
class Step:
    """What happened in one step, the first being step 1."""

    step: int
    loss: Tensor  # bits/dim of the batch, still on the device
    learning_rate: float
    validation: float | None  # bits/dim of the averaged weights, on validation steps


@dataclass
class Training:
    """All that a training is between two steps."""

    model: Model
    settings: config.Train
    optimizers: list[torch.optim.Optimizer]
    average: Model  # exponential moving average of the weights: what is validated and kept
    forward: Forward  # the network's, as it is fast on its device
    micro_batch: int  # images that the device takes at a time; halved when its memory does not suffice
    step: int = 0
    best_step: int = 0
    best_bits_per_dim: float = math.inf
    best_weights: dict[str, Tensor] | None = None

    @classmethod
    def begin(cls, model: Model, settings: config.Train) -> "Training":
        """A training before its first step; seed torch's generator before, since dropout draws from it."""
        average = Model(copy.deepcopy(model.network), model.likelihood, model.config, model.data)
        average.network.requires_grad_(False).eval()
        fast = forward(model.network, model.device)
        return cls(model, settings, _optimizers(model, settings), average, fast, settings.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and plain values."""
        generator, device_generator = _generators(self.model.device)
        return {
            "step": self.step,
            "network": self.model.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "best": (self.best_step, self.best_bits_per_dim, self.best_weights),
            "generator": generator,
            "device_generator": device_generator,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self.model.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for weight, moments in optimizer.state.items():  # saved in the layout of another device, perhaps
                moments |= {k: torch.empty_like(weight).copy_(m) for k, m in moments.items() if m.shape == weight.shape}
        self.best_step, self.best_bits_per_dim, self.best_weights = state["best"]
        _restore((state["generator"], state["device_generator"]), self.model.device)


def _optimizers(model: Model, settings: config.Train) -> list[torch.optim.Optimizer]:
    """AdamW and, where the settings say so, Muon for the kernels. Biases and gains do not decay."""
    kernels = [p for p in model.network.parameters() if p.ndim > 1]
    others = [p for p in model.network.parameters() if p.ndim <= 1]
    rate, decay, (beta1, beta2) = settings.learning_rate, settings.weight_decay, settings.betas
    by_adam = [{"params": others, "weight_decay": 0.0}]
    if settings.optimizer == "muon":
        muon = [Muon(kernels, rate, beta1, decay, products=dtype(model.device, settings.precision))]
    else:
        muon = []
        by_adam.insert(0, {"params": kernels, "weight_decay": decay})
    return [torch.optim.AdamW(by_adam, lr=rate, betas=(beta1, beta2), fused=True), *muon]


def learning_rate(settings: config.Train, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine that reaches zero after the last step."""
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    done = (step - settings.warmup_steps) / (settings.steps + 1 - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """average += (1 - d) (weights - average), d = min(decay, (1 + step) / (10 + step)).

    The ramp forgets the first, random weights: at a constant 0.9995 they would still weigh 60% after 1,000 steps.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)


def train(
    training: Training, images: Images, conditions: Tensor | None, validation: Split, team: Team
) -> Iterator[Step]:
    """Train from `training.step` to `settings.steps`, yielding after every step. The state is whole at each yield.

    Each process of the team calls this with the same arguments.
    """
    settings, device = training.settings, training.model.device
    batches = Batches(len(images), settings.batch_size, settings.seed)
    steps = range(training.step + 1, settings.steps + 1)
    fed = feed(images, conditions, lambda step: team.part(batches(step)), steps, device)
    for step, (x, cond) in zip(steps, fed, strict=True):
        if settings.flips:
            x = flip(x, team.part(mirrored(settings.batch_size, settings.seed, step)))
        rate = learning_rate(settings, step)
        team.seed(settings.seed, step)
        loss = _descend(training, (x, cond), rate, team)
        update_average(training.average.network, training.model.network, settings.ema_decay, step)
        training.step = step
        validated = None
        if step % settings.validate_every == 0 or step == settings.steps:
            validated = _validate(training, validation, team)
        yield Step(step, loss, rate, validated)


def steps_within(
    seconds: float, training: Training, images: Images, conditions: Tensor | None, validation: Split, team: Team
) -> int:
    """How many steps such a training makes in so many seconds, validations included. Trains some, to measure it."""
    began = time.monotonic()
    _validate(training, validation, team)
    validating = (time.monotonic() - began) / training.settings.validate_every
    training.settings = training.settings.model_copy(update={"steps": sys.maxsize, "validate_every": sys.maxsize})
    steps = train(training, images, conditions, validation, team)
    for _ in range(WARM_UP):
        float(next(steps).loss)
    began, num = time.monotonic(), 0
    while not team.highest(time.monotonic() - began > SECONDS_MEASURED):
        float(next(steps).loss)
        num += 1
    return int(seconds / ((time.monotonic() - began) / num + validating))


def _descend(training: Training, batch: Batch, rate: float, team: Team) -> Tensor:
    """One step of the optimizer at learning rate `rate`; the batch's loss in bits/dim, detached."""
    network = training.model.network
    network.train()
    loss = _gradients(training, batch)
    loss = team.add([p.grad for p in network.parameters() if p.grad is not None], loss)
    nn.utils.clip_grad_norm_(network.parameters(), training.settings.gradient_clip)
    for optimizer in training.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return loss


def _gradients(training: Training, batch: Batch) -> Tensor:
    """The gradients of this process's part of a batch, and its part of the loss.

    A device that runs out of memory gets half as many images at a time, now and in all later steps.
    """
    drawn = _generators(training.model.device)
    while True:
        training.model.network.zero_grad(set_to_none=True)
        try:
            return _accumulate(training, batch)
        except torch.OutOfMemoryError as error:
            if training.micro_batch == 1:
                raise ValueError(
                    "model: the device's memory does not suffice for one image at a time; fewer hidden_channels or "
                    "layers, or train.precision: bfloat16, need less"
                ) from error
        # here, not above: while the exception lives, so do the activations of the pass that failed
        training.micro_batch = -(-min(training.micro_batch, len(batch[0])) // 2)
        _restore(drawn, training.model.device)
        if training.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _accumulate(training: Training, batch: Batch) -> Tensor:
    """Forward and backward, `micro_batch` images at a time, each weighted by its share of the whole batch."""
    model, settings, (x, cond) = training.model, training.settings, batch
    total = torch.zeros((), device=x.device)
    for start in range(0, len(x), training.micro_batch):
        some = slice(start, start + training.micro_batch)
        with autocast(model.device, settings.precision):
            output = training.forward(x[some], None if cond is None else cond[some])
        loss = bits_per_dim(model.likelihood.nll(output, x[some]).mean(), model.dims)
        assert isinstance(loss, Tensor)
        loss = loss * (len(x[some]) / settings.batch_size)
        loss.backward()
        total = total + loss.detach()
    return total


def _validate(training: Training, validation: Split, team: Team) -> float:
    """Bits/dim of the averaged weights on the validation split, a part by each process; remembers the best."""
    model = training.average
    mine = validation.part(team.part(torch.arange(len(validation.images)))) if team.size > 1 else validation
    nats = torch.cat(team.gather(nll(model, mine, batch_size=4 * training.micro_batch)))
    bits = score(nats, model.dims).bits_per_dim
    if bits < training.best_bits_per_dim:
        weights = {name: w.detach().cpu().clone() for name, w in model.network.state_dict().items()}
        training.best_step, training.best_bits_per_dim, training.best_weights = training.step, bits, weights
    return bits


def _generators(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The states of the generators that dropout draws from: the CPU's, and a GPU's where there is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(states: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Let dropout draw again what it drew after `_generators`."""
    torch.set_rng_state(states[0].cpu())
    if states[1] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)


def finite_mean(losses: list[Tensor], last_step: int) -> float:
    """The mean of consecutive steps' losses, the last being that of `last_step`; reads them from the device.

    Raises FloatingPointError with the first step whose loss is not a finite number.
    """
    values = torch.stack(losses).cpu()
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        step = last_step - len(losses) + 1 + int(bad[0])
        value = float(values[int(bad[0])])
        raise FloatingPointError(
            f"step {step}: the loss is {value}. A lower train.learning_rate or train.gradient_clip, or precision: "
            "float32, usually helps; the last checkpoint precedes it"
        )
    return float(values.mean())
