"""The public data sets that can be downloaded: one file each, named as `download.source` in params.yaml.

Each file defines SOURCE: who publishes the data set, in which archives, how they are read, and how its images are
recognised. A file whose name begins with an underscore is shared by others. No torch here.

Terms differ from the publishers' in one place: the "valid" files of ImageNet are our test split. A train split here is
all that the publisher offers for training, before preprocessing cuts the validation split from it. The two ImageNet
releases hold different images, down-sampled differently, so their names carry the release: likelihoods on the one say
nothing about the other.
"""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PublishedSplit = Literal["train", "test"]
# Name, image and label: the image is uint8 (C, H, W), or the bytes of a PNG file of that size; no label is None
Item = tuple[str, "bytes | npt.NDArray[np.uint8]", int | None]
Read = Callable[["Source", Path, PublishedSplit], Iterator[Item]]

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


@dataclass(frozen=True)
class Archive:
    """A publisher's file. Checksums and `num_bytes` are None where nobody has published them."""

    file: str
    url: str
    sha256: str | None = None
    num_bytes: int | None = None
    md5: str | None = None

    @property
    def checksum(self) -> tuple[str, str | None]:
        """The algorithm of the published checksum, and that checksum."""
        return ("md5", self.md5) if self.sha256 is None and self.md5 is not None else ("sha256", self.sha256)


@dataclass(frozen=True)
class Source:
    """A data set as its publisher offers it.

    `read` streams the images of a split, in the archives' order, with labels that count from 0.
    `archives` maps a split to the sets of files any one of which is the whole split; the first is the one fetched.
    `shape` is (C, H, W), pixel values are 0 .. levels - 1, and labels in the files count from `first_label`.
    `fingerprints` identify the complete splits whatever their order (pixelcnn.data.dataset), where they are known.
    `true_nll` is -log p in nats (N,) of images (N, C, H, W), where the distribution they are drawn from is known.
    """

    title: str
    read: Read
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
    hint: str = ""  # where else the files may be had, for the message when a download is refused
    true_nll: "Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]] | None" = None

    def files_in(self, folder: Path, split: PublishedSplit) -> tuple[Archive, ...]:
        """The archives of `split` that lie in `folder`; ValueError naming what was looked for if none is complete."""
        for archives in self.archives[split]:
            if all((folder / archive.file).is_file() for archive in archives):
                return archives
        wanted = " or ".join(" + ".join(a.file for a in archives) for archives in self.archives[split])
        raise ValueError(f"{folder}: lacks the {split} archives of {self.title}: looked for {wanted}")


def load(name: str) -> Source:
    """The source of that name, one of NAMES."""
    source: Any = import_module(f"{__name__}.{name}").SOURCE
    assert isinstance(source, Source), f"{name}: SOURCE is a {type(source).__name__}"
    return source
