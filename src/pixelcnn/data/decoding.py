"""Decode an image file to exactly the pixels that it holds, or refuse it. No torch here.

Libraries are lenient: Pillow paints missing rows of a PNG black, rounds 16 bits to 8, and drops transparency, frames
and damage behind the pixels. So what a file declares is compared with what is wanted before anything is decoded, and
what is decoded with what it declares. A PNG is checked whole: checksums, structure, and number of bytes. JPEG, WebP and
BMP have no checksums, so that damage inside one may go unnoticed; one that ends early is refused.

Shapes: C channels, H rows, W columns.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pixelcnn.files import excerpt

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}  # 8 bits a channel, except for some PNGs
MODES = {1: "L", 3: "RGB"}  # Pillow's name of 8 bits a channel, by the number of channels
EXACT = ("L", "L;2", "L;4", "RGB", "BGR")  # Pillow's names of stored pixels that MODES hold without a loss
MAX_PIXELS = 2**26  # of an image: 8,192 x 8,192
MAX_BYTES = 2**28  # of an image file
PNG = b"\x89PNG\r\n\x1a\n"
# First column, step to the next, first row, step to the next, of the passes of an interlaced PNG
ADAM7 = (0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)
SAMPLES = {0: 1, 2: 3}  # per pixel, by the colour type of a grey or RGB PNG
LOST = {b"tRNS": " with transparency", b"acTL": ", several frames", b"fdAT": ", several frames"}  # chunks of a PNG
FILLER = bytes(range(0x11, 0x91))  # which a decoder takes for pixels if it wants more of them

Pixels = npt.NDArray[np.uint8]


def decode(
    content: bytes,
    where: str,
    channels: int,
    size: tuple[int, int] | None = None,
    formats: tuple[str, ...] = tuple(FORMATS),
) -> Pixels:
    """The pixels (H, W, C) of an image file's content, without any conversion that could lose information.

    size: H and W, None for any. Raises ValueError, which begins with `where`, for a file that is not an image of one of
    `formats` or not a whole one, and for another size, other channels, 16 bits, a palette, transparency and frames.
    """
    with refusing(where, f"is not an image of {', '.join(formats)} that can be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content), formats=formats)  # the header alone: no pixel is decoded yet
    with image:
        _check_header(where, image, channels, size)
        if image.format == "PNG":
            _check_png(where, content, MODES[channels])
        with refusing(where, "is damaged"):
            pixels = np.array(image)
    if image.format == "JPEG" and not np.array_equal(pixels, _with_filler(where, content)):
        raise ValueError(f"{where}: is damaged: it ends before its last pixel")
    return pixels.reshape(*pixels.shape[:2], channels)


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


def _check_header(where: str, image: Image.Image, channels: int, size: tuple[int, int] | None) -> None:
    found = image.mode + (" with transparency" if "transparency" in image.info else "")
    stored = [tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in getattr(image, "tile", ())]
    if any("16" in each for each in stored):
        found += " of 16 bits"
    elif any(each not in EXACT for each in stored) and image.mode in MODES.values():
        found += f" stored as {', '.join(stored)}"
    if getattr(image, "n_frames", 1) > 1:
        found += ", several frames"
    _check_found(where, found, MODES[channels])
    if size is not None and image.size != size[::-1]:
        raise ValueError(f"{where}: is {image.width} x {image.height} pixels, not {size[1]} x {size[0]}")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{where}: is {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read")


def _check_found(where: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ValueError(f"{where}: its pixels are {found}, not {wanted} of 8 bits; convert the file first")


def _check_png(where: str, content: bytes, mode: str) -> None:
    """Raise ValueError unless the chunks of a PNG are whole and in order, and hold exactly the pixels it declares."""
    names: list[bytes] = []
    position, data = len(PNG), bytearray()
    while names[-1:] != [b"IEND"]:
        with refusing(where, "is damaged or cut off"):
            length, name = struct.unpack_from(">I4s", content, position)
            (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        body = content[position + 8 : position + 8 + length]
        if zlib.crc32(name + body) != checksum:
            raise ValueError(f"{where}: is damaged: the checksum of its chunk {name!r} is wrong")
        _check_found(where, mode + LOST.get(name, ""), mode)
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


def _with_filler(where: str, jpeg: bytes) -> Pixels:
    """The pixels of a JPEG with other bytes behind them: the same, unless libjpeg fills up what is missing."""
    end = jpeg.rfind(b"\xff\xd9")
    end = end if end >= 0 else len(jpeg)
    filled = io.BytesIO(jpeg[:end] + FILLER + jpeg[end:])
    with refusing(where, "is damaged"), Image.open(filled, formats=["JPEG"]) as image:
        return np.array(image)
