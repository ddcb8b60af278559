"""What is to be told to a server, on disk until it has been told: a folder of events, and a thread that delivers them.

A process that dies, or a server that does, leaves the folder behind, and another process delivers the rest. An event
may be delivered twice, when a process dies between telling and noting it, so a receiver has to bear that.
"""

import contextlib
import json
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

ABOUT, EVENTS, DELIVERED, FILES = "about.json", "events.jsonl", "delivered", "files"
SECONDS_BETWEEN_DELIVERIES = 2.0  # many events go together, which costs a training less than one by one
LONGEST_PAUSE = 60.0  # seconds between two attempts at a server that does not answer
PATIENCE = 60.0  # seconds that `close` waits at most

Event = dict[str, Any]


class Outbox:
    """A folder: what it is about, events in order, how many bytes of them are delivered, and copies of files.

    The process that holds its lock writes and delivers; the kernel releases the lock of a process that ends.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = FileLock(folder.with_name(f"{folder.name}.lock"))

    @classmethod
    def create(cls, folder: Path, about: Event) -> Self:
        """A new outbox, held by this process."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        box = cls(folder)
        box.lock.acquire()
        (folder / FILES).mkdir(parents=True)
        (folder / EVENTS).touch()
        _replace(folder / ABOUT, json.dumps(about))  # from here on `abandoned` sees the folder, and it is whole
        return box

    @property
    def about(self) -> Event:
        """What `create` was told."""
        about: Event = json.loads((self.folder / ABOUT).read_text())
        return about

    def put(self, event: Event) -> None:
        """Add an event, which survives the process from here on. Takes well under a millisecond."""
        with (self.folder / EVENTS).open("a") as handle:
            handle.write(json.dumps(event) + "\n")

    def keep(self, path: Path) -> str:
        """Copy a file as it is now; its place in the outbox's folder, for an event."""
        return self.keep_bytes(path.name, path.read_bytes())

    def keep_bytes(self, name: str, content: bytes) -> str:
        """A new file of that name; its place in the outbox's folder, for an event."""
        place = self.folder / FILES / uuid.uuid4().hex / name
        place.parent.mkdir()
        place.write_bytes(content)
        return str(place.relative_to(self.folder))

    def waiting(self, most: int = 200) -> Iterator[list[Event]]:
        """The events not yet delivered, at most so many at a time; asking for more notes that these are delivered."""
        mark = self.folder / DELIVERED
        offset = int(mark.read_text()) if mark.exists() else 0
        with (self.folder / EVENTS).open("rb") as handle:
            handle.seek(offset)
            lines = handle.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # being written
            lines.pop()
        for start in range(0, len(lines), most):
            part = lines[start : start + most]
            yield [json.loads(line) for line in part]
            offset += sum(map(len, part))
            _replace(mark, str(offset))

    def remove(self) -> None:
        """Forget the folder; whoever comes next finds nothing."""
        shutil.rmtree(self.folder)
        self.release()

    def release(self) -> None:
        """Leave what waits to other processes."""
        self.lock.release()
        if not self.folder.exists():
            Path(self.lock.lock_file).unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    """The old content or the new one, never a half."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def abandoned(parent: Path) -> Iterator[Outbox]:
    """The outboxes whose process is gone, oldest name first, each held by this process until the next is asked for."""
    for about in sorted(parent.glob(f"*/{ABOUT}")):
        box = Outbox(about.parent)
        with contextlib.suppress(Timeout), box.lock.acquire(timeout=0):
            if about.exists():  # else another process delivered it meanwhile
                yield box
        if not box.folder.exists():
            Path(box.lock.lock_file).unlink(missing_ok=True)


class Courier(threading.Thread):
    """Delivers an outbox every other second; after a failure again and again, with longer pauses."""

    def __init__(self, box: Outbox, deliver: Callable[[Outbox], None], receiver: str):
        super().__init__(name=f"courier of {box.folder.name}", daemon=True)
        self.box, self.deliver, self.receiver = box, deliver, receiver
        self.closing = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Until closed; then one last attempt."""
        pause = SECONDS_BETWEEN_DELIVERIES
        while True:
            last = self.closing.is_set()  # asked before delivering, so that the last attempt takes all that was put
            try:
                self.deliver(self.box)
                pause = SECONDS_BETWEEN_DELIVERIES
                self._say_once(None)
            except Exception as error:
                pause = min(2 * pause, LONGEST_PAUSE)
                self._say_once(error)
            if last:
                return
            self.closing.wait(pause)

    def close(self) -> None:
        """Deliver what waits, within a minute. What stays is kept, and said."""
        self.closing.set()
        self.join(PATIENCE)
        if self.failure is None and not self.is_alive():
            self.box.remove()
            return
        waiting = self.box.folder
        print(f"{self.receiver} has not taken everything; the rest waits in {waiting}", file=sys.stderr, flush=True)
        if not self.is_alive():
            self.box.release()

    def _say_once(self, error: Exception | None) -> None:
        if error is not None and self.failure is None:
            reason = str(error).splitlines()[0][:200]
            print(f"{self.receiver} does not answer ({reason}); going on, trying again", file=sys.stderr, flush=True)
        if error is None and self.failure is not None:
            print(f"{self.receiver} answers again", file=sys.stderr, flush=True)
        self.failure = error
