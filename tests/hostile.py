"""What the tests of foreign files share: PNG files that Pillow would not write, and a limit on memory."""

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

Chunk = tuple[bytes, bytes]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def framed(*chunks: Chunk) -> bytes:
    """A PNG of these chunks, with their lengths and checksums."""
    parts = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return SIGNATURE + b"".join(parts)


def header(width: int, height: int, colour_type: int, depth: int, interlaced: int = 0) -> Chunk:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)


def png(colour_type: int, depth: int, row: bytes, *chunks: Chunk, rows: int = 4, late: tuple[Chunk, ...] = ()) -> bytes:
    """A PNG of 4 x 4 pixels, with further chunks before or behind the pixels, of which there are `rows` rows."""
    pixels = b"IDAT", zlib.compress((b"\0" + row) * rows)
    return framed(header(4, 4, colour_type, depth), *chunks, pixels, *late, (b"IEND", b""))


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fail where what happens inside allocates more than `limit` bytes at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
