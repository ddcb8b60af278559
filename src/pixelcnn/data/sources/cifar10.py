"""CIFAR-10 (Krizhevsky 2009), the Python version: pickled batches in a tar.gz."""

from pixelcnn.data import archives
from pixelcnn.data.sources import Archive, Source

ARCHIVE = Archive(
    "cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    170_498_071,
)

SOURCE = Source(
    title="CIFAR-10",
    read=archives.read_cifar10,
    archives={"train": ((ARCHIVE,),), "test": ((ARCHIVE,),)},
    shape=(3, 32, 32),
    levels=256,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    num_images={"train": 50_000, "test": 10_000},
    licence="none stated by the publisher, who asks to cite the report",
    citation="Krizhevsky: Learning Multiple Layers of Features from Tiny Images. Technical report, 2009",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    fingerprints={
        "train": "06fc8dbf463c475e429d147a57ec92a1ca1dade45727a16da8100584b194757f",
        "test": "f4de12d9c3c657a65b8a4f858daa79b4e23c0b0cf3b35ecf41bc88099c2d8db5",
    },
    hint="mirror of the same file: origin: https://storage.googleapis.com/tensorflow/tf-keras-datasets",
)
