"""What the sources of small ImageNet share: the two releases, each in two sizes.

DVC watches the file of a source, not this one: after a change of what is downloaded, `dvc repro -f download@NAME`.
"""

from pixelcnn.data import archives
from pixelcnn.data.sources import Archive, Source


def vdo2016(size: int, train: tuple[str, int], test: tuple[str, int]) -> Source:
    """The release of "Pixel Recurrent Neural Networks": numbered PNG files, without labels."""

    def archive(split: str, sha256: str, num_bytes: int) -> tuple[tuple[Archive, ...], ...]:
        file = f"{split}_{size}x{size}.tar"
        return ((Archive(file, f"http://image-net.org/small/{file}", sha256, num_bytes),),)

    return Source(
        title=f"ImageNet {size}x{size} (2016 release)",
        read=archives.read_numbered_pngs,
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


def box2017(size: int, *, train: tuple[tuple[Archive, ...], ...], test: tuple[tuple[Archive, ...], ...]) -> Source:
    """The release by Chrabaszcz et al.: box-filtered, with labels 1 .. 1000, as pickles or as npz files."""
    return Source(
        title=f"ImageNet {size}x{size} (2017 release)",
        read=archives.read_downsampled_imagenet,
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


def box(file: str, sha256: str | None = None, num_bytes: int | None = None) -> Archive:
    """An archive of the 2017 release."""
    return Archive(file, f"https://image-net.org/data/downsample/{file}", sha256, num_bytes)
