"""Files that are whole or not there: atomic writes, locks, hashes, and JSON whose faults are named."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes the place of `path` when the block ends without an exception.

    Until then, and after a crash at any moment, `path` is what it was before. The data reach the disk before the name
    does (fsync), and an exception removes the temporary file beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(path: Path) -> None:
    """Remove what processes that were killed inside `atomic(path)` have left beside it."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which the kernel releases when this process ends, also by kill -9.

    Raises BlockingIOError, whose message is the holder's process id, where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(file.read()) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, its folder included."""
    with atomic(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, missing: str, remedy: str = "") -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError with `missing` where there is no file, with `remedy` where it holds
    anything else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(missing) from None
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON or bad UTF-8
        raise ValueError("; ".join(filter(None, [f"{path}: not JSON: {error}", remedy]))) from None
    if not isinstance(content, dict):
        raise ValueError("; ".join(filter(None, [f"{path}: not a JSON object", remedy])))
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path, pattern: str) -> str:
    """The SHA-256 of the names and contents of the files below a folder that match, in hex."""
    found = sorted(folder.rglob(pattern))
    return hashlib.sha256(repr([(str(p.relative_to(folder)), sha256_of(p)) for p in found]).encode()).hexdigest()
