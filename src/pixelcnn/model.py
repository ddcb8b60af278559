"""A model: a network, the likelihood of its output, and what data it is for.

ARCHITECTURES and CONDITIONS are the tables a new architecture or condition is entered in; its keys of params.yaml are a
section of pixelcnn.config.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixelcnn import config
from pixelcnn.architectures.pixelcnn.network import PixelCNN
from pixelcnn.architectures.pixelcnnpp.network import PixelCNNPlusPlus
from pixelcnn.data.dataset import Card, Split
from pixelcnn.likelihoods.categorical import Categorical, Likelihood
from pixelcnn.likelihoods.logistic_mixture import LogisticMixture
from pixelcnn.nn.autoencoder import PixelCNNAutoencoder, SquaredErrorAutoencoder
from pixelcnn.nn.conditioning import LabelCondition, MapCondition, NoCondition, VectorCondition
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from pixelcnn.nn.pixelrnn import diagonal_bilstm, row_lstm

Shape = tuple[int, int, int]  # C, H, W
Made = tuple[nn.Module, Likelihood]


def _softmax(network: Callable[..., nn.Module]) -> Callable[..., Made]:
    """An architecture that orders colours itself, under a softmax over the levels of each sub-pixel."""
    return lambda shape, levels, **sizes: (network(data_channels=shape[0], levels=levels, **sizes), Categorical(levels))


def _autoencoder(network: Callable[..., nn.Module]) -> Callable[..., Made]:
    return lambda shape, levels, **sizes: (network(shape=shape, levels=levels, **sizes), Categorical(levels))


def _pixelcnnpp(shape: Shape, levels: int, num_mixtures: int, **sizes: Any) -> Made:
    likelihood = LogisticMixture(levels, num_mixtures)
    outputs = likelihood.num_outputs(shape[0])
    return PixelCNNPlusPlus(data_channels=shape[0], levels=levels, num_outputs=outputs, **sizes), likelihood


ARCHITECTURES: dict[str, Callable[..., Made]] = {
    "gated_pixelcnn": _softmax(GatedPixelCNN),
    "pixelcnn": _softmax(PixelCNN),
    "row_lstm": _softmax(row_lstm),
    "diagonal_bilstm": _softmax(diagonal_bilstm),
    "pixelcnn++": _pixelcnnpp,
    "pixelcnn_autoencoder": _autoencoder(PixelCNNAutoencoder),
    "squared_error_autoencoder": _autoencoder(SquaredErrorAutoencoder),
}
CONDITIONS: dict[str, Callable[[Any, "Data"], nn.Module]] = {
    "none": lambda *_: NoCondition(),
    "label": lambda _, data: LabelCondition(len(data.classes)),
    "embedding": lambda _, data: VectorCondition(data.embedding_dims, "an embedding"),
    "code": lambda section, _: VectorCondition(section.code, "a code"),
}


def _condition(section: config.Architecture, data: "Data") -> nn.Module:
    """The condition of equation 4, or of equation 5 with as many maps as the network has features."""
    given = config.given(section.condition)
    if given == "label" and not data.classes:
        raise ValueError(f"model.condition: 'label' needs labels, but {data.dataset} has none; 'none' would do")
    if given == "embedding" and not data.embedding_dims:
        raise ValueError(
            f"model.condition: 'embedding' needs embeddings, but {data.dataset} has none; an entry of `embeddings` in "
            "params.yaml makes a data set that has"
        )
    condition = CONDITIONS[given](section, data)
    if section.condition == given:
        return condition
    return MapCondition(condition, section.hidden_channels, *data.shape[1:])


@dataclass(frozen=True)
class Data:
    """What a model must know of its data: enough to build it, to refuse other data and to name the classes."""

    dataset: str
    shape: Shape
    levels: int
    classes: tuple[str, ...]
    fingerprints: dict[str, str]  # of the pixels of each split
    embedding_dims: int = 0
    embedding_sha256: str = ""

    @classmethod
    def of(cls, card: Card) -> "Data":
        channels, height, width = card.shape
        fingerprints: dict[str, str] = {name: split.fingerprint for name, split in card.splits.items()}
        embeddings = (card.embeddings.dims, card.embeddings.sha256) if card.embeddings else (0, "")
        return cls(card.dataset, (channels, height, width), card.levels, tuple(card.classes), fingerprints, *embeddings)


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

    def encode(self, x: Tensor) -> Tensor:
        """The codes (B, m) of images (B, C, H, W), by an auto-encoder."""
        if self.given != "code":
            raise ValueError(f"{self.config.name}: encodes nothing; the architectures with a code are auto-encoders")
        return cast(PixelCNNAutoencoder, self.network).encode(x)

    def decode(self, codes: Tensor) -> Tensor | None:
        """The images (B, C, H, W) uint8 of codes (B, m), where the network has one for each; else they are sampled."""
        decode = getattr(self.network, "decode", None)
        if decode is None:
            return None
        levels = self.data.levels - 1
        return ((decode(codes) + 1) * (levels / 2)).round().clamp(0, levels).to(torch.uint8)

    @property
    def given(self) -> str:
        """What the model is conditioned on: "none", "label", "embedding" or "code"."""
        return config.given(self.config.condition)

    def conditions(self, split: Split) -> Tensor | None:
        """What this model is conditioned on, for every image of a split; None where the image is enough."""
        if self.given not in ("label", "embedding"):
            return None
        conditions = split.labels if self.given == "label" else split.embeddings
        assert conditions is not None, "build refuses data without the condition"
        return conditions

    def some_condition(self) -> Tensor | None:
        """A condition of one image, whichever: to ask what a pass costs."""
        match self.given:
            case "label":
                return torch.zeros(1, dtype=torch.int64, device=self.device)
            case "embedding":
                return torch.zeros(1, self.data.embedding_dims, device=self.device)
        return None

    def standardise(self, split: Split) -> None:
        """Before training: see to it that embeddings have mean 0 and variance 1 on this split."""
        if self.given == "embedding":
            vectors = [m for m in self.network.modules() if isinstance(m, VectorCondition)]
            for vector in vectors:
                vector.standardise(cast(Tensor, split.embeddings))


def build(section: config.Architecture, data: Data) -> Model:
    """The model that a `model:` section of params.yaml describes, with fresh weights from torch's global generator.

    Raises ValueError for sizes that do not suit the data.
    """
    sizes = section.model_dump(exclude={"name", "condition"})
    made = ARCHITECTURES[section.name]
    network, likelihood = made(shape=data.shape, levels=data.levels, condition=_condition(section, data), **sizes)
    return Model(network, likelihood, section, data)
