"""Lossless compression with a model: a range coder driven by the model's own distribution of every sub-pixel.

`compress` walks through images as a sampler does, but with known values, and hands the range coder what the model says
of each; `decompress` takes the same walk and lets the coder choose. So the size of an archive is the images' NLL, and
an archive that decodes shows that no distribution used what follows its sub-pixel.

What is promised: `decompress` returns the pixels that were compressed or raises ValueError, never other pixels. The
archive and the pixels have checksums. Where an archive was made it always decodes, because both sides run the same
stepper in float64 on the same batches. Elsewhere (another processor, a GPU, another torch) floating-point sums differ
in their last digits. Log-probabilities are rounded to multiples of 1/16 and from there on all arithmetic is of
integers, so such a difference matters only at the very edge of rounding, and an archive almost always decodes.

An archive is `PXC1`, the SHA-256 of all that follows, the header's length (uint32), the header (the class Header as
compressed JSON) and the range coder's words (uint32), little-endian. Images are cut into tiles of the model's size, the
last ones filled up by repeating the edge; the sizes in the header say what to cut off again.

Shapes: T tiles, B batch, C channels, H rows, W columns of the model's images, h, w those of an image, L levels.
"""

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any, Literal

import constriction  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save as save_safetensors
from torch import Tensor

from pixelcnn.generation.sampling import begin, blank, in_float64, walk
from pixelcnn.model import Model

MAGIC, FORMAT = b"PXC", b"1"
STEPS = 16  # per nat: log-probabilities are rounded to multiples of 1 / STEPS, which costs 0.006% of the size
TOTAL = 2**24  # the range coder's probabilities are multiples of 1 / TOTAL, and none is zero
# exp of the rounded log-probabilities, in units of 2**-32, until it is zero; no entry is near a rounding edge
WEIGHTS = np.array([round(2**32 * math.exp(-k / STEPS)) for k in range(math.ceil(33 * math.log(2) * STEPS) + 1)])
CODED = constriction.stream.model.Categorical(perfect=False)

OnRow = Callable[[int], object]


class Header(BaseModel):
    """What an archive says before its payload."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str  # the sha256 of the weights' file
    label: int | None  # of all images, for a class-conditional model
    batch_size: int
    dtype: Literal["float64"]
    device: str  # of the model when it compressed: cpu or cuda
    torch: str
    pixelcnn: str
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # h, w of each image
    crc32: tuple[int, ...]  # of the pixels of each batch, so that decoding ends early where it goes wrong
    sha256: str  # of the pixels of all tiles

    @property
    def made_by(self) -> str:
        """The program and the hardware that wrote the archive."""
        return f"pixelcnn {self.pixelcnn}, torch {self.torch} on {self.device}"


def compress(
    model: Model,
    images: Mapping[str, Tensor],
    batch_size: int,
    label: int | None = None,
    on_row: OnRow = lambda _: None,
) -> bytes:
    """An archive of images (C, h, w) uint8 of any size, by name. Calls on_row after each row of each batch of tiles.

    label: of all the images, for a class-conditional model. Raises ValueError for images that are not the model's kind,
    and for models that need more than a label.
    """
    if not images:
        raise ValueError("images: none were given")
    tiles = torch.cat([cut(image, model, name) for name, image in images.items()])
    parts = tiles.to(model.device).split(batch_size)
    encoder, exact = constriction.stream.queue.RangeEncoder(), in_float64(model)
    for part in parts:
        _encode(exact, encoder, part, label, on_row)
    header = Header(
        model=weights_sha256(model),
        label=label,
        batch_size=batch_size,
        names=tuple(images),
        sizes=tuple((image.shape[1], image.shape[2]) for image in images.values()),
        crc32=tuple(zlib.crc32(_bytes(part)) for part in parts),
        sha256=hashlib.sha256(_bytes(tiles)).hexdigest(),
        **_environment(model),
    )
    return pack(header, encoder.get_compressed().astype("<u4").tobytes())


def decompress(model: Model, archive: bytes, on_row: OnRow = lambda _: None) -> dict[str, Tensor]:
    """The images (C, h, w) uint8 of an archive, by name, to the bit.

    Raises ValueError when the archive is damaged, was made with another model, or does not decode to the pixels that
    were compressed.
    """
    header, payload = unpack(archive)
    if header.model != weights_sha256(model):
        raise ValueError(f"archive: was made with the model {header.model}, this one is {weights_sha256(model)}")
    num_tiles = sum(tiles_of(model, *size) for size in header.sizes)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    exact, parts = in_float64(model), []
    for start, crc32 in zip(range(0, num_tiles, header.batch_size), header.crc32, strict=True):
        part = _decode(exact, decoder, min(header.batch_size, num_tiles - start), header, on_row)
        if zlib.crc32(_bytes(part)) != crc32:
            raise _other_pixels(model, header)
        parts.append(part.cpu())
    tiles = torch.cat(parts)
    if hashlib.sha256(_bytes(tiles)).hexdigest() != header.sha256:
        raise _other_pixels(model, header)
    each = tiles.split([tiles_of(model, *size) for size in header.sizes])
    return {name: join(part, *size) for name, size, part in zip(header.names, header.sizes, each, strict=True)}


# The two walks


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
    except AssertionError as error:  # the range coder's word for a stream that no symbols give
        if "compressed data" not in str(error):
            raise
        raise _other_pixels(model, header) from None
    return tiles


def shares(log_pmf: Tensor) -> npt.NDArray[np.float32]:
    """What the range coder is given for log p (B, L): the units, of TOTAL, of each level, less the one it has anyway.

    Whole numbers below 2**24 that sum to TOTAL - L: as float32 they are exact, and the coder scales them by exactly 1.
    """
    steps = (log_pmf * -STEPS).round().clamp(0, len(WEIGHTS) - 1)
    if torch.isnan(steps).any():
        raise ValueError("the model states no probabilities (NaN): its weights are not those of a finished training")
    weights = WEIGHTS[steps.long().cpu().numpy()]
    free = TOTAL - weights.shape[1]
    units = weights * free // weights.sum(1, keepdims=True)
    units[:, 0] += free - units.sum(1)
    return units.astype(np.float32)


def _labels(model: Model, num: int, label: int | None) -> Tensor | None:
    if model.given not in ("none", "label"):
        raise ValueError(f"archive: this model needs the {model.given} of each image, which an archive does not hold")
    return None if label is None else torch.full((num,), label, device=model.device)


# Tiles


def tiles_of(model: Model, height: int, width: int) -> int:
    """How many tiles an image of this size has."""
    _, rows, columns = model.shape
    return -(-height // rows) * -(-width // columns)


def num_rows(model: Model, sizes: Iterable[tuple[int, int]], batch_size: int) -> int:
    """How often on_row is called for images of these sizes (h, w)."""
    return -(-sum(tiles_of(model, *size) for size in sizes) // batch_size) * model.shape[1]


def cut(image: Tensor, model: Model, name: str) -> Tensor:
    """An image (C, h, w) as tiles (T, C, H, W), row by row; where it ends within a tile, its edge is repeated."""
    channels, rows, columns = model.shape
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != channels or not image.numel():
        raise ValueError(f"{name}: {image.dtype} {tuple(image.shape)} is not uint8 ({channels}, height, width)")
    if int(image.max()) >= model.data.levels:
        raise ValueError(f"{name}: values are 0 ... {model.data.levels - 1}, but {int(image.max())} is among them")
    down, across = -(-image.shape[1] // rows), -(-image.shape[2] // columns)
    i = torch.arange(down * rows, device=image.device).clamp(max=image.shape[1] - 1)
    j = torch.arange(across * columns, device=image.device).clamp(max=image.shape[2] - 1)
    tiles = image[:, i][:, :, j].view(channels, down, rows, across, columns)
    return tiles.permute(1, 3, 0, 2, 4).reshape(-1, *model.shape)


def join(tiles: Tensor, height: int, width: int) -> Tensor:
    """The image (C, h, w) that was cut into tiles (T, C, H, W)."""
    _, channels, rows, columns = tiles.shape
    down, across = -(-height // rows), -(-width // columns)
    grid = tiles.view(down, across, channels, rows, columns).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, down * rows, across * columns)[:, :height, :width].contiguous()


# The file


def pack(header: Header, payload: bytes) -> bytes:
    """An archive of a header and the range coder's words."""
    text = zlib.compress(header.model_dump_json().encode(), 9)
    body = struct.pack("<I", len(text)) + text + payload
    return MAGIC + FORMAT + hashlib.sha256(body).digest() + body


def unpack(archive: bytes) -> tuple[Header, bytes]:
    """An archive's header and payload; ValueError if it is none, of another format, or not as it was written."""
    if archive[:3] != MAGIC:
        raise ValueError(f"archive: is not one of pixelcnn: it begins with {archive[:3]!r}, not with {MAGIC!r}")
    if archive[3:4] != FORMAT:
        raise ValueError(f"archive: has the format {archive[3:4]!r}, this pixelcnn reads {FORMAT!r}")
    digest, body = archive[4:36], archive[36:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("archive: is damaged or cut short: its checksum is another")
    (length,) = struct.unpack("<I", body[:4])
    try:
        return Header.model_validate_json(zlib.decompress(body[4 : 4 + length])), body[4 + length :]
    except (ValidationError, zlib.error) as error:
        raise ValueError(f"archive: its header cannot be read: {error}") from None


def weights_sha256(model: Model) -> str:
    """The model's identity: the sha256 that its weights' file has, as in config.json."""
    weights = {name: weight.contiguous() for name, weight in model.network.state_dict().items()}
    return hashlib.sha256(save_safetensors(weights)).hexdigest()


def _environment(model: Model) -> dict[str, Any]:
    facts = {"device": model.device.type, "torch": torch.__version__, "pixelcnn": version("pixelcnn")}
    return {"dtype": "float64", **facts}


def _other_pixels(model: Model, header: Header) -> ValueError:
    here = "pixelcnn {pixelcnn}, torch {torch} on {device}".format(**_environment(model))
    return ValueError(
        "archive: decodes to other pixels than were compressed, so nothing is returned. "
        f"Made by {header.made_by}; here is {here}. Decode it where it was made"
    )


def _bytes(tiles: Tensor) -> bytes:
    return tiles.cpu().contiguous().numpy().tobytes()
