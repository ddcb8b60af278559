"""A model: a network with its likelihood, the sections of params.yaml that describe them, and the data it is for.

`pixelcnn.api.Model` is what users get; this one is what training, evaluation and generation work on.
"""

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor

from pixelcnn import architectures, likelihoods
from pixelcnn.config import MAX_DIMS, Architecture, ClassName, Given, Levels, Name, Shape
from pixelcnn.config import Likelihood as LikelihoodSection
from pixelcnn.data.dataset import DatasetInfo, Split
from pixelcnn.likelihoods.base import Likelihood
from pixelcnn.nn.conditioning import Condition, LabelCondition, MapCondition, NoCondition, VectorCondition
from pixelcnn.nn.interfaces import Network, Spec


@dataclass(frozen=True)
class Data:
    """What a model must know of its data: enough to build it, to refuse other data and to name the classes."""

    dataset: Name
    shape: Shape  # C, H, W
    levels: Levels
    classes: tuple[ClassName, ...]
    fingerprints: dict[str, str]  # of the pixels of each split
    embedding_dims: Annotated[int, Field(ge=0, le=MAX_DIMS, strict=True)] = 0
    embedding_sha256: str = ""

    @classmethod
    def of(cls, info: DatasetInfo) -> "Data":
        """What a model knows of a prepared data set."""
        fingerprints: dict[str, str] = {name: split.fingerprint for name, split in info.splits.items()}
        embeddings = (info.embeddings.dims, info.embeddings.sha256) if info.embeddings else (0, "")
        return cls(info.dataset, info.shape, info.levels, tuple(info.classes), fingerprints, *embeddings)


@dataclass(frozen=True)
class Model:
    """A network with its likelihood. weights_sha256: of the weights' file it was loaded from, its identity."""

    network: Network
    config: Architecture
    likelihood_config: LikelihoodSection
    data: Data
    weights_sha256: str | None = None

    @property
    def likelihood(self) -> Likelihood:
        """What the network's outputs mean."""
        return self.network.likelihood

    @property
    def shape(self) -> Shape:
        """C, H, W of an image."""
        return self.data.shape

    @property
    def dims(self) -> int:
        """Sub-pixels per image, C * H * W."""
        channels, height, width = self.shape
        return channels * height * width

    @property
    def device(self) -> torch.device:
        """The device that the network's weights are on."""
        return next(self.network.parameters()).device

    @property
    def given(self) -> Given:
        """What the model is conditioned on."""
        return self.config.given

    def nll(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """-log p(x | cond) in nats per image (B,), of integer images x (B, C, H, W); a bound if not network.exact."""
        return self.network.nll(x, cond)

    def nll_map(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """-log p in nats of each sub-pixel given those before it, (B, C, H, W); they sum to its `nll`."""
        return self.network.nll_map(x, cond)

    def decode(self, codes: Tensor) -> Tensor | None:
        """The one image (B, C, H, W) uint8 of each code (B, D), where the decoder has one; else images are sampled."""
        images = self.network.decode(codes)
        if images is None:
            return None
        highest = self.data.levels - 1
        return ((images + 1) * (highest / 2)).round().clamp(0, highest).to(torch.uint8)

    def conditions(self, split: Split) -> Tensor | None:
        """The condition of every image of a split; None where the image is enough."""
        conditions = {Given.LABEL: split.labels, Given.EMBEDDING: split.embeddings}.get(self.given)
        assert conditions is not None or self.given not in (Given.LABEL, Given.EMBEDDING), "build refuses such data"
        return conditions

    def example(self) -> tuple[Tensor, Tensor | None]:
        """One image of zeros and one condition, to measure what a forward pass costs."""
        images = torch.zeros(1, *self.shape, dtype=torch.uint8)
        split = Split(images, torch.zeros(1, dtype=torch.int64), torch.zeros(1, self.data.embedding_dims))
        cond = self.conditions(split)
        return images.to(self.device), None if cond is None else cond.to(self.device)

    def standardise(self, split: Split) -> None:
        """Before training: standardise embeddings by their mean and deviation on this split."""
        conditions = self.conditions(split)
        if conditions is not None:
            self.network.condition.standardise(conditions)


def build(section: Architecture, likelihood: LikelihoodSection, data: Data) -> Model:
    """The model that the sections `model` and `likelihood` describe, with fresh weights from torch's global generator.

    Raises ValueError for sizes or conditions that do not suit the data.
    """
    condition = _condition(section, data)
    outputs = likelihoods.build(likelihood, data.levels, data.shape[0], section.whole_pixels)
    network = architectures.build(section, Spec(data.shape, data.levels, condition, outputs))
    return Model(network, section, likelihood, data)


def _condition(section: Architecture, data: Data) -> Condition:
    """The condition as a bias (equation 4 of arXiv:1606.05328) or as a map with the network's features (equation 5)."""
    vector = _vector(section, data)
    if not section.is_map:
        return vector
    hidden_channels = cast(int, section.hidden_channels)  # type: ignore[attr-defined]  # all that take a map have it
    return MapCondition(vector, hidden_channels, *data.shape[1:])


def _vector(section: Architecture, data: Data) -> Condition:
    match section.given:
        case Given.LABEL if not data.classes:
            raise ValueError(f"model.condition: 'label' needs labels, but {data.dataset} has none; use 'none'")
        case Given.EMBEDDING if not data.embedding_dims:
            raise ValueError(
                f"model.condition: 'embedding' needs embeddings, but {data.dataset} has none; an entry of `embeddings` "
                "in params.yaml makes a data set that has"
            )
        case Given.LABEL:
            return LabelCondition(len(data.classes))
        case Given.EMBEDDING:
            return VectorCondition(data.embedding_dims, "an embedding")
        case Given.CODE:
            return VectorCondition(cast(int, section.code), "a code")  # type: ignore[attr-defined]
    return NoCondition()
