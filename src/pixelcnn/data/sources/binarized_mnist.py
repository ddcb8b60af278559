"""Binarised MNIST in the fixed draw of Larochelle and Murray (2011), on which papers compare nats.

There are no labels. Each pixel of MNIST was drawn once from a Bernoulli distribution with its intensity as the
probability (Salakhutdinov and Murray 2008). The train split is the publisher's train and valid files. The checksums are
those of TensorFlow Datasets.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixelcnn.data.decoding import refusing
from pixelcnn.data.sources import Archive, Item, PublishedSplit, Source

SITE = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"


def read(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """A split's images: a line each, of 0 and 1 with spaces between them."""
    width = 2 * source.shape[1] * source.shape[2]  # bytes of a line
    for archive in source.files_in(folder, split):
        path = folder / archive.file
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.read(width), b""), 1):
                where = f"{path}: line {number}"
                with refusing(where, "is damaged"):
                    characters = np.frombuffer(line, np.uint8).reshape(-1, 2)
                    pixels = (characters[:, 0] - ord("0")).reshape(source.shape)
                    if pixels.max() > 1 or (characters[:-1, 1] != ord(" ")).any() or characters[-1, 1] != ord("\n"):
                        raise ValueError("expected 0 and 1 with a space between them")
                yield where, pixels, None


def _archive(split: str, sha256: str, num_bytes: int) -> Archive:
    file = f"binarized_mnist_{split}.amat"
    return Archive(file, f"{SITE}/{file}", sha256, num_bytes)


SOURCE = Source(
    title="Binarised MNIST (Larochelle's fixed draw)",
    read=read,
    archives={
        "train": (
            (
                _archive("train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d", 78_400_000),
                _archive("valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2", 15_680_000),
            ),
        ),
        "test": ((_archive("test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c", 15_680_000),),),
    },
    shape=(1, 28, 28),
    levels=2,
    classes=(),
    num_images={"train": 60_000, "test": 10_000},
    licence="none stated by the publisher",
    citation="Larochelle, Murray: The Neural Autoregressive Distribution Estimator. AISTATS 2011",
    homepage="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist",
)
