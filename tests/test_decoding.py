"""An image file gives exactly the pixels that it holds, or is refused before it costs much."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelcnn import files
from pixelcnn.data import image_files
from pixelcnn.data.archives import decode_png
from pixelcnn.data.decoding import FORMATS, decode
from tests.hostile import SIGNATURE, framed, header, memory_below, png

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
ROW = bytes(range(200, 212))
END = b"IEND", b""
HIDDEN = struct.pack(">HHH", *ROW[:3])  # the transparent colour of a PNG: that of its first pixel


def saved(kind: str, pixels: np.ndarray = NOISE, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("width", [1, 2, 5, 31, 32])
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_whole_files_are_read_exactly_whatever_the_width(kind: str, width: int) -> None:
    for pixels in (NOISE[:, :width], NOISE[:, :width, :1]):
        content = saved(kind, pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
        np.testing.assert_array_equal(decode(content, "a", pixels.shape[2]), pixels)


def test_the_lossless_form_of_webp_is_read_exactly_and_jpeg_is_read() -> None:
    np.testing.assert_array_equal(decode(saved("WEBP", lossless=True), "a", 3), NOISE)
    for options in ({}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}):
        assert decode(saved("JPEG", **options), "a", 3).shape == NOISE.shape


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (13, 9)])
def test_interlaced_pngs_are_read_exactly(size: tuple[int, int]) -> None:
    width, height = size
    pixels = NOISE[:height, :width]
    passes = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)]
    rows = [row for x, dx, y, dy in passes for row in pixels[y::dy, x::dx] if row.size]
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    content = framed(header(width, height, 2, 8, 1), (b"IDAT", zlib.compress(data)), END)
    np.testing.assert_array_equal(decode(content, "a", 3), pixels)
    with pytest.raises(ValueError, match=r"a: is damaged: the .* bytes of its pixels are not all there"):
        decode(framed(header(width, height, 2, 8, 1), (b"IDAT", zlib.compress(data[:-1])), END), "a", 3)


WRONG_PNGS = {
    "half the rows": (png(2, 8, ROW, rows=2), "not all there"),
    "more rows": (png(2, 8, ROW, rows=6), "not all there, or not alone"),
    "no rows": (framed(header(4, 4, 2, 8), END), "not all there"),
    "pixels without their end": (
        framed(header(4, 4, 2, 8), (b"IDAT", zlib.compress((b"\0" + ROW) * 4)[:-4]), END),
        "not all there",
    ),
    "16 bits": (png(2, 16, bytes(24)), "has 16 bits a channel"),
    "transparency": (png(2, 8, ROW, (b"tRNS", HIDDEN)), "has transparency"),
    "transparency behind the pixels": (png(2, 8, ROW, late=((b"tRNS", HIDDEN),)), "has transparency"),
    "frames": (png(2, 8, ROW, (b"acTL", struct.pack(">II", 1, 0))), "has several frames"),
    "frames behind the pixels": (png(2, 8, ROW, late=((b"fdAT", bytes(9)),)), "has several frames"),
    "pixels in two places": (
        framed(
            header(4, 4, 2, 8), (b"IDAT", zlib.compress((b"\0" + ROW) * 4)), (b"tEXt", b"a\0b"), (b"IDAT", b""), END
        ),
        "its pixels are interrupted",
    ),
    "a second header": (png(2, 8, ROW, header(4, 4, 2, 8)), "a second header"),
    "a critical chunk that is not known": (png(2, 8, ROW, (b"ABCD", b"")), "has the chunk b'ABCD', which is not known"),
    "a wrong checksum": (
        png(2, 8, ROW).replace(b"IEND\xae", b"IEND\xaf"),
        "the checksum of its chunk b'IEND' is wrong",
    ),
    "no end": (png(2, 8, ROW)[:-12], "is damaged or cut off"),
    "another size": (
        framed(header(5, 4, 2, 8), (b"IDAT", zlib.compress(bytes(64))), END),
        "is 5 x 4 pixels, not 4 x 4",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG_PNGS.values(), ids=WRONG_PNGS.keys())
def test_a_png_that_holds_other_pixels_than_it_seems_to_is_refused_at_every_door(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"a.png: .*{message}"):
        decode_png(content, (3, 4, 4), "a.png")  # a member of a publisher's archive
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.png: .*{message}"):
        image_files.read(tmp_path / "a.png", 3, 256, (4, 4))  # an operand of a command


def test_a_png_with_any_byte_changed_is_refused_or_the_same() -> None:
    content, pixels = saved("PNG", NOISE[:4, :4]), NOISE[:4, :4]
    for n in range(len(content)):
        damaged = bytearray(content)
        damaged[n] ^= 1 << n % 8
        try:
            np.testing.assert_array_equal(decode(bytes(damaged), "a", 3), pixels)
        except ValueError as error:
            assert str(error).startswith("a: ")  # noqa: PT017


@pytest.mark.parametrize("kind", [*FORMATS])
def test_a_file_that_ends_early_is_refused_in_every_format(kind: str) -> None:
    content = saved(kind)
    for length in range(0, len(content) - 2, max(1, len(content) // 60)):
        with pytest.raises(ValueError, match=r"^a: "):
            decode(content[:length], "a", 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_early_is_refused_in_spite_of_its_end_mark(progressive: bool) -> None:
    content = saved("JPEG", progressive=progressive)
    for length in range(len(content) * 3 // 4, len(content) - 20, 40):
        with pytest.raises(ValueError, match=r"^a: "):
            decode(content[:length] + b"\xff\xd9", "a", 3)


@pytest.mark.parametrize(("bits", "mode"), [(32, "RGBA"), (16, "BGR;15")])
def test_a_bmp_of_other_than_8_bits_a_channel_is_refused(bits: int, mode: str) -> None:
    rows = bytes(4 * 4 * bits // 8)
    head = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, bits, 0, len(rows), 0, 0, 0, 0)
    content = b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows
    with pytest.raises(ValueError, match=f"a: its pixels are RGB stored as {'BGRX' if mode == 'RGBA' else mode}, not"):
        decode(content, "a", 3)


# Bounds


def test_a_large_image_is_refused_before_its_pixels_are_read() -> None:
    rows = zlib.compress(bytes(12_000 * 36_001), 1)
    content = framed(header(12_000, 12_000, 2, 8), (b"IDAT", rows), END)
    with memory_below(10 * len(content)):
        for size, message in {
            (4, 4): "is 12000 x 12000 pixels, not 4 x 4",
            None: "at most 67,108,864 are read",
        }.items():
            with pytest.raises(ValueError, match=message):
                decode(content, "a", 3, size)


def test_an_image_larger_than_it_declares_is_not_unpacked() -> None:
    content = framed(header(4, 4, 2, 8), (b"IDAT", zlib.compress(bytes(10**8), 9)), END)
    with memory_below(5 * 10**6), pytest.raises(ValueError, match="not all there, or not alone"):
        decode(content, "a", 3)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match="is not a plain file"):
            image_files.read(path, 3, 256)
    (tmp_path / "b").write_bytes(bytes(11))
    with pytest.raises(ValueError, match="b: 11 bytes, at most 10 are read"):
        files.read_bytes(tmp_path / "b", 10)
    assert files.read_bytes(tmp_path / "b", 11) == bytes(11)


def test_a_png_starts_with_its_signature() -> None:
    assert saved("PNG").startswith(SIGNATURE)


# Names


@pytest.mark.parametrize("name", ["a", "a b", "ünïcode", "Screenshot 3.45\u202fPM", ".hidden", "x" * 220])
def test_names_of_files_are_accepted(name: str) -> None:
    assert files.check_name(name, "x") == name


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", "...", "a/b", "../a", "a\\b", "a\0b", "a\nb", "\x1b[31m", "\x9b1m", "a\u202eb", "\u2028",
        "\ud800", "x" * 221,
    ],
)  # fmt: skip
def test_other_names_are_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"^x: ") as error:
        files.check_name(name, "x")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
