"""Ancestral sampling: `sample_full` is the definition, `sample` draws the same images for a few forward passes.

Sub-pixels are drawn in the one order: rows, then columns, then channels. All randomness is a few uniform numbers per
pixel, drawn image by image from a torch.Generator on the CPU, so the same seed draws the same images whatever the batch
size and the device, and by either sampler. That is exact in float64 (`in_float64`). In float32 the last bits of an
output depend on how a product is arranged, and now and then a draw at the edge between two levels falls to the other
side.

On a GPU a row of pixels, draws included, is recorded once and repeated for all rows like it (`Sampler`). A network
without an efficient stepper is sampled by fixed-point iteration (pixelcnn.generation.fixed_point).

Shapes: B batch, N images, C channels, H rows, W columns, K outputs of the network for a group of channels, G groups,
D = C / G channels of a group, U uniform numbers that draw a group.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from numbers import Real

import torch
from torch import Tensor

from pixelcnn import device, recording
from pixelcnn.config import COLDEST, HOTTEST
from pixelcnn.generation import fixed_point
from pixelcnn.model import Model
from pixelcnn.nn.interfaces import FullStepper, Stepper

# choose(i, j, c, outputs) -> the values (B,) of a sub-pixel, given the outputs (B, K) that describe it
Choose = Callable[[int, int, int, Tensor], Tensor]
OnRow = Callable[[int], object]  # called after each row of each batch, for progress


def walk(stepper: Stepper, choose: Choose) -> Iterator[int]:
    """Visit every sub-pixel in order and feed what `choose` returns. Yields after each row.

    Encoding and decoding are two `choose` functions. `Sampler` visits them in the same order to draw.
    """
    _, channels, height, width = stepper.shape
    for i in range(height):
        stepper.locate(i)
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


def uniforms(num: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """(num, *shape) float64 in [0, 1), image after image from a CPU generator."""
    return torch.stack([torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(num)])


def noise_shape(model: Model) -> tuple[int, int, int, int]:
    """U, G, H, W: the shape of the numbers that decide the draws of an image."""
    channels, height, width = model.shape
    return model.likelihood.num_uniforms, channels // model.likelihood.group_channels, height, width


def noise_of(model: Model, num: int, generator: torch.Generator) -> Tensor:
    """The numbers (num, U, G, H, W) that decide the draws of `num` images, on the model's device."""
    noise = uniforms(num, noise_shape(model), generator)
    # From pinned memory the copy waits for nothing that the device has still to do
    return noise.pin_memory().to(model.device, non_blocking=True) if model.device.type == "cuda" else noise


def sample_full(
    model: Model, num: int, generator: torch.Generator, cond: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """`num` images (num, C, H, W) uint8 by a forward pass per group of channels: slow, the reference of `sample`."""
    images, noise = blank(model, num), noise_of(model, num, generator)
    stepper = FullStepper(model.network, num, *model.shape[1:], cond)
    Sampler(model, stepper, check_temperature(temperature)).fill(images, None, noise)
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
    """`num` images (num, C, H, W) uint8: those that `sample_full` draws from the same generator, but quickly.

    cond: one condition per image along its first axis (labels (num,) int64, embeddings or codes (num, D)). temperature:
    below 1 sharpens every distribution. batch_size: images that are drawn together, all if None; the images do not
    depend on it.
    """
    return torch.cat(list(sample_batches(model, num, generator, cond, temperature, on_row, batch_size)))


def sample_batches(
    model: Model,
    num: int,
    generator: torch.Generator,
    cond: Tensor | None = None,
    temperature: float = 1.0,
    on_row: OnRow = lambda _: None,
    batch_size: int | None = None,
    skipped: int = 0,
) -> Iterator[Tensor]:
    """The images of `sample`, batch after batch, without the first `skipped` ones, which are not drawn."""
    if num < 1:
        raise ValueError(f"num: {num} is not at least 1")
    for _ in range(skipped):
        uniforms(1, noise_shape(model), generator)
    images, cond = blank(model, num - skipped), None if cond is None else cond[skipped:]
    yield from fill_in_batches(model, images, None, generator, cond, temperature, on_row, batch_size)


def fill_in_batches(
    model: Model,
    images: Tensor,
    known: Tensor | None,
    generator: torch.Generator,
    cond: Tensor | None,
    temperature: float,
    on_row: OnRow,
    batch_size: int | None,
) -> Iterator[Tensor]:
    """Batch after batch of images (N, C, H, W), on the model's device, with the pixels drawn that are not known.

    known (N, H, W) bool; None where no pixel is.
    """
    check_temperature(temperature)
    device.prepare(model.device)  # float32 means float32, and cuDNN's trials come before rows are recorded
    sampler, size = None, batch_size or len(images)
    for rows in torch.arange(len(images)).split(size):
        part, noise = images[rows].to(model.device), noise_of(model, len(rows), generator)
        keep = None if known is None else known[rows].to(model.device)
        given = None if cond is None else cond[rows.to(cond.device)].to(model.device)
        if not model.network.incremental:
            fixed_point.fill(model, part, keep, noise, given, temperature, on_row)
            yield part
            continue
        if sampler is not None and sampler.records:  # a smaller last batch is filled up, and recorded rows serve it too
            part, noise = _filled_up(part, size), _filled_up(noise, size)
            keep, given = (None if x is None else _filled_up(x, size) for x in (keep, given))
        if sampler is None or len(part) != sampler.stepper.shape[0]:
            recorder = recording.recorder(model.device)
            sampler = Sampler(model, begin(model, len(part), given), temperature, known is not None, recorder)
        else:
            sampler.stepper.reset(given)
        sampler.fill(part, keep, noise, on_row)
        yield part[: len(rows)]


def _filled_up(x: Tensor, num: int) -> Tensor:
    """The batch, its last entry repeated up to `num`."""
    return x if len(x) == num else torch.cat([x, x[-1:].expand(num - len(x), *x.shape[1:])])


def check_temperature(temperature: float) -> float:
    """Raise ValueError for a temperature at which nothing can be drawn."""
    is_number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not (is_number and COLDEST <= temperature <= HOTTEST):  # also false of nan
        raise ValueError(f"temperature: {temperature!r:.50} is not a number from {COLDEST:g} to {HOTTEST:g}")
    return temperature


class Sampler:
    """Draws batches of images, row by row.

    What a row needs of its images is copied to buffers that stay where they are, and what it draws is copied from
    there. So all rows of a kind (Stepper.period) do the same to the same tensors: they can be recorded.

    clamped: whether `fill` is given known pixels.
    """

    def __init__(
        self,
        model: Model,
        stepper: Stepper,
        temperature: float,
        clamped: bool = False,
        recorder: recording.Recorder | None = None,
    ):
        batch, channels, _, width = stepper.shape
        self.stepper, self.likelihood, self.temperature = stepper, model.likelihood, temperature
        size = self.likelihood.group_channels
        self.rows = recording.Recordings(None if stepper.period is None else recorder)
        self.pixels = torch.zeros(batch, channels, width, dtype=torch.uint8, device=model.device)
        self.known = torch.zeros(batch, 1, width, dtype=torch.bool, device=model.device) if clamped else None
        shape = batch, self.likelihood.num_uniforms, channels // size, width
        self.noise = torch.zeros(shape, dtype=torch.float64, device=model.device)
        # Views of each pixel, made once: W times G pairs of (B, D) and (B, U), and W times (B, 1)
        pixels, noise = self.pixels.unflatten(1, (-1, size)).permute(3, 1, 0, 2), self.noise.permute(3, 2, 0, 1)
        self.at = [list(zip(*map(torch.unbind, column), strict=True)) for column in zip(pixels, noise, strict=True)]
        self.known_at = [None] * width if self.known is None else self.known.unbind(2)

    @property
    def records(self) -> bool:
        """Whether rows are recorded."""
        return self.rows.recorder is not None

    @torch.inference_mode()
    def fill(self, images: Tensor, known: Tensor | None, noise: Tensor, on_row: OnRow = lambda _: None) -> None:
        """Draw, in place, the pixels of images (B, C, H, W) that are not known (B, H, W); noise as `noise_of`."""
        for i in range(images.shape[2]):
            self.stepper.locate(i)
            self.pixels.copy_(images[:, :, i])
            self.noise.copy_(noise[..., i, :])
            if self.known is not None and known is not None:
                self.known.copy_(known[:, i : i + 1])
            kind = i if self.stepper.period is None else i % self.stepper.period
            self.rows(kind, partial(self._draw_row, kind))
            images[:, :, i] = self.pixels
            on_row(i)

    def _draw_row(self, kind: int) -> None:
        """Draw a row of pixels, on the buffers."""
        stepper, likelihood, size = self.stepper, self.likelihood, self.likelihood.group_channels
        stepper.begin_row(kind)
        for j, (groups, known) in enumerate(zip(self.at, self.known_at, strict=True)):
            stepper.begin_pixel(j)
            for g, (here, noise) in enumerate(groups):
                drawn = likelihood.draw(stepper.outputs(g * size), noise, self.temperature)  # (B, D)
                here.copy_(drawn if known is None else torch.where(known, here, drawn))
                stepper.feed(g * size, here)
