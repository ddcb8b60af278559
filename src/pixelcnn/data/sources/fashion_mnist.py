"""Fashion-MNIST (Xiao et al. 2017): clothing 28x28 in grey, laid out as MNIST. The checksums are torchvision's."""

from pixelcnn.data.archives import read_idx
from pixelcnn.data.sources import Source
from pixelcnn.data.sources._idx import archives

SOURCE = Source(
    title="Fashion-MNIST",
    read=read_idx,
    archives=archives(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        train=("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe"),
        test=("bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    shape=(1, 28, 28),
    levels=256,
    classes=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    num_images={"train": 60_000, "test": 10_000},
    licence="MIT",
    citation=(
        "Xiao, Rasul, Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms. "
        "2017, arXiv:1708.07747"
    ),
    homepage="https://github.com/zalandoresearch/fashion-mnist",
)  # fmt: skip
