"""Decode an image file to exactly the pixels that it shows, or refuse it. No torch here.

What loses nothing is converted: a palette, 1 bit, transparency that hides nothing, a picture to be turned (EXIF), grey
where RGB is wanted. What would lose something (`LOSSES`) is refused unless the caller accepts it.

Libraries are lenient: Pillow paints missing rows of a PNG black, rounds 16 bits to 8, and drops transparency, frames
and damage behind the pixels. So what a file declares is compared with what is wanted before anything is decoded, and
what is decoded with what it declares. A PNG is checked whole: checksums, structure, and number of bytes. Other formats
have no checksums, so that damage inside one may go unnoticed; one that ends early is refused.

Shapes: C channels, H rows, W columns.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pixelcnn.files import excerpt

FORMATS = {
    "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "PPM": ".ppm",
}  # fmt: skip
SUFFIXES = (*FORMATS.values(), ".jpeg", ".tiff", ".pgm", ".pbm")
# What a file may have that 8-bit grey or RGB cannot hold, and what becomes of it where that is accepted
LOSSES = {
    "alpha": "lays it on white",
    "16-bit": "reduces it to 8 bits",
    "animation": "takes the first frame",
    "cmyk": "converts it to RGB, without a colour profile",
    "colour": "converts it to grey (ITU-R 601 luma)",
}
# Pillow's names of stored pixels of 8 bits or fewer that its modes hold as they are
EXACT = {
    "1", "1;I", "1;R", "1;IR", "L", "L;2", "L;4", "L;I", "L;2I", "L;4I", "P", "P;1", "P;2", "P;4", "RGB", "BGR", "R",
    "G", "B", "LA", "PA", "RGBA", "CMYK", "CMYK;I",
}  # fmt: skip
READ = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK")  # Pillow's modes; those of 16 bits besides
MAX_PIXELS = 2**26  # of an image: 8,192 x 8,192
MAX_BYTES = 2**28  # of an image file
PNG = b"\x89PNG\r\n\x1a\n"
# First column, step to the next, first row, step to the next, of the passes of an interlaced PNG
ADAM7 = (0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by the colour type of a PNG
FRAMES = (b"acTL", b"fdAT")  # chunks of a PNG
FILLER = bytes(range(0x11, 0x91))  # which a decoder takes for pixels if it wants more of them
ORIENTATION = 0x0112  # EXIF's tag, whose values are these
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    """The pixels (H, W, C) of an image, and what was converted to get them, such as "palette to RGB"."""

    pixels: Pixels
    changes: tuple[str, ...]


class Refused(ValueError):
    """An image that grey or RGB of 8 bits cannot hold; `loss` is the one of LOSSES that would accept it."""

    def __init__(self, where: str, fault: str, loss: str):
        super().__init__(f"{where}: {fault}; convert the file first")
        self.where, self.fault, self.loss = where, fault, loss


def decode(
    content: bytes,
    where: str,
    channels: int,
    size: tuple[int, int] | None = None,
    formats: tuple[str, ...] = tuple(FORMATS),
) -> Pixels:
    """The pixels (H, W, C) of `decode_picture`, where what was converted is of no interest."""
    return decode_picture(content, where, channels, size, formats).pixels


def decode_picture(
    content: bytes,
    where: str,
    channels: int | None,
    size: tuple[int, int] | None = None,
    formats: tuple[str, ...] = tuple(FORMATS),
    accept: Collection[str] = (),
) -> Picture:
    """The pixels of an image file's content, converted where that loses nothing or is one of LOSSES in `accept`.

    channels: 1 or 3, None for what the file has. size: H and W, None for any. Raises ValueError, which begins with
    `where`, for a file that is not an image of one of `formats` or not a whole one, and for another size; Refused for
    what would lose something.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, whose size is checked, and of broken metadata
        return _decode(content, where, channels, size, formats, accept)


@contextmanager
def refusing(where: str | Path, what: str) -> Iterator[None]:
    """Turn any exception that the libraries raise on damaged input into a ValueError that begins with `where`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = "nothing known" if isinstance(error, UnidentifiedImageError) else excerpt(str(error))
        raise ValueError(f"{where}: {what}: {reason or type(error).__name__}") from error


def with_channels(
    where: str, pixels: Pixels, channels: int | None, accept: Collection[str], changes: list[str]
) -> Pixels:
    """Pixels (H, W, 1 or 3) with so many channels; what is done is appended to `changes`."""
    if channels in (None, pixels.shape[2]):
        return pixels
    if channels == 3:
        changes.append("grey to RGB")
        return pixels.repeat(3, axis=2)
    if (pixels == pixels[:, :, :1]).all():
        changes.append("RGB without colour to grey")
        return np.ascontiguousarray(pixels[:, :, :1])
    _lose(where, "colour", "is in colour, but grey is required", accept, changes)
    return np.array(Image.fromarray(pixels).convert("L"))[:, :, None]


def _decode(
    content: bytes,
    where: str,
    channels: int | None,
    size: tuple[int, int] | None,
    formats: tuple[str, ...],
    accept: Collection[str],
) -> Picture:
    with refusing(where, f"is not an image of {', '.join(formats)} that can be read"):
        image = Image.open(io.BytesIO(content), formats=formats)  # the header alone: no pixel is decoded yet
    with image:
        changes = _check_header(where, image, size, accept)
        if image.format == "PNG":
            _check_png(where, content, accept)
        with refusing(where, "is damaged"):
            image.load()
            if image.format in ("JPEG", "MPO") and not _is_whole_jpeg(image, content):
                raise ValueError("it ends before its last pixel")
            turn = _turn(image)
            upright = image if turn is None else image.transpose(turn)
            upright.info = dict(image.info)
        changes += [] if turn is None else ["turned as its EXIF orientation says"]
    if size is not None and upright.size != size[::-1]:
        raise ValueError(f"{where}: is {upright.width} x {upright.height} pixels, not {size[1]} x {size[0]}")
    pixels = _eight_bits(where, upright, accept, changes)
    return Picture(with_channels(where, pixels, channels, accept, changes), tuple(changes))


def _lose(where: str, loss: str, fault: str, accept: Collection[str], changes: list[str]) -> None:
    """Note a loss that is accepted. Raises Refused for another."""
    if loss not in accept:
        raise Refused(where, fault, loss)
    changes.append(f"{loss} accepted")


def _check_header(where: str, image: Image.Image, size: tuple[int, int] | None, accept: Collection[str]) -> list[str]:
    """What has to be changed of an image, by its header. Raises ValueError for what is refused."""
    changes: list[str] = []
    if size is not None and image.size not in (size, size[::-1]):  # which of them, EXIF says
        raise ValueError(f"{where}: is {image.width} x {image.height} pixels, not {size[1]} x {size[0]}")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{where}: is {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read")
    if image.format == "MPO":
        changes.append("first picture of an MPO")  # a camera's JPEG: previews and views of other lenses follow
    elif _num_frames(where, image) > 1:
        _lose(where, "animation", "has several frames or pages", accept, changes)
    if _is_16_bit(image):
        if "transparency" in image.info:  # a colour of 16 bits, which Pillow would look for among those of 8
            raise ValueError(f"{where}: has 16 bits a channel and a transparent colour; convert the file first")
        _lose(where, "16-bit", "has 16 bits a channel", accept, changes)
    elif image.mode not in READ or not set(_stored(image)) <= EXACT:
        stored = f" stored as {', '.join(sorted(set(_stored(image))))}" if image.mode in READ else ""
        raise ValueError(
            f"{where}: its pixels are {image.mode}{stored}, not grey, RGB or a palette of 8 bits; convert the file "
            "first"
        )
    if image.mode == "CMYK":
        _lose(where, "cmyk", "is in CMYK", accept, changes)
    return changes


def _num_frames(where: str, image: Image.Image) -> int:
    with refusing(where, "is damaged"):
        return getattr(image, "n_frames", 1)


def _stored(image: Image.Image) -> list[str]:
    """Pillow's names of how the pixels are stored; none for formats that have one way."""
    arguments = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())]
    return [each[0] for each in arguments if each and isinstance(each[0], str)]


def _is_16_bit(image: Image.Image) -> bool:
    if image.format == "PPM":
        return any(isinstance(tile[3], tuple) and tile[3][-1] > 255 for tile in image.tile) or image.mode == "I"  # type: ignore[attr-defined]
    return image.mode.startswith("I;16") or any("16" in each for each in _stored(image))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the picture has to be turned; not at all where its EXIF data cannot be read."""
    with suppress(Exception):
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    return None


def _eight_bits(where: str, image: Image.Image, accept: Collection[str], changes: list[str]) -> Pixels:
    """The pixels (H, W, 1 or 3) of a decoded image."""
    mode = image.mode
    if mode.startswith("I"):
        return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[:, :, None]
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[:, :, 3].min() == 255:
            changes.append("opaque alpha dropped")
            image = image.convert("L") if mode == "LA" else rgba.convert("RGB") if mode != "L" else image
        else:
            _lose(where, "alpha", "has transparency", accept, changes)
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        if mode in ("1", "L"):
            return np.array(image.convert("L"))[:, :, None]
    if mode in ("P", "PA"):
        pixels = np.array(image.convert("RGB"))
        grey = bool((pixels == pixels[:, :, :1]).all())
        changes.append("palette to grey" if grey else "palette to RGB")
        return np.ascontiguousarray(pixels[:, :, :1]) if grey else pixels
    if mode == "1":
        changes.append("black and white to grey")
    pixels = np.array(image.convert("L" if mode in ("1", "L") or image.mode == "L" else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _check_png(where: str, content: bytes, accept: Collection[str]) -> None:
    """Raise ValueError unless the chunks of a PNG are whole and in order, and hold exactly the pixels it declares."""
    names: list[bytes] = []
    position, data = len(PNG), bytearray()
    while names[-1:] != [b"IEND"]:
        if (
            len(content) < position + 12
            or len(content) < position + 12 + struct.unpack_from(">I", content, position)[0]
        ):
            raise ValueError(f"{where}: is damaged or cut off")
        length, name = struct.unpack_from(">I4s", content, position)
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        body = content[position + 8 : position + 8 + length]
        if zlib.crc32(name + body) != checksum:
            raise ValueError(f"{where}: is damaged: the checksum of its chunk {name!r} is wrong")
        if name in FRAMES:
            _lose(where, "animation", "has several frames or pages", accept, [])
        if name == b"IDAT":
            if names[-1] != name and name in names:
                raise ValueError(f"{where}: is damaged: its pixels are interrupted")
            data += body
        elif name[0:1].isupper() and name not in (b"IHDR", b"PLTE", b"IEND"):
            raise ValueError(f"{where}: has the chunk {name!r}, which is not known")
        names.append(name)
        position += 12 + length
    if names[0] != b"IHDR" or names.count(b"IHDR") > 1:
        raise ValueError(f"{where}: is damaged: a second header, or none at its beginning")
    expected = _bytes_of_pixels(content)
    inflate = zlib.decompressobj()
    with refusing(where, "is damaged"):
        found = len(inflate.decompress(data, expected + 1))
    if found != expected or not inflate.eof:
        raise ValueError(f"{where}: is damaged: the {expected:,} bytes of its pixels are not all there, or not alone")


def _bytes_of_pixels(png: bytes) -> int:
    """The bytes of a PNG's pixels once they are inflated: of each row one for the filter, and its pixels."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, len(PNG) + 8)
    bits = depth * SAMPLES[colour]
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, across, y, down in ADAM7]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def _is_whole_jpeg(image: Image.Image, content: bytes) -> bool:
    """Whether a JPEG decodes to the same pixels with other bytes behind them: libjpeg fills up what is missing."""
    if image.format == "MPO":
        content = content[: image.mpinfo[0xB002][0]["Size"]]  # type: ignore[attr-defined]  # of the first picture
    end = content.rfind(b"\xff\xd9")
    end = end if end >= 0 else len(content)
    filled = io.BytesIO(content[:end] + FILLER + content[end:])
    with Image.open(filled, formats=["JPEG"]) as other:
        return np.array_equal(np.asarray(image), np.asarray(other))
