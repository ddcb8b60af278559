"""Files that are whole or not there: atomic writes, locks, hashes, and JSON whose faults are named."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LONGEST = 200  # characters of a foreign text that a message repeats
MOST_LINES = 40  # of a message
LONGEST_NAME = 220  # bytes of a file's name; file systems allow 255, of which endings and temporary names take some
# Folders of a project in which stages have their outs, which DVC deletes, and where downloads lie for a while
EMPTIED = ("data/raw", "data/prepared", "data/partial", "models", "reports")
MAX_JSON = 2**24  # bytes of a file
# Unicode's control characters, halves of a surrogate pair, line and paragraph separators, and what reverses a text
ACTING = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]")


def excerpt(text: str) -> str:
    """A text from a file or library as a message repeats it: on one line, cut, and without characters that act on a
    terminal.
    """
    line = " ".join(ACTING.sub(" ", text[: 10 * LONGEST]).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def printable(text: str) -> str:
    """A text of several lines from elsewhere, such as a model's card, without characters that act on a terminal."""
    return "\n".join(ACTING.sub(" ", line) for line in text.split("\n"))


def message(error: BaseException) -> str:
    """What a command prints of an error: not a word that acts on a terminal, and no more than a screen can hold."""
    denied = (
        _who_may(Path(str(error.filename)).absolute()) if isinstance(error, PermissionError) and error.filename else ""
    )
    lines = [ACTING.sub(" ", line[: 10 * LONGEST]) for line in f"{error}{denied}".split("\n", MOST_LINES + 1)]
    rest = ["..."] if len(lines) > MOST_LINES else []
    return "\n".join(lines[:MOST_LINES] + rest) or type(error).__name__


def _who_may(path: Path) -> str:
    """Whose the file or folder is that denies a permission, and who this process runs as."""
    with suppress(OSError):
        place = next(each for each in (path, *path.parents) if os.path.exists(each))  # noqa: PTH110 (Path's may raise)
        status = place.stat()
        return (
            f"; {place} belongs to {_user(status.st_uid)} and is {stat.filemode(status.st_mode)}, "
            f"this process is of {_user(os.geteuid())}"
        )
    return ""


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def check_name(name: str, where: str) -> str:
    """A text that is to be a file's name in some folder. Raises ValueError for one that leads elsewhere or nowhere."""
    fault = None
    if not name.strip(" .") or "/" in name or "\\" in name:
        fault = "is not the name of a file"
    elif ACTING.search(name):
        fault = "has characters that do not belong in the name of a file"
    elif len(name.encode()) > LONGEST_NAME:
        fault = f"is longer than {LONGEST_NAME} bytes, too long for the name of a file"
    if fault:
        raise ValueError(f"{where}: {excerpt(repr(name))} {fault}")
    return name


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes the place of `path` when the block ends without an exception.

    Until then, and after a crash at any moment, `path` is what it was before. The data reach the disk before the name
    does (fsync). The temporary file beside it, .NAME.part, is removed after an exception; what a killed process has
    left there is overwritten by the next that writes `path`, and two at once write one after the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with naming(path), os.fdopen(_open_alone(part), "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the message of an OSError say which file it is about, as that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _open_alone(part: Path) -> int:
    """A descriptor of the empty file `part`, made where it is missing, which no other process is writing.

    The lock goes with the descriptor, also by kill -9.
    """
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), part.stat()):  # else renamed or removed by its last writer
                os.truncate(descriptor, 0)
                return descriptor
        os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `path` when the block ends without an exception and is removed otherwise.

    Raises ValueError where there is something of that name.
    """
    if path.exists():
        raise ValueError(f"--out: {path} already exists")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # by processes that were killed here
        shutil.rmtree(left)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which the kernel releases when this process ends, also by kill -9.

    Raises BlockingIOError, whose message is the holder's process id, where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("a+") as file:
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
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def check_kept(path: Path) -> Path:
    """A path of the user's, if what lies there stays there. Raises ValueError where it is, holds or lies in a folder
    that DVC empties before a stage runs, of the project here or of the one that the path leads into.
    """
    found, here = path.expanduser().resolve(), Path.cwd()
    above = {*found.parents, *here.parents}
    # os.path's, which is False in folders that this user may not read, where Path's raises
    projects = [here, *(folder for folder in above if os.path.isfile(folder / "dvc.yaml"))]  # noqa: PTH113
    for out in (project / name for project in projects for name in EMPTIED):
        emptied = out.resolve()
        if found == emptied or found in emptied.parents or emptied in found.parents:
            raise ValueError(
                f"is not safe for your files: it is, contains or is inside {out}, which DVC deletes before it runs a "
                "stage; choose a folder outside it"
            )
    return path


def check_writable(path: Path) -> None:
    """Before any work: raise OSError where this process cannot make a file or folder of this path."""
    folder = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.isdir(each))  # noqa: PTH112
    if not may_write(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    try:
        tempfile.TemporaryFile(dir=folder).close()  # /proc and the like take no files, whatever their permissions
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def may_write(folder: Path) -> bool:
    """Whether this process may make and remove files in a folder."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def read_bytes(path: Path, at_most: int) -> bytes:
    """The content of a plain file of at most so many bytes. Raises ValueError for a larger one, and for what may have
    no end: a pipe, a device; OSError where there is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block otherwise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: is not a plain file")
        if status.st_size > at_most:
            raise ValueError(f"{path}: {status.st_size:,} bytes, at most {at_most:,} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)  # whose memory Python takes first, so not that of `at_most`
    finally:
        os.close(descriptor)


def read_json(path: Path, missing: str, remedy: str = "") -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError with `missing` where there is no file, with `remedy` where it holds
    anything else.
    """
    try:
        content = json.loads(read_bytes(path, MAX_JSON), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(missing) from None
    except (ValueError, RecursionError) as error:  # ValueError: no plain file, bad JSON or bad UTF-8
        fault = excerpt(str(error).removeprefix(f"{path}: "))
        raise ValueError("; ".join(filter(None, [f"{path}: not JSON: {fault}", remedy]))) from None
    if not isinstance(content, dict):
        raise ValueError("; ".join(filter(None, [f"{path}: not a JSON object", remedy])))
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex, read in pieces."""
    return checksum_of(path, "sha256")


def checksum_of(path: Path, algorithm: str) -> str:
    """The checksum of a file's content, in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def sha256_of_folder(folder: Path, pattern: str) -> str:
    """The SHA-256 of the names and contents of the files below a folder that match, in hex."""
    found = sorted(folder.rglob(pattern))
    return hashlib.sha256(repr([(str(p.relative_to(folder)), sha256_of(p)) for p in found]).encode()).hexdigest()
