"""A model: a network, the likelihood of its output, and what data it is for.

ARCHITECTURES and CONDITIONS are the tables a new architecture or condition is entered in; its keys of params.yaml are a
section of pixelcnn.config.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixelcnn import config
from pixelcnn.data.datasets import Card, Split
from pixelcnn.likelihood import Categorical, Likelihood
from pixelcnn.logistic_mixture import LogisticMixture
from pixelcnn.nn.conditioning import LabelCondition, NoCondition
from pixelcnn.nn.gated_pixelcnn import GatedPixelCNN
from pixelcnn.nn.pixelcnn import PixelCNN
from pixelcnn.nn.pixelcnnpp import PixelCNNPlusPlus
from pixelcnn.nn.pixelrnn import diagonal_bilstm, row_lstm

Made = tuple[nn.Module, Likelihood]


def _softmax(network: Callable[..., nn.Module]) -> Callable[..., Made]:
    """An architecture that orders colours itself, under a softmax over the levels of each sub-pixel."""
    return lambda levels, **sizes: (network(levels=levels, **sizes), Categorical(levels))


def _pixelcnnpp(data_channels: int, levels: int, num_mixtures: int, **sizes: Any) -> Made:
    likelihood = LogisticMixture(levels, num_mixtures)
    outputs = likelihood.num_outputs(data_channels)
    return PixelCNNPlusPlus(data_channels=data_channels, levels=levels, num_outputs=outputs, **sizes), likelihood


ARCHITECTURES: dict[str, Callable[..., Made]] = {
    "gated_pixelcnn": _softmax(GatedPixelCNN),
    "pixelcnn": _softmax(PixelCNN),
    "row_lstm": _softmax(row_lstm),
    "diagonal_bilstm": _softmax(diagonal_bilstm),
    "pixelcnn++": _pixelcnnpp,
}
CONDITIONS = {"none": lambda _: NoCondition(), "label": lambda classes: LabelCondition(len(classes))}


@dataclass(frozen=True)
class Data:
    """What a model must know of its data: enough to build it, to refuse other data and to name the classes."""

    dataset: str
    shape: tuple[int, int, int]  # C, H, W
    levels: int
    classes: tuple[str, ...]
    fingerprints: dict[str, str]  # of the pixels of each split

    @classmethod
    def of(cls, card: Card) -> "Data":
        channels, height, width = card.shape
        fingerprints: dict[str, str] = {name: split.fingerprint for name, split in card.splits.items()}
        return cls(card.dataset, (channels, height, width), card.levels, tuple(card.classes), fingerprints)


@dataclass(frozen=True)
class Model:
    """A network with its likelihood. `network(x, cond)` is what `likelihood` reads."""

    network: nn.Module
    likelihood: Likelihood
    config: config.Architecture
    data: Data

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        return self.data.shape

    @property
    def dims(self) -> int:
        """Sub-pixels per image, C * H * W."""
        channels, height, width = self.shape
        return channels * height * width

    @property
    def device(self) -> torch.device:
        """Where the network's weights lie."""
        return next(self.network.parameters()).device

    def nll(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """-log p(x | cond) in nats per image (B,), of integer images x (B, C, H, W)."""
        return self.likelihood.nll(self.network(x, cond), x)

    def conditions(self, split: Split) -> Tensor | None:
        """What this model is conditioned on, for every image of a split; None for an unconditional model."""
        if self.config.condition == "none":
            return None
        assert split.labels is not None, "build refuses a class-conditional model of unlabelled data"
        return split.labels


def build(section: config.Architecture, data: Data) -> Model:
    """The model that a `model:` section of params.yaml describes, with fresh weights from torch's global generator.

    Raises ValueError for sizes that do not suit the data.
    """
    if section.condition == "label" and not data.classes:
        raise ValueError(f"model.condition: 'label' needs labels, but {data.dataset} has none; 'none' would do")
    sizes = section.model_dump(exclude={"name", "condition"})
    condition = CONDITIONS[section.condition](data.classes)
    made = ARCHITECTURES[section.name]
    network, likelihood = made(data_channels=data.shape[0], levels=data.levels, condition=condition, **sizes)
    return Model(network, likelihood, section, data)
