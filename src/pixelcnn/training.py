"""Maximum likelihood training. The loop knows no MLflow and no files: `train` yields after every step.

A training is a function of its settings and its data: batches, flips and the learning rate follow from (seed, step),
so that what is saved between two steps is weights, moments, averages, the best so far and the state of dropout's
generator, and a resumed training ends with the same weights as an uninterrupted one.

Nothing here waits for the device between two steps: losses stay there until somebody reads them.
"""

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixelcnn import config
from pixelcnn.data.datasets import Split
from pixelcnn.evaluation import nll, score
from pixelcnn.likelihood import bits_per_dim
from pixelcnn.model import Model


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
    optimizer: torch.optim.Optimizer
    average: Model  # exponential moving average of the weights: what is validated and kept
    step: int = 0
    best_step: int = 0
    best_bits_per_dim: float = math.inf
    best_weights: dict[str, Tensor] | None = None

    @classmethod
    def begin(cls, model: Model, settings: config.Train) -> "Training":
        """A training before its first step; seed torch's generator before, since dropout draws from it."""
        average = Model(copy.deepcopy(model.network), model.likelihood, model.config, model.data)
        average.network.requires_grad_(False).eval()
        kernels = [p for p in model.network.parameters() if p.ndim > 1]
        others = [p for p in model.network.parameters() if p.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        beta1, beta2 = settings.adam_betas
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(beta1, beta2), fused=True)
        return cls(model, settings, optimizer, average)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and plain values."""
        device = self.model.device
        return {
            "step": self.step,
            "network": self.model.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": (self.best_step, self.best_bits_per_dim, self.best_weights),
            "generator": torch.get_rng_state(),
            "device_generator": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self.model.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_step, self.best_bits_per_dim, self.best_weights = state["best"]
        torch.set_rng_state(state["generator"].cpu())
        if state["device_generator"] is not None and self.model.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_generator"].cpu(), self.model.device)


def learning_rate(settings: config.Train, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine that reaches zero after the last step."""
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    done = (step - settings.warmup_steps) / (settings.steps + 1 - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


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
            self.order = torch.randperm(self.num_images, generator=_generator("order", self.seed, epoch))
            self.epoch = epoch
        return self.order


def _generator(purpose: str, seed: int, count: int) -> torch.Generator:
    """A generator of its own for each purpose, seed and count; hashed, since torch's takes 32 bits and no more."""
    digest = hashlib.sha256(f"{purpose} {seed} {count}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def flip(x: Tensor, seed: int, step: int) -> Tensor:
    """Each image of (B, C, H, W) mirrored left to right with probability one half, a function of (seed, step)."""
    mirrored = torch.rand(len(x), generator=_generator("flip", seed, step)) < 0.5
    return torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(3), x)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """average += (1 - d) (weights - average), d = min(decay, (1 + step) / (10 + step)).

    The ramp forgets the first, random weights: at a constant 0.9995 they would still weigh 60% after 1,000 steps.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 for convolutions where the settings ask for it and the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16" and has_bfloat16(device))


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware rather than emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def train(training: Training, data: Split, validation: Split) -> Iterator[Step]:
    """Train from `training.step` to `settings.steps`, yielding after every step. The state is whole at each yield."""
    model, settings = training.model, training.settings
    device = model.device
    images = data.images.to(device)
    conditions = model.conditions(data)
    conditions = None if conditions is None else conditions.to(device)
    batches = Batches(len(images), settings.batch_size, settings.seed)
    while training.step < settings.steps:
        step = training.step + 1
        rows = batches(step).to(device)
        x = images.index_select(0, rows)
        x = flip(x, settings.seed, step) if settings.flips else x
        cond = None if conditions is None else conditions.index_select(0, rows)
        rate = learning_rate(settings, step)
        loss = _descend(training, x, cond, rate)
        update_average(training.average.network, model.network, settings.ema_decay, step)
        training.step = step
        validated = None
        if step % settings.validate_every == 0 or step == settings.steps:
            validated = _validate(training, validation)
        yield Step(step, loss, rate, validated)


def _descend(training: Training, x: Tensor, cond: Tensor | None, rate: float) -> Tensor:
    """One step of the optimizer at learning rate `rate`; the batch's loss in bits/dim, detached."""
    model = training.model
    model.network.train()
    with autocast(model.device, training.settings.precision):
        output = model.network(x, cond)
    loss = bits_per_dim(model.likelihood.nll(output, x).mean(), model.dims)
    assert isinstance(loss, Tensor)
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.network.parameters(), training.settings.gradient_clip)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.step()
    return loss.detach()


def _validate(training: Training, validation: Split) -> float:
    """Bits/dim of the averaged weights on the validation split; remembers the best."""
    model = training.average
    bits = score(nll(model, validation, batch_size=4 * training.settings.batch_size), model.dims).bits_per_dim
    if bits < training.best_bits_per_dim:
        weights = {name: w.detach().cpu().clone() for name, w in model.network.state_dict().items()}
        training.best_step, training.best_bits_per_dim, training.best_weights = training.step, bits, weights
    return bits


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
