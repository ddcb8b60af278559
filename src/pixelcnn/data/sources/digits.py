"""Handwritten digits 8x8 that come with scikit-learn: the default data set, nothing to download."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixelcnn.data.archives import labelled_rows
from pixelcnn.data.sources import Item, PublishedSplit, Source


def read(source: Source, _folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """The digits in scikit-learn's order; the last ones, mostly by other writers, are the test split."""
    from sklearn.datasets import load_digits

    data, labels = load_digits(return_X_y=True)
    end = source.num_images["train"]
    rows = slice(None, end) if split == "train" else slice(end, None)
    yield from labelled_rows(source, f"digits: {split}", data[rows].astype(np.uint8), labels[rows])


SOURCE = Source(
    title="Handwritten digits 8x8",
    read=read,
    archives={},
    shape=(1, 8, 8),
    levels=17,
    classes=tuple("0123456789"),
    num_images={"train": 1297, "test": 500},
    licence="CC BY 4.0",
    citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998",
    homepage="https://doi.org/10.24432/C50P49",
    fingerprints={
        "train": "9d1b22681138c8aba4da3dbadac7a68672fda710c9ed5d3d07c695d4a409118a",
        "test": "47a98418d622fa54fc57c6f2da03c0f89bfd04c3913b115303ed3ec3d59ec243",
    },
)
