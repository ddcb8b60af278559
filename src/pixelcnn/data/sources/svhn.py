"""SVHN (Netzer et al. 2011), cropped house numbers 32x32, in MATLAB files. The checksums are torchvision's.

The train split is `train`; the publisher's easier `extra` images are left out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixelcnn.data.archives import labelled_rows
from pixelcnn.data.decoding import refusing
from pixelcnn.data.sources import Archive, Item, PublishedSplit, Source

SITE = "http://ufldl.stanford.edu/housenumbers"


def read(source: Source, folder: Path, split: PublishedSplit) -> Iterator[Item]:
    """A split's images, of which the file holds X (H, W, C, N) and y (N, 1), where 10 stands for the digit 0."""
    from scipy import io

    (archive,) = source.files_in(folder, split)
    path, (channels, *size) = folder / archive.file, source.shape
    with refusing(path, "is not a readable MATLAB file"):
        declared = {name: (shape, kind) for name, shape, kind in io.whosmat(path)}  # reads no data
        shape, kind = declared["X"]
        if kind != "uint8" or shape[:3] != (*size, channels) or shape[3] > source.num_images[split]:
            raise ValueError(f"X is {kind} {shape}, expected uint8 {(*size, channels, source.num_images[split])}")
        if declared["y"][0] != (shape[3], 1):
            raise ValueError(f"y is {declared['y'][0]}, expected {(shape[3], 1)}")
        content = io.loadmat(path, variable_names=("X", "y"))
        rows = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)).reshape(shape[3], -1)  # (N, C*H*W)
        labels = content["y"].astype(np.int64)[:, 0]
    yield from labelled_rows(source, str(path), rows, np.where(labels == 10, 0, labels))


SOURCE = Source(
    title="SVHN",
    read=read,
    archives={
        "train": ((Archive("train_32x32.mat", f"{SITE}/train_32x32.mat", md5="e26dedcc434d2e4c54c9b2d4a06d8373"),),),
        "test": ((Archive("test_32x32.mat", f"{SITE}/test_32x32.mat", md5="eb5a983be6a315427106f1b164d9cef3"),),),
    },
    shape=(3, 32, 32),
    levels=256,
    classes=tuple("0123456789"),
    num_images={"train": 73_257, "test": 26_032},
    licence="non-commercial use only",
    citation=(
        "Netzer, Wang, Coates, Bissacco, Wu, Ng: Reading Digits in Natural Images with Unsupervised Feature Learning. "
        "NIPS workshop, 2011"
    ),
    homepage="http://ufldl.stanford.edu/housenumbers/",
)
