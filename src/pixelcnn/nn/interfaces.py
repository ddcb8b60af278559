"""The two protocols that the rest of the package knows of a network: Network and Stepper.

Training, evaluation, sampling, completion, coding and the registry use a network through these alone, so that an
architecture is one folder (pixelcnn.architectures) and no other file.

Shapes: B batch, C data channels, H rows, W columns, K outputs per group of channels, G groups: C where the network
orders the channels of a pixel itself, 1 where it describes whole pixels (pixelcnn.likelihoods.base).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pixelcnn.likelihoods.base import Likelihood
from pixelcnn.nn.conditioning import Condition


class Stepper(Protocol):
    """A network evaluated one sub-pixel at a time, for a batch of images that are not begun when it is made.

    The caller (pixelcnn.generation.sampling.walk) visits rows, then columns, then channels in order:

        locate(i), begin_row(i); for each j: begin_pixel(j); for each c: outputs(c), then feed(c, value)

    The outputs are those of `Network.forward` at that place: a stepper is the same mathematics on a state instead of a
    padded image. It takes the weights as they are when it is made.

    From begin_row to the last feed of a row a GPU can record what is done, and repeat it for the rows i + period,
    i + 2 period and so on, and for those of later batches (pixelcnn.recording). So what a row leaves to the
    next ones lies in tensors of fixed shape that are updated in place, and nothing waits for the device.
    """

    shape: tuple[int, int, int, int]  # B, C, H, W

    @property
    def period(self) -> int | None:
        """Rows i and i + period do the same to the same tensors; None: no two rows do."""

    def reset(self, cond: Tensor | None = None) -> None:
        """Go back to images not begun, given other conditions. The state of the start takes the same place."""

    def locate(self, i: int) -> None:
        """Fetch what row i has of its own, such as its row of a condition map. Not recorded."""

    def begin_row(self, i: int) -> None:
        """Go on to the row that was located: evaluate what depends on the rows above only.

        Depends on i modulo `period` alone.
        """

    def begin_pixel(self, j: int) -> None:
        """Go on to column j of the current row: evaluate what depends on no channel of the pixel."""

    def outputs(self, c: int) -> Tensor:
        """(B, K): the outputs of the group that channel c of the current pixel belongs to.

        They depend on the channels before c that were fed, and on no later sub-pixel.
        """

    def feed(self, c: int, value: Tensor) -> None:
        """Channel c of the current pixel is `value` (B,) integers; follows `outputs(c)`.

        Of the channels of a group several may be given at once: c, c + 1, ... are `value` (B, D).
        """


@dataclass(frozen=True)
class Spec:
    """What data, condition and likelihood ask of a network: the second argument of every architecture's `build`."""

    shape: tuple[int, int, int]  # C, H, W
    levels: int
    condition: Condition
    likelihood: Likelihood


class Network(nn.Module):
    """An autoregressive (or other likelihood) network together with the likelihood of its outputs.

    A subclass sets `condition`, `likelihood` and `data_channels` and defines `forward`; a network with an efficient
    stepper also overrides `stepper` and sets `incremental`. Models whose NLL is no function of a forward pass alone
    (latent variables, flows) override `nll` and `objective`.
    """

    condition: Condition
    likelihood: Likelihood
    data_channels: int  # C
    whole_pixels = False  # G is 1: the outputs at a pixel describe its channels jointly
    exact = True  # `nll` is -log p(x | cond); otherwise an upper bound on it, which tables print with a ≤
    incremental = False  # `stepper` costs much less than forward passes; otherwise samples are drawn by fixed_point
    memory_format = torch.channels_last  # of the weights, where convolutions are fast in it

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Outputs (B, K, G, H, W) of integer images x (B, C, H, W): the parameters of the likelihood.

        cond: one condition per image along its first axis, as `self.condition` takes it.
        """
        raise AssertionError(f"{type(self).__name__} defines no forward pass")

    def nll(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """-log p(x | cond) in nats per image, (B,), or an upper bound on it if not `exact`. What evaluation reports."""
        outputs = self(x, cond)
        with torch.autocast(x.device.type, enabled=False):
            return self.likelihood.nll(outputs, x)

    @property
    def has_nll_map(self) -> bool:
        """Whether the NLL is a sum over sub-pixels; not where a network overrides `nll`."""
        return type(self).nll is Network.nll

    def nll_map(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """-log p in nats of each sub-pixel given those before it, (B, C, H, W), whose sum over an image is its `nll`.

        Raises ValueError unless `has_nll_map`.
        """
        if not self.has_nll_map:
            raise ValueError(f"{type(self).__name__} has an NLL of whole images only, which is no sum over sub-pixels")
        outputs = self(x, cond)
        with torch.autocast(x.device.type, enabled=False):
            return self.likelihood.nll_map(outputs, x)

    def objective(self, x: Tensor, cond: Tensor | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """What training minimises, nats per image (B,): the NLL, or a bound on it whose noise `generator` draws."""
        return self.nll(x, cond)

    def regions(self) -> Iterable[nn.Module]:
        """The modules that training compiles on a GPU, none inside another.

        A network of repeated blocks names those, since blocks of one kind and shape are compiled once.
        """
        return [self]

    def stepper(self, batch: int, height: int, width: int, cond: Tensor | None = None) -> Stepper:
        """The state of `batch` images not yet begun; the generic one makes a forward pass per group of channels."""
        return FullStepper(self, batch, height, width, cond)

    def encode(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """The codes (B, D) of images (B, C, H, W), of an auto-encoder."""
        raise ValueError(f"{type(self).__name__} has no encoder: codes are made by the auto-encoders")

    def decode(self, code: Tensor) -> Tensor | None:  # noqa: ARG002
        """The one image (B, C, H, W) of each code (B, D), floats in [-1, 1]; None where images are sampled given it."""
        return None


class FullStepper:
    """The definition of a stepper: forward passes over the whole image. Slow; for any network, and for tests.

    One pass for each sub-pixel of a network that orders the channels itself, one for each pixel of a network of whole
    pixels, whose outputs depend on none of the pixel's own channels.
    """

    def __init__(self, network: Network, batch: int, height: int, width: int, cond: Tensor | None):
        self.network, self.cond = network, cond
        self.period = None  # a row is cut from the outputs of the whole image
        self.shape = (batch, network.data_channels, height, width)
        device = next(network.parameters()).device
        self.image = torch.zeros(self.shape, dtype=torch.uint8, device=device)
        self.row = self.column = 0
        self.of_pixel: Tensor | None = None  # (B, K), where one pass serves all channels of the pixel

    def reset(self, cond: Tensor | None = None) -> None:
        """Go back to a blank image, given other conditions."""
        self.cond = cond
        self.image.zero_()

    def locate(self, i: int) -> None:
        """Go on to row i."""
        self.row = i

    def begin_row(self, i: int) -> None:
        """The row is where `locate` put it."""

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column, self.of_pixel = j, None

    def outputs(self, c: int) -> Tensor:
        """(B, K): the outputs that describe channel c, by a forward pass unless the pixel had one already."""
        if self.of_pixel is not None:
            return self.of_pixel
        here = self.network(self.image, self.cond)[..., self.row, self.column]  # (B, K, G)
        if not self.network.whole_pixels:
            return here[:, :, c]
        self.of_pixel = here[:, :, 0]
        return self.of_pixel

    def feed(self, c: int, value: Tensor) -> None:
        """Channel c of the current pixel is `value` (B,) integers; or the channels from c on, (B, D)."""
        value = value.view(len(value), -1)
        self.image[:, c : c + value.shape[1], self.row, self.column] = value.to(self.image.dtype)
