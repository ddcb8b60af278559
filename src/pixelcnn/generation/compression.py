"""Lossless compression with a model: a range coder driven by the model's own distribution of every sub-pixel.

`compress` visits the sub-pixels in the order of sampling, with known values, and encodes each under the distribution
that the model states for it; `decompress` visits them in the same order and decodes. So the size of an archive is the
images' NLL, and an archive that decodes shows that no distribution depended on its own sub-pixel or on later ones.

Guarantee: `decompress` returns the pixels that were compressed or raises ValueError, never other pixels; the archive
and the pixels have checksums. On the machine that wrote it an archive always decodes, because encoder and decoder run
the same stepper in float64 on the same batches. Elsewhere (another processor, a GPU, another torch) floating-point sums
differ in their last digits. Log-probabilities are rounded to multiples of 1/16, and all arithmetic from there on is
exact on integers, so that a difference matters only next to a rounding boundary, and an archive almost always decodes.

Format: `PXC2`, the SHA-256 of all that follows, the header's length (uint32), the header (the class Header as
compressed JSON) and the range coder's words (uint32), little-endian. Images are cut into tiles of the model's size, the
last ones padded by repeating the edge; the sizes in the header tell how much to crop. `PXC1` is the same but for the
checksum of the pixels, which did not cover names and sizes.

An archive is a foreign file: what its header says is bounded before anything is done, and `compress` refuses what
`decompress` would.

Shapes: T tiles, B batch, C channels, H rows, W columns of the model's images, h, w those of an image, L levels.
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, Literal

import constriction  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from pixelcnn.checkpoint import identity
from pixelcnn.config import Count, Given
from pixelcnn.data.decoding import MAX_PIXELS
from pixelcnn.data.images import check_images
from pixelcnn.files import check_name, excerpt
from pixelcnn.generation.sampling import OnRow, begin, blank, in_float64, walk
from pixelcnn.model import Model

MAGIC, FORMAT, FORMATS = b"PXC", b"2", (b"1", b"2")
MAX_BYTES = 2**32  # of an archive
MAX_HEADER = 2**24  # bytes of JSON: some 500,000 images
MAX_SIDE = 2**16  # pixels, of MAX_PIXELS at most
MAX_BATCH = 10_000  # tiles coded together, which the machine that decodes must hold in memory
STEPS = 16  # per nat: log-probabilities are rounded to multiples of 1 / STEPS, which makes archives 0.006% larger
TOTAL = 2**24  # the range coder's probabilities are multiples of 1 / TOTAL, and none is zero
# exp of the rounded log-probabilities, in units of 2**-32, up to the first zero. No entry is near a rounding boundary,
# so that every libm gives the same table
WEIGHTS = np.array([round(2**32 * math.exp(-k / STEPS)) for k in range(math.ceil(33 * math.log(2) * STEPS) + 1)])
CODED = constriction.stream.model.Categorical(perfect=False)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, Field(max_length=60), AfterValidator(lambda text: check_name(text, "version"))]
Name = Annotated[str, AfterValidator(lambda text: check_name(text, "names"))]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class Header(BaseModel):
    """The header of an archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Sha256  # of the weights' file
    label: int | None  # of all images, for a class-conditional model
    batch_size: Count  # tiles coded together
    dtype: Literal["float64"]
    device: Literal["cpu", "cuda"]  # of the model when it compressed
    torch: Word
    pixelcnn: Word
    names: Annotated[tuple[Name, ...], Field(min_length=1)]
    sizes: tuple[tuple[Side, Side], ...]  # h, w of each image
    crc32: tuple[int, ...]  # of the pixels of each batch, so that a wrong decoding stops at its first wrong batch
    sha256: Sha256  # of names, sizes and the pixels of all tiles (`checksum`)

    @model_validator(mode="after")
    def describes_files(self) -> "Header":
        """Each image has a name of its own and a size, and no image is larger than one that may be compressed."""
        if len(self.names) != len(self.sizes) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"names: {len(self.names):,} names ({len(set(self.names)):,} different ones) of "
                f"{len(self.sizes):,} images"
            )
        largest = max(height * width for height, width in self.sizes)
        if largest > MAX_PIXELS:
            raise ValueError(f"sizes: an image of {largest:,} pixels, at most {MAX_PIXELS:,} are coded")
        return self

    @property
    def made_by(self) -> str:
        """The versions and the device that wrote the archive."""
        return f"pixelcnn {self.pixelcnn}, torch {self.torch} on {self.device}"


def compress(
    model: Model,
    images: Mapping[str, Tensor],
    batch_size: int,
    label: int | None = None,
    on_row: OnRow = lambda _: None,
) -> bytes:
    """An archive of images (C, h, w) uint8 of any size, by name. Calls on_row after each row of each batch of tiles.

    batch_size: tiles coded together. label: of all images, for a class-conditional model. Raises ValueError for images
    with other channels or levels than the model's, and for models that need more than a label.
    """
    if not images:
        raise ValueError("images: none were given")
    names, sizes = tuple(images), tuple((image.shape[-2], image.shape[-1]) for image in images.values())
    tiles = torch.cat([cut(image, model, name) for name, image in images.items()])
    parts = tiles.to(model.device).split(batch_size)
    header = _read(
        lambda: Header(
            model=identity(model),
            label=label,
            batch_size=batch_size,
            names=names,
            sizes=sizes,
            crc32=tuple(zlib.crc32(_bytes(part)) for part in parts),
            sha256=checksum(FORMAT, names, sizes, tiles),
            **_environment(model),
        )
    )
    _check_batches(model, header)
    pack(header, b"")  # refuses what cannot be read before the images are coded
    encoder, exact = constriction.stream.queue.RangeEncoder(), in_float64(model)
    for part in parts:
        _encode(exact, encoder, part, label, on_row)
    return pack(header, encoder.get_compressed().astype("<u4").tobytes())


def decompress(model: Model, archive: bytes, on_row: OnRow = lambda _: None) -> dict[str, Tensor]:
    """The images (C, h, w) uint8 of an archive, by name, to the bit.

    Raises ValueError when the archive is damaged, was made with another model, or does not decode to the pixels that
    were compressed.
    """
    header, payload = unpack(archive)
    if header.model != identity(model):
        raise ValueError(f"archive: was made with the model {header.model}, this one is {identity(model)}")
    num_tiles = _check_batches(model, header)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    exact, parts = in_float64(model), []
    for start, crc32 in zip(range(0, num_tiles, header.batch_size), header.crc32, strict=True):
        part = _decode(exact, decoder, min(header.batch_size, num_tiles - start), header, on_row)
        if zlib.crc32(_bytes(part)) != crc32:
            raise _other_pixels(model, header)
        parts.append(part.cpu())
    tiles = torch.cat(parts)
    if checksum(archive[3:4], header.names, header.sizes, tiles) != header.sha256:
        raise _other_pixels(model, header)
    each = tiles.split([tiles_of(model, *size) for size in header.sizes])
    return {name: join(part, *size) for name, size, part in zip(header.names, header.sizes, each, strict=True)}


# Encoding and decoding: the two `choose` functions of `walk`


@torch.inference_mode()
def _encode(model: Model, encoder: Any, tiles: Tensor, label: int | None, on_row: OnRow) -> None:
    symbols = tiles.cpu().numpy().astype(np.int32)

    def choose(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        log_pmf = model.likelihood.log_pmf_of(c, outputs, tiles[:, :c, i, j])
        encoder.encode(np.ascontiguousarray(symbols[:, c, i, j]), CODED, shares(log_pmf))
        return tiles[:, c, i, j]

    for i in walk(begin(model, len(tiles), _labels(model, len(tiles), label)), choose):
        on_row(i)


@torch.inference_mode()
def _decode(model: Model, decoder: Any, num: int, header: Header, on_row: OnRow) -> Tensor:
    tiles = blank(model, num)

    def choose(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        log_pmf = model.likelihood.log_pmf_of(c, outputs, tiles[:, :c, i, j])
        symbols = decoder.decode(CODED, shares(log_pmf))
        tiles[:, c, i, j] = torch.from_numpy(symbols).to(tiles)
        return tiles[:, c, i, j]

    try:
        for i in walk(begin(model, num, _labels(model, num, header.label)), choose):
            on_row(i)
    except AssertionError as error:  # constriction raises it for words that no symbols encode to
        if "compressed data" not in str(error):
            raise
        raise _other_pixels(model, header) from None
    return tiles


def shares(log_pmf: Tensor) -> npt.NDArray[np.float32]:
    """The range coder's weights (B, L) of log p (B, L): each level's share of TOTAL, less the 1 that the coder adds.

    Integers below 2**24 that sum to TOTAL - L: exact in float32, and the coder scales them by exactly 1.
    """
    steps = (log_pmf * -STEPS).round().clamp(0, len(WEIGHTS) - 1)
    if torch.isnan(steps).any():
        raise ValueError("the model states no probabilities (NaN): its weights are not those of a finished training")
    weights = WEIGHTS[steps.long().cpu().numpy()]  # (B, L) integers
    free = TOTAL - weights.shape[1]
    units = weights * free // weights.sum(1, keepdims=True)
    units[:, 0] += free - units.sum(1)  # the remainder of rounding down
    return units.astype(np.float32)


def _labels(model: Model, num: int, label: int | None) -> Tensor | None:
    if model.given not in (Given.NONE, Given.LABEL):
        raise ValueError(f"archive: this model needs the {model.given} of each image, which an archive does not hold")
    if label is not None and not 0 <= label < len(model.data.classes):
        raise ValueError(f"archive: its label is {label}, this model's are 0 ... {len(model.data.classes) - 1}")
    return None if label is None else torch.full((num,), label, device=model.device)


def _check_batches(model: Model, header: Header) -> int:
    """The number of tiles. Raises ValueError unless the header describes batches of them that a machine can hold."""
    num_tiles = sum(tiles_of(model, *size) for size in header.sizes)
    if min(header.batch_size, num_tiles) > MAX_BATCH:
        raise ValueError(f"archive: batch_size: {header.batch_size:,} tiles, at most {MAX_BATCH:,} are coded together")
    if len(header.crc32) != -(-num_tiles // header.batch_size):
        raise ValueError(
            f"archive: {num_tiles:,} tiles in batches of {header.batch_size:,}, but {len(header.crc32):,} checksums"
        )
    return num_tiles


# Tiles


def tiles_of(model: Model, height: int, width: int) -> int:
    """The number of tiles of an image of this size."""
    _, rows, columns = model.shape
    return -(-height // rows) * -(-width // columns)


def num_rows(model: Model, sizes: Iterable[tuple[int, int]], batch_size: int) -> int:
    """The number of calls of on_row for images of these sizes (h, w)."""
    return -(-sum(tiles_of(model, *size) for size in sizes) // batch_size) * model.shape[1]


def cut(image: Tensor, model: Model, name: str) -> Tensor:
    """An image (C, h, w) as tiles (T, C, H, W), row by row; tiles that it does not fill are padded by its edge."""
    channels, rows, columns = model.shape
    (image,) = check_images(image, channels, model.data.levels, name=name)
    down, across = -(-image.shape[1] // rows), -(-image.shape[2] // columns)
    i = torch.arange(down * rows, device=image.device).clamp(max=image.shape[1] - 1)
    j = torch.arange(across * columns, device=image.device).clamp(max=image.shape[2] - 1)
    tiles = image[:, i][:, :, j].view(channels, down, rows, across, columns)  # (C, down, H, across, W)
    return tiles.permute(1, 3, 0, 2, 4).reshape(-1, *model.shape)  # (T, C, H, W)


def join(tiles: Tensor, height: int, width: int) -> Tensor:
    """The image (C, h, w) of its tiles (T, C, H, W): the inverse of `cut`."""
    _, channels, rows, columns = tiles.shape
    down, across = -(-height // rows), -(-width // columns)
    grid = tiles.view(down, across, channels, rows, columns).permute(2, 0, 3, 1, 4)  # (C, down, H, across, W)
    return grid.reshape(channels, down * rows, across * columns)[:, :height, :width].contiguous()


# The file format


def pack(header: Header, payload: bytes) -> bytes:
    """The archive of a header and a payload, which is the range coder's words. ValueError for too many images."""
    content = header.model_dump_json().encode()
    if len(content) > MAX_HEADER:
        raise ValueError(f"images: {len(header.names):,} are too many for one archive; make several")
    text = zlib.compress(content, 9)
    body = struct.pack("<I", len(text)) + text + payload
    return MAGIC + FORMAT + hashlib.sha256(body).digest() + body


def unpack(archive: bytes) -> tuple[Header, bytes]:
    """An archive's header and payload. ValueError for another file, another format, and a damaged archive."""
    if archive[:3] != MAGIC:
        raise ValueError(f"archive: is not an archive of pixelcnn: it begins with {archive[:3]!r}, not with {MAGIC!r}")
    if archive[3:4] not in FORMATS:
        known = ", ".join(map(repr, FORMATS))
        raise ValueError(f"archive: has the format {archive[3:4]!r}, this pixelcnn reads {known}")
    digest, body = archive[4:36], archive[36:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("archive: is damaged or truncated: its checksum does not match")
    length = int.from_bytes(body[:4], "little")
    text, payload = body[4 : 4 + length], body[4 + length :]
    if len(text) != length or len(payload) % 4:
        raise ValueError("archive: its header cannot be read: it is of another length than is stated")
    return _read(lambda: Header.model_validate_json(_inflated(text))), payload


def _inflated(text: bytes) -> bytes:
    """The JSON of a header, of MAX_HEADER bytes at most."""
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(text, MAX_HEADER)
    except zlib.error as error:
        raise ValueError(f"archive: its header cannot be read: {error}") from None
    if not inflate.eof:
        raise ValueError(f"archive: its header cannot be read: it is longer than {MAX_HEADER:,} bytes, or cut off")
    return content


def _read(make: Callable[[], Header]) -> Header:
    """A header; ValueError with the first fault in one line."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what, key = first["msg"].removeprefix("Value error, "), ".".join(map(str, first["loc"]))
        fault = what if first["type"] == "value_error" else f"{key}: {what}"
        raise ValueError(f"archive: its header cannot be read: {excerpt(fault)}") from None


def checksum(number: bytes, names: tuple[str, ...], sizes: tuple[tuple[int, int], ...], tiles: Tensor) -> str:
    """The SHA-256 that the header of an archive of this format has of its images: of their tiles (T, C, H, W), and
    before them, since format 2, of the names and sizes, as JSON whose length comes first.
    """
    digest = hashlib.sha256()
    if number != b"1":
        described = json.dumps([names, sizes]).encode()
        digest.update(struct.pack("<Q", len(described)) + described)
    digest.update(_bytes(tiles))
    return digest.hexdigest()


def _environment(model: Model) -> dict[str, Any]:
    facts = {"device": model.device.type, "torch": torch.__version__, "pixelcnn": version("pixelcnn")}
    return {"dtype": "float64", **facts}


def _other_pixels(model: Model, header: Header) -> ValueError:
    here = "pixelcnn {pixelcnn}, torch {torch} on {device}".format(**_environment(model))
    return ValueError(
        "archive: decodes to other pixels than were compressed, so nothing is returned. "
        f"Made by {header.made_by}; here is {here}. Decode it on the machine that made it"
    )


def _bytes(tiles: Tensor) -> bytes:
    return tiles.cpu().contiguous().numpy().tobytes()
