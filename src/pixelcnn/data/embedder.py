"""A classifier whose top-layer features are the embeddings of images: a ResNet trained on a data set's labels.

The portraits of arXiv:1606.05328 (section 3.3) are conditioned on such embeddings, also of people that no training had
seen. So the stage embed saves the embedder in the data set that it makes, and a training copies it beside the model:

    embedder/config.json         {"format": 1, "network": ..., "dims": D, "data": ..., "weights_sha256": ...}
    embedder/model.safetensors   the weights

The network is torchvision's; for small images its first convolution has stride 1 and the max pooling after it is left
out. Shapes: N images, C channels, H rows, W columns, D dimensions of an embedding.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn import files
from pixelcnn.config import ClassName, Dims, Levels, Name, Section, Sha256, Shape, check
from pixelcnn.data.config import Classifier, ResNet
from pixelcnn.data.dataset import EMBEDDER, DatasetInfo, Split
from pixelcnn.data.images import check_images
from pixelcnn.progress import progress

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MAX_BYTES = 2**31  # of the weights
SMALL = 64  # pixels a side, below which the stem's down-sampling by 4 would leave too little
POSITIONS = 2**18  # of the images in a forward pass: 256 of 32x32, which bounds the memory


class Data(Section):
    """What an embedder must know of its data: enough to be built, and to refuse other images."""

    model_config = ConfigDict(strict=False)  # JSON has lists where these are tuples

    dataset: Name
    shape: Shape  # C, H, W
    levels: Levels
    classes: tuple[ClassName, ...]


class Config(Section):
    """What decides the network."""

    model_config = ConfigDict(strict=False)

    format: Literal[1]
    network: ResNet
    dims: Dims
    data: Data


class Saved(Config):
    """What config.json holds."""

    weights_sha256: Sha256


class Network(nn.Module):
    """A ResNet from images (N, C, H, W) uint8 to embeddings (N, D); `classify` maps these to logits of the classes."""

    def __init__(self, config: Config):
        import torchvision  # takes seconds

        super().__init__()
        self.scale = 2 / (config.data.levels - 1)
        self.trunk: nn.Module = torchvision.models.get_model(config.network, weights=None)
        if max(config.data.shape[1:]) < SMALL:
            self.trunk.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            self.trunk.maxpool = nn.Identity()
        self.trunk.fc = nn.Linear(self.trunk.fc.in_features, config.dims)
        self.classes = nn.Linear(config.dims, len(config.data.classes))

    def forward(self, x: Tensor) -> Tensor:
        scaled = x.float() * self.scale - 1
        return self.trunk(scaled.expand(-1, 3, -1, -1))  # grey images as three equal channels

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits (N, classes) of embeddings (N, D)."""
        return self.classes(F.relu(embeddings))


@dataclass(frozen=True)
class Embedder:
    """A trained embedder: `embedder(images)` are the conditions of a model that was trained on such embeddings."""

    network: Network
    config: Config

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"<pixelcnn embedder {self.config.network} of {self.data.dataset} {size}, {self.dims} numbers an image>"

    @property
    def data(self) -> Data:
        """The data set that it was trained on."""
        return self.config.data

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        return self.config.data.shape

    @property
    def dims(self) -> int:
        """D, the numbers of an embedding."""
        return self.config.dims

    @torch.no_grad()
    def __call__(self, images: Any, on_batch: Callable[[int], object] = lambda _: None) -> Tensor:
        """The embeddings (N, D) float32 of images, on the CPU. Raises ValueError as pixelcnn.data.images.check_images,
        FloatingPointError for weights that give no numbers.

        on_batch: called with the number of images of each batch that is done.
        """
        (channels, *size), device = self.shape, self.network.classes.weight.device
        x, parts = check_images(images, channels, self.data.levels, (size[0], size[1])), []
        for batch in x.split(max(1, POSITIONS // math.prod(size))):
            parts.append(self.network(batch.to(device)).cpu())
            on_batch(len(batch))
        vectors = torch.cat(parts)
        if not bool(torch.isfinite(vectors).all()):
            raise FloatingPointError(
                f"the embedder of {self.data.dataset} gives numbers that are not finite: its training has diverged; a "
                "lower learning_rate of the classifier usually helps"
            )
        return vectors

    @torch.no_grad()
    def accuracy(self, embeddings: Tensor, labels: Tensor) -> float:
        """The fraction of images, given their embeddings (N, D) and labels (N,), that are classified correctly."""
        logits = self.network.classify(embeddings.to(self.network.classes.weight.device))
        return float((logits.argmax(1).cpu() == labels).double().mean())

    def save(self, folder: Path) -> None:
        """Write weights and config.json into a folder."""
        content = save_safetensors({name: w.contiguous() for name, w in self.network.state_dict().items()})
        files.write_bytes(folder / WEIGHTS, content)
        described = self.config.model_dump() | {"weights_sha256": hashlib.sha256(content).hexdigest()}
        files.write_json(folder / CONFIG, described)


def load(folder: Path, device: torch.device | str = "cpu") -> Embedder:
    """The embedder in a folder, or in its sub-folder `embedder`. Executes nothing that the files hold.

    Raises ValueError where there is none, and for weights that are not those that config.json names.
    """
    place = folder / EMBEDDER if (folder / EMBEDDER).is_dir() else folder
    missing = f"{folder}: no {EMBEDDER}/ there; the stage embed makes it, of a data set with `source: classifier`"
    if place == folder and not (folder / WEIGHTS).is_file():
        raise ValueError(missing)
    content = files.read_json(place / CONFIG, missing)
    if "network" not in content:
        raise ValueError(missing)  # a model's folder
    saved, weights = check(Saved, content, str(place / CONFIG)), files.read_bytes(place / WEIGHTS, MAX_BYTES)
    if hashlib.sha256(weights).hexdigest() != saved.weights_sha256:
        raise ValueError(f"{place / WEIGHTS}: not the weights that {CONFIG} names by their sha256: changed or damaged")
    if len(weights) < 4 * saved.dims * len(saved.data.classes):
        raise ValueError(f"{place / WEIGHTS}: {len(weights):,} bytes are too few for the sizes of {place / CONFIG}")
    network = Network(saved)
    try:
        network.load_state_dict(load_safetensors(weights), strict=True)
    except (RuntimeError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{place / WEIGHTS}: {files.excerpt(str(error))}") from None
    return Embedder(network.to(device).eval(), saved)


def train_classifier(settings: Classifier, info: DatasetInfo, data: Split, device: torch.device) -> Embedder:
    """Train an Embedder on the labels of `data`, by AdamW with a one-cycle schedule.

    Raises ValueError for data without labels.
    """
    if data.labels is None:
        raise ValueError(f"embeddings: source: classifier needs labels, but {info.dataset} has none; use `file`")
    torch.manual_seed(settings.seed)
    of = Data(dataset=info.dataset, shape=info.shape, levels=info.levels, classes=info.classes)
    config = Config(format=1, network=settings.network, dims=settings.dims, data=of)
    network = Network(config).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps + 1)
    generator = torch.Generator().manual_seed(settings.seed)
    with progress("classifier", settings.steps, "steps") as bar:
        for _ in range(settings.steps):
            rows = torch.randint(len(data.images), (settings.batch_size,), generator=generator)
            logits = network.classify(network(data.images[rows].to(device)))
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, data.labels[rows].to(device)).backward()
            optimizer.step()
            schedule.step()
            bar.update(1)
    return Embedder(network.eval(), config)
