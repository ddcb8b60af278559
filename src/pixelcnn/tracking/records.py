"""Records on disk of what is logged: the truth, of which an MLflow store is a copy that `store.sync` completes.

    mlruns/records/ID/about.json     the MLflow run that it belongs to: experiment, identifying tag, tags of a new run
    mlruns/records/ID/events.jsonl   params, points, pictures, files, tags and status, a line each with its time
    mlruns/records/ID/files/         copies of logged files
    mlruns/records/ID/lock           held by the process that trains or sends, and released when that ends in any way

A record is appended to and never rewritten or deleted. It lies outside all outs of DVC, so no stage removes it.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pixelcnn import files

LOCAL_STORE = Path("mlflow.db")
LOCAL_ARTIFACTS = Path("mlruns")
RECORDS = LOCAL_ARTIFACTS / "records"
OUTBOXES = LOCAL_ARTIFACTS / "_unsent"  # what the first release had not sent, in the same format
ABOUT, EVENTS, FILES, LOCK = "about.json", "events.jsonl", "files", "lock"

Event = dict[str, Any]


class Record:
    """One record, in its folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, about: Event) -> Self:
        """A new record. about: `experiment`, `identity` (a tag and its value), `tags`, `time`, `over`; or more."""
        record = cls(RECORDS / uuid.uuid4().hex)
        (record.folder / FILES).mkdir(parents=True)
        (record.folder / EVENTS).touch()
        files.write_json(record.folder / ABOUT, about)  # last: a folder without it is no record
        return record

    @cached_property
    def about(self) -> Event:
        """The description given to `create`."""
        return files.read_json(self.folder / ABOUT, f"{self.folder}: no {ABOUT} there")

    @property
    def size(self) -> int:
        """The number of bytes of its events."""
        return (self.folder / EVENTS).stat().st_size

    @contextlib.contextmanager
    def locked(self, patience: float = 0) -> Iterator[None]:
        """Hold the record's lock. BlockingIOError where another process still holds it after `patience` seconds."""
        until = time.monotonic() + patience
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(files.lock(self.folder / LOCK))
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise
                time.sleep(0.1)
            yield

    def put(self, event: Event) -> None:
        """Append an event; it survives the process from here on. OSError where it cannot be written whole.

        The line feed before it ends what a process that was killed in its write, or a full disk, may have left.
        """
        path = self.folder / EVENTS
        with files.naming(path), path.open("ab") as file:
            file.write(f"\n{json.dumps(event)}\n".encode())

    def attach(self, path: Path) -> str:
        """Copy a file as it is now; returns the copy's path in the record, for an event."""
        return self.attach_bytes(path.name, path.read_bytes())

    def attach_bytes(self, name: str, content: bytes) -> str:
        """Write a file of that name; returns its path in the record, for an event."""
        path = self.folder / FILES / uuid.uuid4().hex / name
        path.parent.mkdir(parents=True)
        with files.naming(path):
            path.write_bytes(content)
        return str(path.relative_to(self.folder))

    def chunks(self, start: int = 0, num: int = 200) -> Iterator[tuple[list[Event], int]]:
        """The events from byte `start` on, `num` or fewer at a time, each chunk with the byte at which it ends."""
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(start)
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # being written
            lines.pop()
        for first in range(0, len(lines), num):
            chunk = lines[first : first + num]
            start += sum(map(len, chunk))
            yield list(_events(chunk)), start

    def events(self) -> Iterator[Event]:
        """All events."""
        for events, _ in self.chunks():
            yield from events

    @property
    def last_status(self) -> Event:
        """The last event that has a status; {} before the first."""
        return next((event for event in reversed(list(self.events())) if "status" in event), {})


def _events(lines: list[bytes]) -> Iterator[Event]:
    """The events of lines; a line that a killed process has left unfinished holds none."""
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def every() -> list[Record]:
    """All records, oldest first, those of trainings before those of weights: the former make the runs of the latter.

    Not those of other users, which this one may not write.
    """
    found = [Record(path.parent) for path in RECORDS.glob(f"*/{ABOUT}") if files.may_write(path.parent)]
    return sorted(found, key=lambda record: (record.about["over"], record.about["time"]))


def find(**described: Any) -> Record | None:
    """The newest record whose description has these values."""
    return next((record for record in reversed(every()) if described.items() <= record.about.items()), None)


def adopt_outboxes() -> None:
    """Make records of what the first release had not sent; sending the rest of it once more changes nothing."""
    for about in OUTBOXES.glob(f"*/{ABOUT}"):
        RECORDS.mkdir(parents=True, exist_ok=True)
        about.parent.rename(RECORDS / about.parent.name)


def share_parents() -> None:
    """In the copy of a project in which DVC runs an experiment (--temp, --queue): use the project's store and records.

    DVC removes the copy, and names the project in DVC_ROOT. Links, since artifacts are found relative to the folder.
    """
    here, root = Path.cwd(), Path(os.environ.get("DVC_ROOT", "")).resolve()
    copy = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    if not copy.is_relative_to(root / ".dvc"):
        return
    project = root / here.relative_to(copy)
    (project / LOCAL_ARTIFACTS).mkdir(exist_ok=True)
    for path in (LOCAL_STORE, LOCAL_ARTIFACTS):
        with contextlib.suppress(FileExistsError):
            path.symlink_to(project / path)
