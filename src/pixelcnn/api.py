"""The public model class: `pixelcnn.load` and `pixelcnn.fit` return a `Model`.

Images are uint8, (N, C, H, W); pixelcnn.data.images.check_images lists the other forms that it accepts, and refuses
the rest. Shapes: N images, C channels, H rows, W columns, D numbers of an embedding or code.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from pixelcnn import checkpoint
from pixelcnn import model as inner
from pixelcnn.config import NUM_SEEDS, Given
from pixelcnn.data.images import check_images
from pixelcnn.device import named
from pixelcnn.files import check_kept
from pixelcnn.generation import completion, interpolation, sampling
from pixelcnn.generation.grids import grid
from pixelcnn.likelihoods.base import bits_per_dim, check_nll
from pixelcnn.nn.interfaces import Network

BATCH_SIZE = 64  # images drawn together
POSITIONS = 2**14  # pixels in one forward pass, to bound its memory: 16 images of 32x32
MOST = 10**9  # images of one call

Evaluate = Callable[[Tensor, Tensor | None], Tensor]


class Model:
    """A trained model: score images, draw new ones, complete them, encode them.

    Images are uint8 with values 0 ... `levels`-1: a tensor or numpy array (N, C, H, W) or (N, H, W, C), for grey models
    also (N, H, W), a single such image, a PIL image, or a list of single images. Floats, other sizes and other channels
    raise a ValueError that says what would be right. Methods return tensors on the CPU, without gradients.

    Pass conditions as `label` (name or number of a class, one for all images or one each; class-conditional models
    only) or as `cond`: int64 labels (N,), embeddings or codes (N, D), or one (D,) for all images.
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
        """The names of the classes, in the order of their labels; empty if the data set has none."""
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
        """Whether `nll` is exact; otherwise it is an upper bound."""
        return self.inner.network.exact

    @property
    def device(self) -> torch.device:
        """The device that the weights are on; images may come from any."""
        return self.inner.device

    @property
    def network(self) -> Network:
        """The torch module, in evaluation mode. To train it, optimise its parameters on `nll(x, grad=True)`."""
        return self.inner.network

    def to(self, device: torch.device | str) -> "Model":
        """A copy of this model on a device."""
        network = copy.deepcopy(self.inner.network).to(named(device))
        return Model(replace(self.inner, network=network))

    def save(self, folder: Path | str) -> str:
        """Write the model into a folder that `pixelcnn.load` and all commands read. Returns the sha256 of its weights.

        Raises ValueError for a folder that DVC empties, such as one below models/.
        """
        try:
            kept = check_kept(Path(folder))
        except ValueError as error:
            raise ValueError(f"folder: {folder} {error}") from None
        return checkpoint.save(kept, self.inner, self.inner.network.state_dict())

    # Scoring

    def nll(self, images: Any, label: Any = None, cond: Any = None, *, grad: bool = False) -> Tensor:
        """-log p(x) of each image in nats, (N,).

        For a class-conditional model without a label, p(x) is the mean over classes of p(x | class), comparable with an
        unconditional model's. For an auto-encoder it is p(x | code of x), which is not comparable. grad: keep gradients
        with respect to the weights, which needs the memory of all images at once.
        """
        return check_nll(self._evaluate(self._nll, images, label, cond, grad))

    def bits_per_dim(self, images: Any, label: Any = None, cond: Any = None) -> Tensor:
        """`nll` in bits per sub-pixel, (N,)."""
        return bits_per_dim(self.nll(images, label, cond), self.dims)

    def nll_map(self, images: Any, label: Any = None, cond: Any = None) -> Tensor:
        """-log p of each sub-pixel given those before it in nats, (N, C, H, W): where an image is hard to predict.

        It sums to `nll` over an image; divide by ln 2 for bits. Raises ValueError for a model whose NLL is not a sum
        over sub-pixels.
        """
        return self._evaluate(self._nll_map, images, label, cond, grad=False)

    # Drawing

    def sample(self, num: int, seed: int = 0, label: Any = None, cond: Any = None, temperature: float = 1.0) -> Tensor:
        """Draw `num` new images uint8 (num, C, H, W); a seed draws the same images whatever the batch size.

        temperature: below 1 sharpens every distribution. Raises ValueError without the condition that the model needs.
        """
        num = _count(num, "num")
        given, generator = self._conditions(label, cond, num), _generator(seed)
        return sampling.sample(self.inner, num, generator, given, temperature, batch_size=BATCH_SIZE).cpu()

    def complete(
        self,
        images: Any,
        known: Any,
        seed: int = 0,
        label: Any = None,
        cond: Any = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Images uint8 (N, C, H, W) in which every pixel outside `known`, booleans (H, W) or (N, H, W), is drawn anew.

        Draws are exactly from p(rest | known) if all known pixels precede all others (pixelcnn.generation.completion).
        """
        x = self._check(images)
        given, generator = self._conditions(label, cond, len(x)), _generator(seed)
        known = _tensor(known, "known")
        return completion.complete(self.inner, x, known, generator, given, temperature, batch_size=BATCH_SIZE).cpu()

    # Codes

    @torch.no_grad()
    def encode(self, images: Any) -> Tensor:
        """The codes (N, D) of images, by an auto-encoder. Raises ValueError for any other model."""
        x = self._check(images)
        return torch.cat([self.network.encode(part.to(self.device)).cpu() for part in x.split(self._in_a_pass)])

    def reconstruct(self, images: Any, num: int = 1, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """`num` images uint8 (N, num, C, H, W) drawn from the code of each image, by an auto-encoder.

        A squared-error decoder gives one image per code, (N, 1, C, H, W).
        """
        x, num, seed = self._check(images), _count(num, "num"), _seed(seed)
        return interpolation.reconstruct(self.inner, x, num, seed, temperature, batch_size=BATCH_SIZE)

    def interpolate(self, first: Any, last: Any, steps: int = 8, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """Images uint8 (N, steps, C, H, W) at equal steps from `first` to `last`, both included.

        first, last: N images each (auto-encoders only), or N codes or embeddings as floats (N, D). The noise is the
        same along a line, so all changes come from the code. ValueError for a model without codes or embeddings.
        """
        a, b, seed = self._vectors(first, "first"), self._vectors(last, "last"), _seed(seed)
        if a.shape != b.shape:
            raise ValueError(f"first, last: {tuple(a.shape)} and {tuple(b.shape)} are not pairs")
        steps = _count(steps, "steps")
        return interpolation.interpolate(self.inner, a, b, steps, seed, temperature, batch_size=BATCH_SIZE)

    # Pictures and classes

    def picture(self, images: Any, columns: int | None = None) -> Image:
        """A grid of images as one enlarged PIL picture, which a notebook displays; by default about square."""
        x = self._check(images)
        wide = math.ceil(math.sqrt(len(x))) if columns is None else _count(columns, "columns")
        return grid(x, wide, self.levels)

    def label(self, label: str | int) -> int:
        """The number of a class, given by its name or number. ValueError if the model has no such class."""
        if self.given is not Given.LABEL:
            raise ValueError(f"label: this model is not class-conditional (it is given {self.given})")
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        number = int(label) if str(label).isdecimal() else -1
        if not 0 <= number < len(self.classes):
            names = ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")
            raise ValueError(f"label: {label!r} is neither of 0 ... {len(self.classes) - 1} nor one of {names}")
        return number

    @property
    def _in_a_pass(self) -> int:
        """Images per forward pass."""
        return max(1, POSITIONS // math.prod(self.shape[1:]))

    def _check(self, images: Any, name: str = "images") -> Tensor:
        return check_images(images, self.shape[0], self.levels, self.shape[1:], name)

    def _conditions(self, label: Any, cond: Any, num: int) -> Tensor | None:
        """One condition per image on the model's device, from `label` or `cond`."""
        if label is not None:
            if cond is not None:
                raise ValueError("label, cond: give one of them")
            cond = self._labels(label)
        if cond is None:
            return None
        cond, axes = _tensor(cond, "cond"), 0 if self.given is Given.LABEL else 1  # of one condition
        cond = cond[None] if cond.ndim <= axes else cond
        cond = cond.expand(num, *cond.shape[1:]) if len(cond) == 1 else cond
        if len(cond) != num:
            raise ValueError(f"{'cond' if label is None else 'label'}: {len(cond)} conditions for {num} images")
        if not bool(torch.isfinite(cond).all()):
            raise ValueError("cond: contains non-finite numbers")
        return cond.to(self.device)

    def _labels(self, label: Any) -> Tensor:
        """The numbers of one class () or several (N,)."""
        label = label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label
        several = isinstance(label, Sequence) and not isinstance(label, str)
        return torch.tensor([self.label(one) for one in label] if several else self.label(label))

    def _vectors(self, values: Any, name: str) -> Tensor:
        """Codes or embeddings (N, D) float: the given ones, or the codes of images."""
        if self.given not in (Given.EMBEDDING, Given.CODE):
            raise ValueError(f"{name}: a model given {self.given} has no codes or embeddings to interpolate")
        vectors = torch.as_tensor(values) if isinstance(values, Tensor | np.ndarray) else None
        if vectors is None or not vectors.is_floating_point():
            return self.encode(values)
        if vectors.ndim != 2 or not bool(torch.isfinite(vectors).all()):
            raise ValueError(f"{name}: {tuple(vectors.shape)} is not finite floats (N, D)")
        return vectors.to(next(self.network.parameters()).dtype)

    def _evaluate(self, evaluate: Evaluate, images: Any, label: Any, cond: Any, grad: bool) -> Tensor:
        """Apply `evaluate` to images and conditions in micro-batches; returns the results on the CPU."""
        x = self._check(images)
        given = self._conditions(label, cond, len(x))
        with torch.set_grad_enabled(grad):
            parts = [
                evaluate(x[rows].to(self.device), None if given is None else given[rows]).cpu()
                for rows in torch.arange(len(x)).split(self._in_a_pass)
            ]
            return torch.cat(parts)

    def _nll(self, x: Tensor, cond: Tensor | None) -> Tensor:
        if self.given is not Given.LABEL or cond is not None:
            return self.inner.nll(x, cond)
        nats = torch.stack([self.inner.nll(x, labels) for labels in self._each_class(x)])  # (classes, N)
        return self._of_the_mean(nats)

    def _nll_map(self, x: Tensor, cond: Tensor | None) -> Tensor:
        if self.given is not Given.LABEL or cond is not None:
            return self.inner.nll_map(x, cond)
        # p(x_k | x_<k) = p(x_<=k) / p(x_<k), each the mean over classes, in raster-scan order: rows, columns, channels
        ordered = torch.stack([self.inner.nll_map(x, labels).permute(0, 2, 3, 1) for labels in self._each_class(x)])
        before = self._of_the_mean(ordered.flatten(2).double().cumsum(2))  # (N, H * W * C)
        nats = before.diff(dim=1, prepend=torch.zeros_like(before[:, :1]))
        return nats.to(ordered.dtype).view(ordered.shape[1:]).permute(0, 3, 1, 2)

    def _each_class(self, x: Tensor) -> list[Tensor]:
        """For each class, labels (N,) of that class alone."""
        return [torch.full((len(x),), n, device=x.device) for n in range(len(self.classes))]

    def _of_the_mean(self, nats: Tensor) -> Tensor:
        """-log of the mean over classes (the first axis) of probabilities that are given as -log p."""
        return math.log(len(self.classes)) - torch.logsumexp(-nats, 0)


def _is_whole(value: Any, allowed: range) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) in allowed


def _count(num: int, name: str) -> int:
    if not _is_whole(num, range(1, MOST + 1)):
        raise ValueError(f"{name}: {num!r:.50} is not a whole number of 1 ... {MOST:,}")
    return int(num)


def _tensor(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):  # by what it is not: a text, lists of several lengths, None
        raise ValueError(f"{name}: a {type(values).__name__} is not a tensor or an array of numbers") from None


def _seed(seed: int) -> int:
    if not _is_whole(seed, range(NUM_SEEDS)):
        raise ValueError(f"seed: {seed!r} is not a whole number of 0 ... {NUM_SEEDS - 1}")
    return int(seed)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(seed))
