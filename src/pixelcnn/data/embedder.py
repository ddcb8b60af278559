"""A classifier whose top-layer features are the embeddings of images: a ResNet trained on a data set's labels.

The portraits of arXiv:1606.05328 (section 3.3) are conditioned on such embeddings. The network is torchvision's; for
small images its first convolution has stride 1 and the max pooling after it is left out.

Shapes: N images, C channels, H rows, W columns, D dimensions of an embedding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.data.config import Classifier
from pixelcnn.data.dataset import DatasetInfo, Split
from pixelcnn.progress import progress

SMALL = 64  # pixels a side, below which the stem's down-sampling by 4 would leave too little


class Embedder(nn.Module):
    """A ResNet from images (N, C, H, W) uint8 to embeddings (N, D); `classify` maps these to logits of the classes."""

    def __init__(self, settings: Classifier, info: DatasetInfo):
        import torchvision  # takes seconds

        super().__init__()
        self.scale = 2 / (info.levels - 1)
        self.trunk: nn.Module = torchvision.models.get_model(settings.network, weights=None)
        if max(info.shape[1:]) < SMALL:
            self.trunk.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            self.trunk.maxpool = nn.Identity()
        self.trunk.fc = nn.Linear(self.trunk.fc.in_features, settings.dims)
        self.classes = nn.Linear(settings.dims, len(info.classes))

    def forward(self, x: Tensor) -> Tensor:
        scaled = x.float() * self.scale - 1
        return self.trunk(scaled.expand(-1, 3, -1, -1))  # grey images as three equal channels

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits (N, classes) of embeddings (N, D)."""
        return self.classes(F.relu(embeddings))


def train_classifier(settings: Classifier, info: DatasetInfo, data: Split, device: torch.device) -> Embedder:
    """Train an Embedder on the labels of `data`, by AdamW with a one-cycle schedule.

    Raises ValueError for data without labels.
    """
    if data.labels is None:
        raise ValueError(f"embeddings: source: classifier needs labels, but {info.dataset} has none; `file` would do")
    torch.manual_seed(settings.seed)
    network = Embedder(settings, info).to(device).train()
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
    return network.eval()


@torch.inference_mode()
def embed(network: Embedder, images: Tensor, on_batch: Callable[[int], object] = lambda _: None) -> Tensor:
    """Compute the embeddings (N, D) float32 of images (N, C, H, W), returned on the CPU."""
    device = network.classes.weight.device
    parts = []
    for batch in images.split(256):
        parts.append(network(batch.to(device)).cpu())
        on_batch(len(batch))
    return torch.cat(parts)


@torch.inference_mode()
def accuracy(network: Embedder, embeddings: Tensor, labels: Tensor) -> float:
    """The fraction of images, given their embeddings (N, D) and labels (N,), that are classified correctly."""
    logits = network.classify(embeddings.to(network.classes.weight.device))
    return float((logits.argmax(1).cpu() == labels).double().mean())
