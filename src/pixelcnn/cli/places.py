"""Paths that users name for what is to stay: refused where DVC would delete it. No torch here."""

import argparse
from pathlib import Path

from pixelcnn.files import check_kept


def out(text: str) -> Path:
    """The path of --out."""
    return _kept(Path(text))


def origin(text: str) -> str:
    """The URL of a folder with archives, or a folder here as an absolute path."""
    return text if "://" in text else str(_kept(Path(text).expanduser().resolve()))


def _kept(path: Path) -> Path:
    try:
        return check_kept(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path} {error}") from None
