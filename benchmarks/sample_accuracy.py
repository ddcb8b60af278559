"""Do samples show what they were asked for? A classifier of the real digits is asked what the drawn ones are.

    dvc repro && python benchmarks/sample_accuracy.py

It is scikit-learn's support vector machine, trained on the train split of data/prepared/digits alone. Class-conditional
models: the fraction of samples that it puts in the class they were drawn for. Auto-encoders: the fraction of test
images whose reconstruction it puts in the image's own class.
"""

import argparse
from pathlib import Path

import torch
from sklearn.svm import SVC
from torch import Tensor

from pixelcnn import checkpoint
from pixelcnn.data.dataset import Split, read_split
from pixelcnn.generation.sampling import sample
from pixelcnn.model import Model


def classifier(data: Split) -> SVC:
    """The support vector machine of scikit-learn's own example for these digits."""
    assert data.labels is not None
    return SVC(gamma=0.001).fit(data.images.flatten(1).numpy(), data.labels.numpy())


def accuracy(machine: SVC, images: Tensor, labels: Tensor) -> float:
    return float(machine.score(images.flatten(1).numpy(), labels.numpy()))


def drawn(model: Model, test: Split, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """`num` images of a model and the classes that they should show."""
    assert test.labels is not None
    generator = torch.Generator().manual_seed(seed)
    if model.given == "label":
        labels = torch.arange(num) % len(model.data.classes)
        return sample(model, num, generator, labels), labels
    codes = model.encode(test.images[:num]).detach()
    decoded = model.decode(codes)
    images = decoded if decoded is not None else sample(model, len(codes), generator, codes)
    return images.detach(), test.labels[:num]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/prepared/digits"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    machine, test = classifier(read_split(args.data, "train")), read_split(args.data, "test")
    print(f"{'real test images':28} {accuracy(machine, test.images, test.labels):.3f}")
    for folder in sorted(path.parent for path in args.models.glob("*/config.json")):
        model = checkpoint.load(folder)
        if model.data.dataset == "digits" and model.given in ("label", "code"):
            print(f"{folder.name:28} {accuracy(machine, *drawn(model, test, args.num, args.seed)):.3f}", flush=True)


if __name__ == "__main__":
    main()
