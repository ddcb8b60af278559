"""File locks (flock) that the kernel releases when the processes that hold them end, even by kill -9.

A child that inherits the file descriptor holds the lock too, and so longer than a parent that was killed.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynvml

POLL = 1.0  # seconds between two attempts while all locks are taken


@contextmanager
def held(*paths: Path) -> Iterator[tuple[int, Path]]:
    """Lock the first of these files that is free, waiting for one; yields the file descriptor and the path."""
    while True:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield file.fileno(), path
                return
        time.sleep(POLL)


@contextmanager
def slot() -> Iterator[tuple[int, dict[str, str]]]:
    """Lock one of this machine's slots: a GPU, or the CPU where there is none (a training takes all its cores).

    Yields the lock's file descriptor and the environment variables that make only that GPU visible.
    """
    gpus = _gpus()
    with held(*(_folder() / f"slot-{gpu}.lock" for gpu in gpus or ["cpu"])) as (descriptor, path):
        gpu = path.stem.removeprefix("slot-")
        yield descriptor, {"CUDA_VISIBLE_DEVICES": gpu} if len(gpus) > 1 else {}


def _gpus() -> list[str]:
    """The GPUs visible to this process, as in CUDA_VISIBLE_DEVICES."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu.strip() for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip()]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    return [pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(pynvml.nvmlDeviceGetCount())]


def _folder() -> Path:
    """The folder of the slots' locks, one for all checkouts of a user, since they share the machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelcnn"
