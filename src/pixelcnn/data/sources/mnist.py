"""MNIST (LeCun et al. 1998): handwritten digits 28x28 in grey, in idx files. The checksums are torchvision's."""

from pixelcnn.data.archives import read_idx
from pixelcnn.data.sources import Source
from pixelcnn.data.sources._idx import archives

SOURCE = Source(
    title="MNIST",
    read=read_idx,
    archives=archives(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        train=("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432"),
        test=("9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    shape=(1, 28, 28),
    levels=256,
    classes=tuple("0123456789"),
    num_images={"train": 60_000, "test": 10_000},
    licence="none stated by the publisher",
    citation="LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. IEEE, 1998",
    homepage="http://yann.lecun.com/exdb/mnist/",
    hint="other copies of the four files will do: set `origin` to the folder that holds them",
)
