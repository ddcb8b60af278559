"""Paths that users name for what is to be written, checked before any work: can it be written, and does it stay?

Types of arguments of `pixelcnn.cli.arguments`. No torch here.
"""

import argparse
from pathlib import Path

from pixelcnn.files import check_kept, check_writable


def file(text: str) -> Path:
    """The path of a file to write, new or old."""
    path = _kept(Path(text))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; give the path of a file")
    return path


def folder(text: str) -> Path:
    """The path of a folder, which may be there already."""
    path = _kept(Path(text))
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a file; give the path of a folder")
    return path


def new_folder(text: str) -> Path:
    """The path of a folder to be made."""
    if (path := folder(text)).exists():
        raise argparse.ArgumentTypeError(f"{path} already exists")
    return path


def pictures(text: str) -> Path:
    """The path of a .png file for one picture of all, or of a folder for a picture each."""
    path = _kept(Path(text))
    if path.suffix not in ("", ".png"):
        raise argparse.ArgumentTypeError(f"{text} is neither a .png file nor a folder (whose name has no dot)")
    return file(text) if path.suffix else folder(text)


def table(text: str) -> Path:
    """The path of a table to write."""
    return _ending(file(text), ".parquet", ".csv")


def embeddings(text: str) -> Path:
    """The path of a NumPy array to write."""
    return _ending(file(text), ".npy")


def origin(text: str) -> str:
    """The URL of a folder with archives, or a folder here as an absolute path."""
    if "://" in text:
        return text
    path = _not_emptied(Path(text).expanduser().resolve())
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: no such folder; it should contain the publisher's archives")
    return str(path)


def _ending(path: Path, *endings: str) -> Path:
    """The path, if it ends in one of these."""
    if path.suffix not in endings:
        raise argparse.ArgumentTypeError(f"{path} does not end in {' or '.join(endings)}")
    return path


def _kept(path: Path) -> Path:
    """A path at which something can be written that then stays."""
    above = next(each for each in _not_emptied(path).absolute().parents if each.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {above} is a file")
    check_writable(path)
    return path


def _not_emptied(path: Path) -> Path:
    """The path, unless DVC would delete what lies there."""
    try:
        return check_kept(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path} {error}") from None
