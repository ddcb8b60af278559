"""The members of tar and zip files in their order, read in place: nothing is extracted, and each has a bounded size."""

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pixelcnn.data.decoding import refusing

TAR_BLOCK = 512  # bytes
GZIPPED = (".gz", ".tgz")


def tar_members(path: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """The plain files of a tar or tar.gz, of at most `limit` bytes each. Each stream must be read before the next.

    tarfile accepts an archive that is truncated between two members, so the end-of-archive mark is checked here.
    """
    opened: Any = gzip.open(path) if path.suffix.lower() in GZIPPED else path.open("rb")  # noqa: SIM115
    with opened as raw:
        with refusing(path, "is not a readable tar archive"):
            bounded = cast(IO[bytes], _Bounded(raw, limit + 2 * TAR_BLOCK))
            tar = tarfile.open(fileobj=bounded, mode="r:")  # noqa: SIM115 (nothing to close but `raw`)
        while True:
            with refusing(path, "is damaged or truncated"):
                member = tar.next()
                tar.members.clear()  # type: ignore[attr-defined]  # else a million of them stay in memory
            if member is None:
                break
            _check_name(f"{path}: {member.name}", member.name)
            if member.isdir():
                continue
            if not member.isreg():
                raise ValueError(f"{path}: {member.name}: is a link or a device, expected a plain file")
            check_size(f"{path}: {member.name}", member.size, limit)
            stream = tar.extractfile(member)
            assert stream is not None
            yield member.name, stream
        with refusing(path, "is damaged or truncated"):
            end = raw.read(TAR_BLOCK)
            raw.read(2**20)  # the padding: gzip checks the checksum at the very end
        if end != bytes(TAR_BLOCK):
            raise ValueError(f"{path}: is damaged or truncated: it lacks the mark that ends a tar archive")


class _Bounded:
    """A file that hands out no more than `limit` bytes at a time: tarfile reads the headers of extensions at once."""

    def __init__(self, file: IO[bytes], limit: int):
        self.file, self.limit, self.seek, self.tell = file, limit, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """The next bytes. ValueError for more than the limit."""
        if size > self.limit:
            raise ValueError(f"a header declares {size:,} bytes, but at most {self.limit:,}")
        return self.file.read(size)


def zip_members(path: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """The plain files of a zip, of at most `limit` bytes each; zipfile reads no more than the declared size."""
    with refusing(path, "is not a readable zip archive, or truncated"):
        archive = zipfile.ZipFile(path)
    with archive:
        for info in archive.infolist():
            where = f"{path}: {info.filename}"
            _check_name(where, info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{where}: is a link or a device, expected a plain file")
            if info.is_dir():
                continue
            check_size(where, info.file_size, limit)
            with refusing(where, "cannot be read"):
                stream = archive.open(info)
            with stream:
                yield info.filename, stream


def _check_name(where: str, name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise ValueError(f"{where}: this name leads out of the archive; no data set needs one")


def check_size(where: str, size: int, limit: int) -> None:
    if not 0 <= size <= limit:
        raise ValueError(f"{where}: declares {size:,} bytes, but at most {limit:,} are read")
