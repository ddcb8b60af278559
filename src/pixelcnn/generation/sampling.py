"""Ancestral sampling: `sample_full` is the definition, `sample` draws the same images for a few forward passes.

Sub-pixels are drawn in the one order: rows, then columns, then channels. All randomness is one uniform number per
sub-pixel, drawn image by image from a torch.Generator, so the same seed draws the same images whatever the batch size,
and by either sampler. That is exact in float64 (`in_float64`). In float32 the last bits of an output depend on how a
product is arranged, and now and then a draw at the edge between two levels falls to the other side.

Shapes: B batch, N images, C channels, H rows, W columns, K outputs of the network for a group of channels.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pixelcnn.likelihoods.base import draw
from pixelcnn.model import Model
from pixelcnn.nn.interfaces import FullStepper, Stepper

# choose(i, j, c, outputs) -> the values (B,) of a sub-pixel, given the outputs (B, K) that describe it
Choose = Callable[[int, int, int, Tensor], Tensor]
OnRow = Callable[[int], object]  # called after each row of each batch, for progress


def walk(stepper: Stepper, choose: Choose) -> Iterator[int]:
    """Visit every sub-pixel in order and feed what `choose` returns. Yields after each row.

    Sampling, completion and coding are three `choose` functions: draw, draw unless known, encode or decode.
    """
    _, channels, height, width = stepper.shape
    for i in range(height):
        stepper.begin_row(i)
        for j in range(width):
            stepper.begin_pixel(j)
            for c in range(channels):
                stepper.feed(c, choose(i, j, c, stepper.outputs(c)))
        yield i


def begin(model: Model, num: int, cond: Tensor | None = None) -> Stepper:
    """The state of `num` images not yet begun, by the network's own stepper."""
    _, height, width = model.shape
    return model.network.stepper(num, height, width, cond)


def blank(model: Model, num: int) -> Tensor:
    """Images (num, C, H, W) uint8 of zeros, on the model's device."""
    return torch.zeros(num, *model.shape, dtype=torch.uint8, device=model.device)


def in_float64(model: Model) -> Model:
    """The model with a copy of its network in float64: about a quarter slower on a CPU.

    Rounding errors are 1e-13 instead of 1e-4, so what is drawn no longer depends on the batch size.
    """
    return replace(model, network=copy.deepcopy(model.network).double())


def uniforms(num: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """(num, C, H, W) float64 in [0, 1), image after image from a CPU generator."""
    return torch.stack([torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(num)])


def sample_full(
    model: Model, num: int, generator: torch.Generator, cond: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """`num` images (num, C, H, W) uint8 by a forward pass per group of channels: slow, the reference of `sample`."""
    images, noise = blank(model, num), uniforms(num, model.shape, generator).to(model.device)
    known = torch.zeros(images[:, 0].shape, dtype=torch.bool, device=model.device)
    fill(model, FullStepper(model.network, num, *model.shape[1:], cond), images, known, noise, temperature)
    return images


def sample(
    model: Model,
    num: int,
    generator: torch.Generator,
    cond: Tensor | None = None,
    temperature: float = 1.0,
    on_row: OnRow = lambda _: None,
    batch_size: int | None = None,
) -> Tensor:
    """`num` images (num, C, H, W) uint8, incrementally: the images that `sample_full` draws from the same generator.

    cond: one condition per image along its first axis (labels (num,) int64, embeddings or codes (num, D)). temperature:
    below 1 sharpens every distribution. batch_size: images that are drawn together, all if None; the images do not
    depend on it.
    """
    if num < 1:
        raise ValueError(f"num: {num} is not at least 1")
    images = blank(model, num)
    known = torch.zeros(images[:, 0].shape, dtype=torch.bool)
    return fill_in_batches(model, images, known, generator, cond, temperature, on_row, batch_size)


def fill_in_batches(
    model: Model,
    images: Tensor,
    known: Tensor,
    generator: torch.Generator,
    cond: Tensor | None,
    temperature: float,
    on_row: OnRow,
    batch_size: int | None,
) -> Tensor:
    """Images (N, C, H, W) on the model's device with the pixels drawn that are not known (N, H, W)."""
    filled = []
    for rows in torch.arange(len(images)).split(batch_size or len(images)):
        part, noise = images[rows].to(model.device), uniforms(len(rows), model.shape, generator).to(model.device)
        stepper = begin(model, len(rows), None if cond is None else cond[rows.to(cond.device)].to(model.device))
        fill(model, stepper, part, known[rows].to(model.device), noise, temperature, on_row)
        filled.append(part)
    return torch.cat(filled)


@torch.inference_mode()
def fill(
    model: Model,
    stepper: Stepper,
    images: Tensor,
    known: Tensor,
    noise: Tensor,
    temperature: float,
    on_row: OnRow = lambda _: None,
) -> None:
    """Draw, in place, the pixels of images (B, C, H, W) that are not known (B, H, W); noise as `uniforms`."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature: {temperature} is not a finite number greater than 0")

    def choose(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        log_pmf = model.likelihood.log_pmf_of(c, outputs, images[:, :c, i, j])
        drawn = draw(log_pmf, noise[:, c, i, j], temperature).to(torch.uint8)
        images[:, c, i, j] = torch.where(known[:, i, j], images[:, c, i, j], drawn)
        return images[:, c, i, j]

    for i in walk(stepper, choose):
        on_row(i)
