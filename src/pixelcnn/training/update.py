"""One update of the weights: gradients of the batch, clipping, the optimizers.

On a GPU the update is recorded as a CUDA graph and replayed (`RecordedUpdate`): issuing its thousand or more kernels
one by one takes the CPU several times as long as computing them takes the GPU.

Shapes: B images of this rank's shard of the batch, C channels, H rows, W columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pixelcnn.data.sampler import flip
from pixelcnn.device import autocast
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.recording import Recorder, recorder, say_not_recorded
from pixelcnn.training.distributed import World
from pixelcnn.training.state import Training, generator_states, restore_generators

EAGER_STEPS = 3  # before recording; real steps, which also warm up


@dataclass
class Inputs:
    """All that differs from step to step but for random numbers."""

    x: Tensor  # (B, C, H, W) uint8
    cond: Tensor | None  # (B, ...)
    flipped: Tensor | None  # (B,) booleans: which images are mirrored
    learning_rate: float | Tensor

    def on(self, device: torch.device) -> "Inputs":
        """A copy whose values are all tensors of a device."""
        cond, flipped = (None if t is None else t.to(device, copy=True) for t in (self.cond, self.flipped))
        return Inputs(self.x.to(device, copy=True), cond, flipped, torch.tensor(self.learning_rate, device=device))

    def copy_(self, other: "Inputs") -> None:
        """Take over another step's values, at the same addresses and without waiting for the device."""
        for mine, new in ((self.x, other.x), (self.cond, other.cond), (self.flipped, other.flipped)):
            if mine is not None and new is not None:
                mine.copy_(new, non_blocking=True)
        assert isinstance(self.learning_rate, Tensor)
        self.learning_rate.fill_(other.learning_rate)


class Update:
    """The update as its definition has it."""

    def __init__(self, training: Training, world: World):
        self.training, self.world = training, world

    def __call__(self, inputs: Inputs) -> Tensor:
        """Update the weights; the batch's loss in bits/dim, detached.

        A device that runs out of memory gets half as many images at a time, now and in all later steps.
        """
        training = self.training
        drawn = generator_states(training.model.device)
        while True:
            try:
                loss = self.gradients(inputs)
                break
            except torch.OutOfMemoryError as error:
                if training.micro_batch == 1:
                    raise ValueError(
                        "model: the device's memory does not suffice for one image at a time; fewer hidden_channels or "
                        "layers, or train.precision: bfloat16, need less"
                    ) from error
            # Here, not above: while the exception lives, so do the activations of the pass that failed
            training.micro_batch = -(-min(training.micro_batch, len(inputs.x)) // 2)
            restore_generators(drawn, training.model.device)
            if training.model.device.type == "cuda":
                torch.cuda.empty_cache()
        return self.descend(loss, inputs)

    def gradients(self, inputs: Inputs) -> Tensor:
        """Forward and backward, `micro_batch` images at a time: this rank's gradients, and its part of the loss."""
        training, settings = self.training, self.training.settings
        model, size, cond = training.model, training.micro_batch, inputs.cond
        model.network.train()
        model.network.zero_grad(set_to_none=True)
        images = inputs.x if inputs.flipped is None else flip(inputs.x, inputs.flipped)
        total = torch.zeros((), device=images.device)
        for start in range(0, len(images), size):
            x = images[start : start + size]
            with autocast(model.device, settings.precision):
                nats = training.objective(x, None if cond is None else cond[start : start + size], training.generator)
            # Weighted by the micro-batch's share of the whole batch
            loss = bits_per_dim(nats.mean(), model.dims) * (len(x) / settings.batch_size)
            loss.backward()
            total = total + loss.detach()
        return total

    def descend(self, loss: Tensor, inputs: Inputs) -> Tensor:
        """From all ranks' gradients to new weights; the whole batch's loss."""
        training = self.training
        parameters = [p for p in training.model.network.parameters() if p.grad is not None]
        loss = self.world.all_reduce_sum([p.grad for p in parameters if p.grad is not None], loss)
        nn.utils.clip_grad_norm_(parameters, training.settings.gradient_clip)
        for optimizer in training.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = inputs.learning_rate
            optimizer.step()
        return loss


class RecordedUpdate(Update):
    """The same, recorded after a few eager steps and replayed from then on.

    Where recording fails, the eager steps go on, after one line.
    """

    def __init__(self, training: Training, world: World, recorder: Recorder):
        super().__init__(training, world)
        self.recorder = recorder
        self.inputs: Inputs | None = None
        self.replay: Callable[[], Tensor] | None = None
        self.steps_until_recording = EAGER_STEPS

    def __call__(self, inputs: Inputs) -> Tensor:
        if self.inputs is None:
            self.inputs = inputs.on(self.training.model.device)
        else:
            self.inputs.copy_(inputs)
        if self.steps_until_recording == 0:
            self.record(self.inputs)
        self.steps_until_recording -= 1
        if self.replay is not None:
            return self.replay().clone()  # the next replay overwrites it
        return self.recorder.run(partial(super().__call__, self.inputs))

    def record(self, inputs: Inputs) -> None:
        """Record the update; nothing is computed by that."""
        try:
            self.replay = self.recorder.record(
                lambda: self.descend(self.gradients(inputs), inputs), [self.training.generator]
            )
        except Exception as error:  # whatever an architecture does that cannot be recorded
            say_not_recorded(error)


def make_update(training: Training, world: World) -> Update:
    """The update for the device at hand."""
    records = recorder(training.model.device)
    if records is None:
        return Update(training, world)
    if world.size > 1:
        if world.is_rank0:
            print("several processes: steps are not recorded as CUDA graphs", flush=True)
        return Update(training, world)
    return RecordedUpdate(training, world, records)
