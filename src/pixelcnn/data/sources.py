"""The public data sets this project knows: who publishes them, in which archives, and how their images are recognised.

The publisher's words differ from ours in one place: the "valid" files of ImageNet are our test split. A train split
here is all that the publisher offers for training, before preprocess cuts the validation split from it. The two
ImageNet releases hold different images, down-sampled differently, so their names carry the release: likelihoods on
the one say nothing about the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

PublishedSplit = Literal["train", "test"]
Layout = Literal["digits", "texture", "cifar10-python", "numbered-png-tar", "downsampled-imagenet"]


@dataclass(frozen=True)
class Archive:
    """A publisher's file. `sha256` and `num_bytes` are None where nobody has published them."""

    file: str
    url: str
    sha256: str | None = None
    num_bytes: int | None = None


@dataclass(frozen=True)
class Source:
    """A data set as its publisher offers it.

    `archives` maps a split to the sets of files any one of which is the whole split; the first is the one fetched.
    `shape` is (C, H, W), pixel values are 0 .. levels - 1, and labels in the files count from `first_label`.
    `fingerprints` identify the complete splits whatever their order (pixelcnn.data.dataset), where they are known.
    """

    title: str
    layout: Layout
    archives: Mapping[PublishedSplit, tuple[tuple[Archive, ...], ...]]
    shape: tuple[int, int, int]
    levels: int
    classes: tuple[str, ...]
    num_images: Mapping[PublishedSplit, int]
    licence: str
    citation: str
    homepage: str
    first_label: int = 0
    fingerprints: Mapping[PublishedSplit, str] = field(default_factory=dict)
    hint: str = ""

    def files_in(self, folder: Path, split: PublishedSplit) -> tuple[Archive, ...]:
        """The archives of `split` that lie in `folder`; ValueError naming what was looked for if none is complete."""
        for archives in self.archives[split]:
            if all((folder / archive.file).is_file() for archive in archives):
                return archives
        wanted = " or ".join(" + ".join(a.file for a in archives) for archives in self.archives[split])
        raise ValueError(f"{folder}: lacks the {split} archives of {self.title}: looked for {wanted}")


def _vdo2016(size: int, train: tuple[str, int], test: tuple[str, int]) -> Source:
    """The release of "Pixel Recurrent Neural Networks": numbered PNG files, without labels."""

    def archive(split: str, sha256: str, num_bytes: int) -> tuple[tuple[Archive, ...], ...]:
        file = f"{split}_{size}x{size}.tar"
        return ((Archive(file, f"http://image-net.org/small/{file}", sha256, num_bytes),),)

    return Source(
        title=f"ImageNet {size}x{size} (2016 release)",
        layout="numbered-png-tar",
        archives={"train": archive("train", *train), "test": archive("valid", *test)},
        shape=(3, size, size),
        levels=256,
        classes=(),
        num_images={"train": 1_281_149, "test": 49_999},
        licence="ImageNet terms of access: non-commercial research and education",
        citation=(
            "van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks. ICML 2016, arXiv:1601.06759"
        ),
        homepage="http://image-net.org/small/download.php",
        hint=(
            "image-net.org has not offered the 2016 release since 2021. Fetch the files by other means, for example "
            "academictorrents.com bf62f5051ef878b9c357e6221e879629a9b4b172 and "
            "96816a530ee002254d29bf7a61c0c158d3dedc3b, and set `origin` to the folder that holds them"
        ),
    )


def _box2017(size: int, *, train: tuple[tuple[Archive, ...], ...], test: tuple[tuple[Archive, ...], ...]) -> Source:
    """The release by Chrabaszcz et al.: box-filtered, with labels 1 .. 1000, as pickles or as npz files."""
    return Source(
        title=f"ImageNet {size}x{size} (2017 release)",
        layout="downsampled-imagenet",
        archives={"train": train, "test": test},
        shape=(3, size, size),
        levels=256,
        classes=tuple(str(number) for number in range(1, 1001)),  # the publisher's numbers
        first_label=1,
        num_images={"train": 1_281_167, "test": 50_000},
        licence="ImageNet terms of access: non-commercial research and education",
        citation=(
            "Chrabaszcz, Loshchilov, Hutter: A Downsampled Variant of ImageNet as an Alternative to the CIFAR "
            "datasets. 2017, arXiv:1707.08819"
        ),
        homepage="https://image-net.org/download-images.php",
        hint=(
            "image-net.org may ask for an account: fetch the files in a browser and set `origin` to the folder that "
            "holds them"
        ),
    )


def _box(file: str, sha256: str | None = None, num_bytes: int | None = None) -> Archive:
    return Archive(file, f"https://image-net.org/data/downsample/{file}", sha256, num_bytes)


_DIGITS = Source(
    title="Handwritten digits 8x8",
    layout="digits",
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

_TEXTURE = Source(
    title="Causal texture 8x8",
    layout="texture",
    archives={},
    shape=(3, 8, 8),
    levels=8,
    classes=(),
    num_images={"train": 10_000, "test": 2_000},
    licence="MIT, as this project",
    citation="pixelcnn.data.texture",
    homepage="",
    fingerprints={
        "train": "3c60ed73031462770b6d87ca10bfab4d634e5dfa2efd9a868ed5e05a20f20ebf",
        "test": "19915a461a67d6ff98fd2d48a47db754e80a821c9d83cbfd459f734326b89c0e",
    },
)

_CIFAR10_ARCHIVE = Archive(
    "cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    170_498_071,
)

_CIFAR10 = Source(
    title="CIFAR-10",
    layout="cifar10-python",
    archives={"train": ((_CIFAR10_ARCHIVE,),), "test": ((_CIFAR10_ARCHIVE,),)},
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

# Where both kinds are offered the npz files come first: they alone have published checksums, and hold no pickles.
_BOX2017_32 = _box2017(
    32,
    train=(
        (
            _box(
                "Imagenet32_train_npz.zip",
                "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc",
                3_580_435_279,
            ),
        ),
        (_box("Imagenet32_train.zip", num_bytes=3_590_350_354),),
    ),
    test=(
        (
            _box(
                "Imagenet32_val_npz.zip",
                "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a",
                139_697_668,
            ),
        ),
        (_box("Imagenet32_val.zip"),),
    ),
)

_BOX2017_64 = _box2017(
    64,
    train=(
        (
            _box(
                "Imagenet64_train_part1_npz.zip",
                "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1",
                6_783_426_789,
            ),
            _box(
                "Imagenet64_train_part2_npz.zip",
                "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30",
                6_780_506_068,
            ),
        ),
        (_box("Imagenet64_train_part1.zip"), _box("Imagenet64_train_part2.zip")),
        (_box("Imagenet64_train.zip"),),  # both parts in one file, as people repack them
    ),
    test=(
        (
            _box(
                "Imagenet64_val_npz.zip",
                "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8",
                529_522_927,
            ),
        ),
        (_box("Imagenet64_val.zip"),),
    ),
)

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "digits": _DIGITS,
        "texture": _TEXTURE,
        "cifar10": _CIFAR10,
        "imagenet32-vdo2016": _vdo2016(
            32,
            train=("244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5", 4_113_018_880),
            test=("862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7", 161_474_560),
        ),
        "imagenet64-vdo2016": _vdo2016(
            64,
            train=("e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7", 12_112_588_800),
            test=("eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd", 477_255_680),
        ),
        "imagenet32-box2017": _BOX2017_32,
        "imagenet64-box2017": _BOX2017_64,
    }
)
