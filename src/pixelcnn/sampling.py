"""Drawing images: `sample_full` is the definition, `sample` the same images at the price of a few forward passes.

Ancestral sampling in the one order of sub-pixels: rows, then columns, then channels. All randomness is one uniform
number per sub-pixel, drawn image by image from a torch.Generator, so the same seed gives the same images whatever the
batch size, and by either sampler. That is exact in float64. In float32 the last bits of a logit depend on how a product
is arranged, and now and then a draw that lies on the edge between two levels falls to the other side.

Shapes: B batch, C channels, H rows, W columns, L levels.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from pixelcnn.likelihood import draw
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
    """The definition: every sub-pixel by a forward pass over the whole image. For any network, and for tests."""

    def __init__(self, network: torch.nn.Module, x: Tensor, cond: Tensor | None):
        self.network, self.cond = network, cond
        self.image = torch.zeros_like(x)
        self.shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        self.row = self.column = 0

    def begin_row(self, i: int) -> None:
        self.row = i

    def begin_pixel(self, j: int) -> None:
        self.column = j

    def outputs(self, c: int) -> Tensor:  # noqa: ARG002
        return self.network(self.image, self.cond)[..., self.row, self.column]

    def feed(self, c: int, value: Tensor) -> None:
        self.image[:, c, self.row, self.column] = value.to(self.image.dtype)


def uniforms(num: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """(num, C, H, W) float64 in [0, 1), image after image from a CPU generator."""
    return torch.stack([torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(num)])


def sample_full(
    model: Model, num: int, generator: torch.Generator, cond: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """`num` images (num, C, H, W) uint8 by C x H x W full forward passes: slow, obvious, the reference of `sample`."""
    noise = uniforms(num, model.shape, generator).to(model.device)
    stepper = FullStepper(model.network, torch.zeros(num, *model.shape, dtype=torch.uint8, device=model.device), cond)
    return _draw_all(model, stepper, noise, temperature, lambda _: None)


def sample(
    model: Model,
    num: int,
    generator: torch.Generator,
    cond: Tensor | None = None,
    temperature: float = 1.0,
    on_row: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """`num` images (num, C, H, W) uint8, incrementally: the images that `sample_full` draws from the same generator.

    A network without a `stepper` is evaluated in full for every sub-pixel.

    cond: what the model is conditioned on, one per image. on_row(i) is called after each row, for progress.
    """
    noise = uniforms(num, model.shape, generator).to(model.device)
    _, height, width = model.shape
    make = getattr(model.network, "stepper", None)
    blank = torch.zeros(num, *model.shape, dtype=torch.uint8, device=model.device)
    stepper = make(num, height, width, cond) if make else FullStepper(model.network, blank, cond)
    return _draw_all(model, stepper, noise, temperature, on_row)


@torch.inference_mode()
def _draw_all(
    model: Model, stepper: Stepper, noise: Tensor, temperature: float, on_row: Callable[[int], object]
) -> Tensor:
    if temperature <= 0:
        raise ValueError(f"temperature: {temperature} is not greater than 0")
    images = torch.zeros(noise.shape, dtype=torch.uint8, device=noise.device)

    def choose(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        log_pmf = model.likelihood.log_pmf_of(c, outputs, images[:, :c, i, j])
        value = draw(log_pmf, noise[:, c, i, j], temperature)
        images[:, c, i, j] = value.to(torch.uint8)
        return value

    for i in walk(stepper, choose):
        on_row(i)
    return images
