"""All that a training is between two steps: weights, EMA, optimizer states, the best weights so far."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pixelcnn import device
from pixelcnn.model import Model
from pixelcnn.params import Train
from pixelcnn.training.optimizers import make_optimizers

Objective = Callable[[Tensor, Tensor | None, torch.Generator], Tensor]


@dataclass
class Training:
    """The state of a training. `ema` holds the weights that are validated and, at their best, written."""

    model: Model
    settings: Train
    optimizers: list[torch.optim.Optimizer]
    ema: Model
    objective: Objective  # the network's, compiled where that pays
    micro_batch: int  # images in one forward pass; halved when the device runs out of memory
    generator: torch.Generator  # of the objective's own noise; seeded anew in each step
    step: int = 0
    best_step: int = 0
    best_bits_per_dim: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    averaged: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (EMA, weights): parameters and float buffers

    @classmethod
    def begin(cls, model: Model, settings: Train) -> "Training":
        """A training before its first step. Seed torch's global generator first: dropout draws from it."""
        ema = replace(model, network=copy.deepcopy(model.network))
        ema.network.requires_grad_(False).eval()
        saved, averages = model.network.state_dict(keep_vars=True), ema.network.state_dict(keep_vars=True)
        averaged = [(averages[name], weight) for name, weight in saved.items() if weight.is_floating_point()]
        objective = device.objective(model.network, model.device)
        optimizers, generator = make_optimizers(model, settings), torch.Generator(model.device)
        return cls(model, settings, optimizers, ema, objective, settings.batch_size, generator, averaged=averaged)

    @torch.no_grad()
    def update_ema(self, weight: float) -> None:
        """ema += weight (weights - ema)."""
        averages, weights = zip(*self.averaged, strict=True)
        torch._foreach_lerp_(list(averages), [w.detach() for w in weights], weight)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and plain values. The best weights are left out where they are the EMA."""
        generator, device_generator = generator_states(self.model.device)
        best_weights = None if self.best_step == self.step else self.best_weights
        return {
            "step": self.step,
            "network": self.model.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "best": (self.best_step, self.best_bits_per_dim, best_weights),
            "generator": generator,
            "device_generator": device_generator,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.step = state["step"]
        self.model.network.load_state_dict(state["network"])
        self.ema.network.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            # The groups' settings are the run's and the device's, not the checkpoint's
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
            for weight, moments in optimizer.state.items():  # perhaps saved in another device's memory format
                moments |= {k: torch.empty_like(weight).copy_(m) for k, m in moments.items() if m.shape == weight.shape}
        self.best_step, self.best_bits_per_dim, self.best_weights = state["best"]
        if self.best_weights is None and self.best_step:
            self.best_weights = {name: weight.clone() for name, weight in state["ema"].items()}
        restore_generators((state["generator"], state["device_generator"]), self.model.device)


def generator_states(on: torch.device) -> tuple[Tensor, Tensor | None]:
    """The states of the generators that dropout draws from: the CPU's, and a GPU's where there is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(on) if on.type == "cuda" else None


def restore_generators(states: tuple[Tensor, Tensor | None], on: torch.device) -> None:
    """Let dropout draw again what it drew after `generator_states`."""
    torch.set_rng_state(states[0].cpu())
    if states[1] is not None and on.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), on)
