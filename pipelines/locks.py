"""Locks that end with the processes that hold them, even by kill -9: the kernel keeps them, on open files.

A child that is given the file's number holds the lock too, so it outlives a parent that was killed.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynvml

POLL = 1.0  # seconds between two looks at slots that are all taken


@contextmanager
def held(*paths: Path) -> Iterator[tuple[int, Path]]:
    """Hold the first of these files that is free, waiting for one; yields the open file's number and the file."""
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
    """Hold one of this machine's slots: a GPU, or the CPU where there is none (a training takes all its cores).

    Yields the lock's number and the environment in which a process sees that GPU and no other.
    """
    gpus = _gpus()
    with held(*(_folder() / f"slot-{gpu}.lock" for gpu in gpus or ["cpu"])) as (number, path):
        gpu = path.stem.removeprefix("slot-")
        yield number, {"CUDA_VISIBLE_DEVICES": gpu} if len(gpus) > 1 else {}


def _gpus() -> list[str]:
    """The GPUs that a process started here may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu.strip() for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip()]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    return [pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(pynvml.nvmlDeviceGetCount())]


def _folder() -> Path:
    """The same for every checkout of a user: they share the machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelcnn"
