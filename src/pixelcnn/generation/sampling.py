"""Drawing images: `sample_full` is the definition, `sample` the same images at the price of a few forward passes.

Ancestral sampling in the one order of sub-pixels: rows, then columns, then channels. All randomness is one uniform
number per sub-pixel, drawn image by image from a torch.Generator, so the same seed gives the same images whatever the
batch size, and by either sampler. That is exact in float64 (`in_float64`). In float32 the last bits of a logit depend
on how a product is arranged, and now and then a draw that lies on the edge between two levels falls to the other side.

Shapes: B batch, N images, C channels, H rows, W columns, L levels.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from pixelcnn.likelihoods.categorical import draw
from pixelcnn.model import Model


class Stepper(Protocol):
    """A network evaluated one sub-pixel at a time."""

    shape: tuple[int, int, int, int]

    def begin_row(self, i: int) -> None: ...
    def begin_pixel(self, j: int) -> None: ...
    def outputs(self, c: int) -> Tensor: ...
    def feed(self, c: int, value: Tensor) -> None: ...


Choose = Callable[[int, int, int, Tensor], Tensor]


def walk(stepper: Stepper, choose: Choose) -> Iterator[int]:
    """Visit every sub-pixel in order; `choose(i, j, c, outputs)` says its values (B,). Yields after each row."""
    _, channels, height, width = stepper.shape
    for i in range(height):
        stepper.begin_row(i)
        for j in range(width):
            stepper.begin_pixel(j)
            for c in range(channels):
                stepper.feed(c, choose(i, j, c, stepper.outputs(c)))
        yield i


class FullStepper:
    """The definition: every sub-pixel by a forward pass over the whole image. For any network, and for tests.

    Outputs without an axis for colours, (B, P, H, W), are one distribution over a pixel's colours together. It is read
    for the first colour, when the pixel is not known at all, and must be the same for the others, so one pass serves
    them all. Outputs (B, L, C, H, W) change with each colour.
    """

    def __init__(self, network: torch.nn.Module, x: Tensor, cond: Tensor | None):
        self.network, self.cond = network, cond
        self.image = torch.zeros_like(x)
        self.shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        self.row = self.column = 0
        self.of_pixel: Tensor | None = None

    def begin_row(self, i: int) -> None:
        self.row = i

    def begin_pixel(self, j: int) -> None:
        self.column, self.of_pixel = j, None

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        if self.of_pixel is not None:
            return self.of_pixel
        outputs: Tensor = self.network(self.image, self.cond)
        here = outputs[..., self.row, self.column]
        if outputs.ndim == 4:
            self.of_pixel = here
        return here

    def feed(self, c: int, value: Tensor) -> None:
        self.image[:, c, self.row, self.column] = value.to(self.image.dtype)


def is_incremental(model: Model) -> bool:
    """Whether the network has a stepper of its own; if not, every sub-pixel or pixel costs a pass over the image."""
    return hasattr(model.network, "stepper")


def begin(model: Model, num: int, cond: Tensor | None = None) -> Stepper:
    """The state of `num` images not yet begun: the network's own stepper, or a FullStepper for one that has none."""
    _, height, width = model.shape
    if is_incremental(model):
        stepper: Stepper = model.network.stepper(num, height, width, cond)  # type: ignore[operator]
        return stepper
    return FullStepper(model.network, blank(model, num), cond)


def blank(model: Model, num: int) -> Tensor:
    """Images (num, C, H, W) uint8 of zeros, where the model's weights lie."""
    return torch.zeros(num, *model.shape, dtype=torch.uint8, device=model.device)


def in_float64(model: Model) -> Model:
    """The model with a copy of its network in float64: about a quarter slower on a CPU.

    Rounding errors of 1e-13 instead of 1e-4, so what is drawn no longer depends on the size of a batch.
    """
    return replace(model, network=copy.deepcopy(model.network).double())


def uniforms(num: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """(num, C, H, W) float64 in [0, 1), image after image from a CPU generator."""
    return torch.stack([torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(num)])


def sample_full(
    model: Model, num: int, generator: torch.Generator, cond: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """`num` images (num, C, H, W) uint8 by C x H x W full forward passes: slow, obvious, the reference of `sample`."""
    images, noise = blank(model, num), uniforms(num, model.shape, generator).to(model.device)
    known = torch.zeros(images[:, 0].shape, dtype=torch.bool, device=model.device)
    _fill(model, FullStepper(model.network, images, cond), images, known, noise, temperature, lambda _: None)
    return images


def sample(
    model: Model,
    num: int,
    generator: torch.Generator,
    cond: Tensor | None = None,
    temperature: float = 1.0,
    on_row: Callable[[int], object] = lambda _: None,
    batch_size: int | None = None,
) -> Tensor:
    """`num` images (num, C, H, W) uint8, incrementally: the images that `sample_full` draws from the same generator.

    A network without a `stepper` is evaluated in full for every sub-pixel.

    cond: what the model is conditioned on, one per image along its first axis (labels (num,) int64, embeddings
    (num, D)). temperature: below 1 sharpens every distribution. batch_size: images that are drawn together; the images
    do not depend on it (all of them when it is None). on_row(i) is called after each row of each batch, for progress.
    """
    if num < 1:
        raise ValueError(f"num: {num} is not at least 1")
    images = blank(model, num)
    known = torch.zeros(images[0, 0].shape, dtype=torch.bool)
    return complete(model, images, known, generator, cond, temperature, on_row, batch_size)


def complete(
    model: Model,
    images: Tensor,
    known: Tensor,
    generator: torch.Generator,
    cond: Tensor | None = None,
    temperature: float = 1.0,
    on_row: Callable[[int], object] = lambda _: None,
    batch_size: int | None = None,
) -> Tensor:
    """Images (N, C, H, W) uint8 with every pixel that is not known drawn anew; for several each, repeat the images.

    known (H, W) or (N, H, W), bool: the pixels that keep their values. A drawn pixel is conditioned on the pixels that
    precede it, known or drawn, and sees none that follow. So where all known pixels precede all others in the order of
    rows and columns (`is_prefix`), such as a top half, these are exact draws from p(rest | known). Elsewhere known
    pixels are clamped: those after a drawn one have no influence on it.

    The other arguments are those of `sample`.
    """
    if tuple(images.shape[1:]) != model.shape or images.dtype != torch.uint8:
        raise ValueError(f"images: {images.dtype} {tuple(images.shape)} is not uint8 (N, {str(model.shape)[1:-1]})")
    known = known.expand(len(images), *model.shape[1:])
    filled = []
    for rows in torch.arange(len(images)).split(batch_size or len(images)):
        part, noise = images[rows].to(model.device), uniforms(len(rows), model.shape, generator).to(model.device)
        stepper = begin(model, len(rows), None if cond is None else cond[rows.to(cond.device)].to(model.device))
        _fill(model, stepper, part, known[rows].to(model.device), noise, temperature, on_row)
        filled.append(part)
    return torch.cat(filled)


def is_prefix(known: Tensor) -> bool:
    """Whether in a mask (H, W) every known pixel precedes every other one, row by row."""
    flat = known.flatten()
    return bool(flat[: int(flat.sum())].all())


@torch.inference_mode()
def _fill(
    model: Model,
    stepper: Stepper,
    images: Tensor,
    known: Tensor,
    noise: Tensor,
    temperature: float,
    on_row: Callable[[int], object],
) -> None:
    """Draw, in place, the pixels of images (B, C, H, W) that are not known (B, H, W)."""
    if temperature <= 0:
        raise ValueError(f"temperature: {temperature} is not greater than 0")

    def choose(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        log_pmf = model.likelihood.log_pmf_of(c, outputs, images[:, :c, i, j])
        drawn = draw(log_pmf, noise[:, c, i, j], temperature).to(torch.uint8)
        images[:, c, i, j] = torch.where(known[:, i, j], images[:, c, i, j], drawn)
        return images[:, c, i, j]

    for i in walk(stepper, choose):
        on_row(i)
