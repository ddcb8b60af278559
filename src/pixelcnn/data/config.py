"""The sections of params.yaml on data: `datasets`, `images` and `embeddings`. No torch here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pixelcnn.config import Count, Dims, Name, Positive, Section, Seed, Sha256, Side, not_one_of
from pixelcnn.data import sources
from pixelcnn.files import check_kept


def _known_source(name: str) -> str:
    if name not in sources.NAMES:
        raise ValueError(not_one_of(name, ", ".join(sources.NAMES)).removeprefix(repr(name)).strip())
    return name


def is_url(origin: str) -> bool:
    """Whether an origin is that of the publisher or another address, not a folder here."""
    return origin == "publisher" or origin.startswith(("http://", "https://"))


def _kept(place: str) -> str:
    if not is_url(place):
        check_kept(Path(place))
    return place


class Download(Section):
    """Where the publisher's archives of one data set come from; `source` is a file of pixelcnn.data.sources."""

    source: Annotated[str, AfterValidator(_known_source)]
    origin: Annotated[
        str, Field(min_length=1), AfterValidator(_kept)
    ]  # "publisher", the URL of a folder that holds the files, or a local folder
    verify: Literal["publisher", "any"]  # the publisher's sha256 and counts, or whatever lies there


def _of_dvc(path: str) -> str:
    if path.startswith("~") or "://" in path:
        raise ValueError("is not a path as DVC reads it: write it from / on, or from the folder of params.yaml on")
    return _kept(path)


class ClassNames(Section):
    """Names of the classes, in a text file of the user's: one a line, in the classes' order, or ImageNet's
    map_clsloc.txt.
    """

    path: Annotated[str, Field(min_length=1), AfterValidator(_kept)]
    sha256: Sha256  # by which DVC sees that the file has changed


class Preprocess(Section):
    """How a data set's images become Parquet shards and splits."""

    validation_fraction: Annotated[
        float, Field(gt=0, lt=1)
    ]  # of the training images, chosen by a hash of seed and pixels
    seed: Seed
    images_per_shard: Count
    class_names: ClassNames | None  # null: the publisher's


class Dataset(Section):
    """One prepared data set: the stages download@NAME, preprocess@NAME and baseline@NAME."""

    download: Download
    preprocess: Preprocess


class Exact(Section):
    """Images as they are, which have one size."""

    name: Literal["exact"]


class Resized(Section):
    """Images brought to one size: `resize` stretches them, `crop` first cuts the largest centred part of that shape."""

    name: Literal["resize", "crop"]
    height: Side
    width: Side
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]  # Pillow's


class Images(Section):
    """The user's own images as a data set: the stage import@NAME. Their number, classes and levels are read."""

    path: Annotated[str, Field(min_length=1), AfterValidator(_of_dvc)]  # a folder, .npz, .npy, .parquet, .tar or .zip
    title: Annotated[str, Field(min_length=1, max_length=200)]
    licence: Annotated[str, Field(max_length=2000)]
    citation: Annotated[str, Field(max_length=2000)]
    size: Annotated[Exact | Resized, Field(discriminator="name")]
    colour: Literal["read", "rgb", "grey"]  # read: grey if every image is
    accept: list[Literal["alpha", "16-bit", "animation", "cmyk", "unreadable"]]  # what would be refused otherwise
    labels: Literal["read", "none"]
    class_names: ClassNames | None  # null: those of folders and files
    test_fraction: Annotated[float, Field(gt=0, lt=1)]  # by a hash of seed and pixels, where there is no test split
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]  # of the others, where there is no validation split
    seed: Seed
    images_per_shard: Count


ResNet = Literal["resnet18", "resnet34", "resnet50"]  # torchvision's


class Classifier(Section):
    """Embeddings from the top layer of a convolutional network trained on the data set's labels."""

    source: Literal["classifier"]
    dataset: Name  # whose images are embedded
    network: ResNet
    dims: Dims  # the features that the classes are read from
    seed: Seed
    steps: Count
    batch_size: Annotated[int, Field(ge=2, le=2**16)]  # batch normalisation needs two images
    learning_rate: Positive


class EmbeddingsFile(Section):
    """Embeddings that the user brings: a Parquet file with the columns split, image (its row there) and embedding."""

    source: Literal["file"]
    dataset: Name
    path: Annotated[str, Field(min_length=1), AfterValidator(_kept)]
    sha256: Sha256  # by which DVC sees that the file has changed


Embeddings = Annotated[Classifier | EmbeddingsFile, Field(discriminator="source")]
