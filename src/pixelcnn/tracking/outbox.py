"""An outbox on disk: events for a server, appended by the process and delivered by a background thread.

What is not delivered when the process ends, or is killed, stays on disk, and another process delivers it. Delivery is
at least once: a process that is killed between delivering an event and recording that makes the next one deliver it
again, so receivers have to be idempotent.
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

from pixelcnn import files

ABOUT, EVENTS, DELIVERED, FILES = "about.json", "events.jsonl", "delivered", "files"
DELIVERY_INTERVAL = 2.0  # seconds; batching events costs a training less than sending them one by one
MAX_RETRY_INTERVAL = 60.0  # seconds between two attempts at a server that does not answer
CLOSE_TIMEOUT = 60.0  # seconds that `close` waits for the last delivery

Event = dict[str, Any]


class Outbox:
    """A folder with a description, events in order, the number of bytes of them that are delivered, and attached files.

    Only the process that holds the folder's lock writes and delivers; the kernel releases the lock of a dead process.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = FileLock(folder.with_name(f"{folder.name}.lock"))

    @classmethod
    def create(cls, folder: Path, about: Event) -> Self:
        """A new outbox, locked by this process. about: what its events belong to."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        box = cls(folder)
        box.lock.acquire()
        (folder / FILES).mkdir(parents=True)
        (folder / EVENTS).touch()
        files.write_text(folder / ABOUT, json.dumps(about))  # last: `abandoned` looks for this file
        return box

    @property
    def about(self) -> Event:
        """The description given to `create`."""
        return files.read_json(self.folder / ABOUT, f"{self.folder}: no {ABOUT} there")

    def put(self, event: Event) -> None:
        """Append an event. It survives the process from here on; takes well under a millisecond."""
        with (self.folder / EVENTS).open("a") as handle:
            handle.write(json.dumps(event) + "\n")

    def attach(self, path: Path) -> str:
        """Copy a file as it is now; returns the copy's path relative to the outbox, for an event."""
        return self.attach_bytes(path.name, path.read_bytes())

    def attach_bytes(self, name: str, content: bytes) -> str:
        """Write a file of that name; returns its path relative to the outbox, for an event."""
        path = self.folder / FILES / uuid.uuid4().hex / name
        path.parent.mkdir()
        path.write_bytes(content)
        return str(path.relative_to(self.folder))

    def undelivered(self, batch_size: int = 200) -> Iterator[list[Event]]:
        """Batches of the events not yet delivered; asking for the next batch records that this one is delivered."""
        mark = self.folder / DELIVERED
        offset = int(mark.read_text()) if mark.exists() else 0
        with (self.folder / EVENTS).open("rb") as handle:
            handle.seek(offset)
            lines = handle.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # being written
            lines.pop()
        for start in range(0, len(lines), batch_size):
            batch = lines[start : start + batch_size]
            yield [json.loads(line) for line in batch]
            offset += sum(map(len, batch))
            files.write_text(mark, str(offset))

    def remove(self) -> None:
        """Delete the folder and release the lock."""
        shutil.rmtree(self.folder)
        self.release()

    def release(self) -> None:
        """Release the lock, so that another process can deliver what is left."""
        self.lock.release()
        if not self.folder.exists():
            Path(self.lock.lock_file).unlink(missing_ok=True)


def abandoned(parent: Path) -> Iterator[Outbox]:
    """The outboxes whose process has ended, oldest name first; each is locked here until the next is asked for."""
    for about in sorted(parent.glob(f"*/{ABOUT}")):
        box = Outbox(about.parent)
        with contextlib.suppress(Timeout), box.lock.acquire(timeout=0):
            if about.exists():  # else another process has delivered it in the meantime
                yield box
        if not box.folder.exists():
            Path(box.lock.lock_file).unlink(missing_ok=True)


class DeliveryThread(threading.Thread):
    """Delivers an outbox periodically; retries after a failure, with growing intervals."""

    def __init__(self, box: Outbox, deliver: Callable[[Outbox], None], receiver: str):
        """deliver: raises where the receiver does not answer. receiver: its name in messages."""
        super().__init__(name=f"delivery of {box.folder.name}", daemon=True)
        self.box, self.deliver, self.receiver = box, deliver, receiver
        self.closing = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Deliver until closed, then once more."""
        interval = DELIVERY_INTERVAL
        while True:
            last = self.closing.is_set()  # read before delivering, so that the last attempt includes every event
            try:
                self.deliver(self.box)
                interval = DELIVERY_INTERVAL
                self._report(None)
            except Exception as error:
                interval = min(2 * interval, MAX_RETRY_INTERVAL)
                self._report(error)
            if last:
                return
            self.closing.wait(interval)

    def close(self) -> None:
        """Deliver what is left, within CLOSE_TIMEOUT. Where that fails the outbox stays, and a message says where."""
        self.closing.set()
        self.join(CLOSE_TIMEOUT)
        if self.failure is None and not self.is_alive():
            self.box.remove()
            return
        folder = self.box.folder
        print(f"{self.receiver} has not taken everything; the rest waits in {folder}", file=sys.stderr, flush=True)
        if not self.is_alive():
            self.box.release()

    def _report(self, error: Exception | None) -> None:
        """Print a line when deliveries begin to fail, and when they succeed again."""
        if error is not None and self.failure is None:
            reason = str(error).splitlines()[0][:200]
            print(f"{self.receiver} does not answer ({reason}); going on, trying again", file=sys.stderr, flush=True)
        if error is None and self.failure is not None:
            print(f"{self.receiver} answers again", file=sys.stderr, flush=True)
        self.failure = error
