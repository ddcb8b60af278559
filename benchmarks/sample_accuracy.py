"""Accuracy of a classifier of real digits on the samples of class-conditional models and on reconstructions.

    dvc repro && python benchmarks/sample_accuracy.py

The classifier is scikit-learn's support vector machine, fitted to the train split of data/prepared/digits alone.
Class-conditional models: the fraction of samples classified as the class that they were drawn for. Auto-encoders: the
fraction of test images whose reconstruction is classified as the image's own class.
"""

import argparse
from pathlib import Path

import torch
from sklearn.svm import SVC
from torch import Tensor

from pixelcnn import checkpoint
from pixelcnn.config import Given
from pixelcnn.data.dataset import Split, read_split
from pixelcnn.generation.interpolation import reconstruct
from pixelcnn.generation.sampling import sample
from pixelcnn.model import Model


def classifier(data: Split) -> SVC:
    """The support vector machine of scikit-learn's example on these digits."""
    assert data.labels is not None
    return SVC(gamma=0.001).fit(data.images.flatten(1).numpy(), data.labels.numpy())


def accuracy(machine: SVC, images: Tensor, labels: Tensor) -> float:
    return float(machine.score(images.flatten(1).numpy(), labels.numpy()))


def drawn(model: Model, test: Split, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """`num` images drawn by a model and the classes that they should have."""
    assert test.labels is not None
    if model.given is Given.LABEL:
        labels = torch.arange(num) % len(model.data.classes)
        return sample(model, num, torch.Generator().manual_seed(seed), labels), labels
    images = reconstruct(model, test.images[:num], 1, seed)[:, 0]
    return images, test.labels[:num]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/prepared/digits"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    machine, test = classifier(read_split(args.data, "train")), read_split(args.data, "test")
    assert test.labels is not None
    print(f"{'real test images':28} {accuracy(machine, test.images, test.labels):.3f}")
    for folder in sorted(path.parent for path in args.models.glob("*/config.json")):
        model = checkpoint.load(folder)
        if model.data.dataset == "digits" and model.given in (Given.LABEL, Given.CODE):
            print(f"{folder.name:28} {accuracy(machine, *drawn(model, test, args.num, args.seed)):.3f}", flush=True)


if __name__ == "__main__":
    main()
