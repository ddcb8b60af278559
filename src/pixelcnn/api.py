"""A model as users of the package get it: `pixelcnn.load` returns one.

Images are uint8 (N, C, H, W), torch or numpy; one image (C, H, W) is a batch of one. Anything else is refused by
pixelcnn.data.images.check_images, never converted. Shapes: N images, C channels, H rows, W columns.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pixelcnn import model as inner
from pixelcnn.config import Given
from pixelcnn.data.images import check_images
from pixelcnn.generation import completion, sampling
from pixelcnn.likelihoods.base import bits_per_dim, check_nll

BATCH_SIZE = 64


class Model:
    """A trained model: `nll`, `bits_per_dim`, `sample`, `complete`, `encode`; no gradients.

    Conditions are given as `label` (a class's name or number, one or one per image) for a class-conditional model, or
    as `cond`, one per image along the first axis: int64 labels (N,), embeddings or codes (N, D).
    """

    def __init__(self, model: inner.Model):
        self.inner = model

    def __repr__(self) -> str:
        shape, given = "x".join(map(str, self.shape)), "" if self.given is Given.NONE else f", given its {self.given}"
        return (
            f"<pixelcnn model {self.inner.config.name} of {self.inner.data.dataset} {shape}{given}, on {self.device}>"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        return self.inner.shape

    @property
    def levels(self) -> int:
        """Values of a sub-pixel are 0 ... levels-1."""
        return self.inner.data.levels

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels; empty where the data set has none."""
        return self.inner.data.classes

    @property
    def dims(self) -> int:
        """Sub-pixels per image."""
        return self.inner.dims

    @property
    def given(self) -> Given:
        """What the model is conditioned on: "none", "label", "embedding" or "code"."""
        return self.inner.given

    @property
    def exact(self) -> bool:
        """Whether `nll` is exact; otherwise an upper bound."""
        return self.inner.network.exact

    @property
    def device(self) -> torch.device:
        """The device that the weights are on; images may come from any."""
        return self.inner.device

    def to(self, device: torch.device | str) -> "Model":
        """A copy of this model on a device."""
        network = copy.deepcopy(self.inner.network).to(device)
        return Model(replace(self.inner, network=network))

    @torch.inference_mode()
    def nll(self, images: Any, label: Any = None, cond: Tensor | None = None) -> Tensor:
        """-log p(x) in nats of each image, (N,), on the CPU.

        Of a class-conditional model without a label: of the mean over classes of p(x | class), so that the number
        compares with an unconditional one. Of an auto-encoder: given each image's own code, so it does not. Raises
        ValueError for images or conditions that are not the model's.
        """
        x = check_images(images, self.shape[0], self.levels, self.shape[1:])
        given = self._conditions(label, cond, len(x))
        parts = []
        for start in range(0, len(x), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            parts.append(self._nll(x[part].to(self.device), None if given is None else given[part]).cpu())
        return check_nll(torch.cat(parts))

    def bits_per_dim(self, images: Any, label: Any = None, cond: Tensor | None = None) -> Tensor:
        """`nll` in bits per sub-pixel, (N,)."""
        return bits_per_dim(self.nll(images, label, cond), self.dims)

    def sample(
        self, num: int, seed: int = 0, label: Any = None, cond: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """`num` images uint8 (num, C, H, W), on the CPU; the same for a seed whatever the machine's batch size.

        temperature: below 1 sharpens every distribution. Raises ValueError without the condition that the model needs.
        """
        given = self._conditions(label, cond, num)
        generator = torch.Generator().manual_seed(seed)
        drawn = sampling.sample(self.inner, num, generator, given, temperature, batch_size=BATCH_SIZE)
        return drawn.cpu()

    def complete(
        self,
        images: Any,
        known: Tensor,
        seed: int = 0,
        label: Any = None,
        cond: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Images (N, C, H, W) with every pixel that is not `known` (H, W) or (N, H, W) drawn anew, on the CPU.

        Exact draws from p(rest | known) where all known pixels precede all others (pixelcnn.generation.completion).
        """
        x = check_images(images, self.shape[0], self.levels, self.shape[1:])
        given = self._conditions(label, cond, len(x))
        generator = torch.Generator().manual_seed(seed)
        drawn = completion.complete(self.inner, x, known, generator, given, temperature, batch_size=BATCH_SIZE)
        return drawn.cpu()

    @torch.inference_mode()
    def encode(self, images: Any) -> Tensor:
        """The codes (N, D) of images, by an auto-encoder, on the CPU. Raises ValueError for any other model."""
        x = check_images(images, self.shape[0], self.levels, self.shape[1:])
        return self.inner.network.encode(x.to(self.device)).cpu()

    def _conditions(self, label: Any, cond: Tensor | None, num: int) -> Tensor | None:
        """One condition per image on the model's device, from `label` or `cond`."""
        if label is not None:
            if cond is not None:
                raise ValueError("label, cond: give one of them")
            cond = self._labels(label, num)
        if cond is not None and len(cond) != num:
            raise ValueError(f"cond: {len(cond)} conditions for {num} images")
        if cond is not None and not bool(torch.isfinite(cond).all()):
            raise ValueError("cond: holds numbers that are not finite")
        return None if cond is None else cond.to(self.device)

    def _labels(self, label: Any, num: int) -> Tensor:
        several = isinstance(label, Sequence) and not isinstance(label, str)
        labels = list(label) if several or isinstance(label, Tensor) else [label] * num
        return torch.tensor([self.label(one) for one in labels])

    def label(self, label: str | int) -> int:
        """The number of a class, given by its name or number. ValueError where the model has no such class."""
        if self.given is not Given.LABEL:
            raise ValueError(f"label: this model is not class-conditional (it is given {self.given})")
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        number = int(label) if str(label).isdecimal() else -1
        if not 0 <= number < len(self.classes):
            names = ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")
            raise ValueError(f"label: {label!r} is neither of 0 ... {len(self.classes) - 1} nor one of {names}")
        return number

    def _nll(self, x: Tensor, cond: Tensor | None) -> Tensor:
        if self.given is not Given.LABEL or cond is not None:
            return self.inner.nll(x, cond)
        labels = range(len(self.classes))
        nats = torch.stack([self.inner.nll(x, torch.full((len(x),), n, device=x.device)) for n in labels])
        return -(torch.logsumexp(-nats, 0) - math.log(len(self.classes)))  # of the mean over classes
