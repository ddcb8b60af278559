"""What MNIST and the data sets laid out like it share: four gzipped files of the same names.

DVC watches the file of a source, not this one: after a change of what is downloaded, `dvc repro -f download@NAME`.
"""

from collections.abc import Mapping

from pixelcnn.data.sources import Archive, PublishedSplit

FILES = {"train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
         "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")}  # fmt: skip


def archives(
    site: str, *, train: tuple[str, str], test: tuple[str, str]
) -> Mapping[PublishedSplit, tuple[tuple[Archive, ...], ...]]:
    """The archives of both splits below a URL, from the md5 of their images and labels."""

    def files(split: PublishedSplit, md5s: tuple[str, str]) -> tuple[tuple[Archive, ...], ...]:
        return (tuple(Archive(file, f"{site}/{file}", md5=md5) for file, md5 in zip(FILES[split], md5s, strict=True)),)

    return {"train": files("train", train), "test": files("test", test)}
