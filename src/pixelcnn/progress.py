"""Progress of long work on stderr: a bar on a terminal, a few lines in a log."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm


class Progress(Protocol):
    """A context manager whose `update` adds the number of units done."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, n: int) -> object: ...


def progress(title: str, total: int, unit: str) -> Progress:
    """A display of progress: `total` units (such as "B" or "images") of work called `title`."""
    if sys.stderr.isatty():
        bar: Progress = tqdm(desc=title, total=total, unit=unit, unit_scale=True)
        return bar
    return _Lines(title, total, unit)


SECONDS_BETWEEN_LINES = 5.0


class _Lines:
    """A line for each tenth of the work, SECONDS_BETWEEN_LINES apart, and one at the end: a bar would fill a log."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self.tenths = 0
        self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._print("ended early at" if kind else "done:")

    def update(self, n: int) -> None:
        self.done += n
        tenths = min(10 * self.done // max(self.total, 1), 10)
        if self.tenths < tenths < 10 and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self._print(f"{10 * tenths}%,")
        self.tenths = tenths

    def _print(self, state: str) -> None:
        print(f"{self.title}: {state} {self.done:,} {self.unit}", file=sys.stderr, flush=True)
        self.last_line = time.monotonic()
