"""A model: a network, the likelihood of its output, and what data it is for.

ARCHITECTURES and CONDITIONS are the tables a new architecture or condition is entered in; its keys of params.yaml are a
section of pixelcnn.config.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelcnn import config
from pixelcnn.data.datasets import Card, Split
from pixelcnn.likelihood import Categorical
from pixelcnn.nn.conditioning import LabelCondition, NoCondition
from pixelcnn.nn.gated_pixelcnn import GatedPixelCNN

ARCHITECTURES = {"gated_pixelcnn": GatedPixelCNN}
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
    likelihood: Categorical
    config: config.Model
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


def build(section: config.Model, data: Data) -> Model:
    """The model that a `model:` section of params.yaml describes, with fresh weights from torch's global generator.

    Raises ValueError for sizes that do not suit the data.
    """
    if section.condition == "label" and not data.classes:
        raise ValueError(f"model.condition: 'label' needs labels, but {data.dataset} has none; 'none' would do")
    sizes = section.model_dump(exclude={"name", "condition"})
    condition = CONDITIONS[section.condition](data.classes)
    network = ARCHITECTURES[section.name](data_channels=data.shape[0], levels=data.levels, condition=condition, **sizes)
    return Model(network, Categorical(data.levels), section, data)
