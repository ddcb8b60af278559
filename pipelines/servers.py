"""Prefect's temporary server of this checkout: ended at the next start if its flow was killed.

Without PREFECT_API_URL Prefect starts a server as a child of the flow's process and ends it with that process, but not
after `kill -9`. So each is recorded, as the pids and start times of the server and of its parent: a process that has
been given the same pid since started at another time, and is left alone.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from pipelines import locks
from pixelcnn import files

RECORDS = Path(".dvc/tmp/prefect-servers")
APPLICATION = "prefect.server.api.server:create_app"  # an argument of the server's command
POLL = 0.2  # seconds between two looks for a server that this process is about to start
PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL


def guard() -> None:
    """End the servers that killed processes of this checkout have left, and record the one that this process starts."""
    end_orphans()
    threading.Thread(target=_record_own, daemon=True).start()


def end_orphans() -> None:
    """End each recorded server whose parent is gone; records of servers that are gone are removed."""
    if not RECORDS.exists():
        return
    with locks.held(RECORDS / "lock"):
        for path in sorted(RECORDS.glob("*.json")):
            record = files.read_json(path, f"{path}: no such file")
            server, parent = _process(*record["server"]), _process(*record["parent"])
            if server is not None and parent is None:
                _end(server)
                print(f"ended process {server.pid}, the temporary Prefect server of a flow that was killed", flush=True)
            if server is None or parent is None:
                path.unlink()


def _record_own() -> None:
    """Wait for the server that this process starts, and record it."""
    me = psutil.Process()
    while not (found := list(_servers(me))):
        time.sleep(POLL)
    for server, started in found:
        content = {"server": [server.pid, started], "parent": [me.pid, me.create_time()]}
        files.write_text(RECORDS / f"{server.pid}.json", json.dumps(content))


def _servers(parent: psutil.Process) -> Iterator[tuple[psutil.Process, float]]:
    """The servers that a process has started, with the times when they started."""
    for child in parent.children():
        with suppress(psutil.Error):
            if APPLICATION in child.cmdline():
                yield child, child.create_time()


def _process(pid: int, started: float) -> psutil.Process | None:
    """The process with this pid if it started at this time and has not ended."""
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(pid)
        if found.create_time() == started and found.status() != psutil.STATUS_ZOMBIE:
            return found
    return None


def _end(server: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        server.terminate()
        _, alive = psutil.wait_procs([server], PATIENCE)
        for process in alive:
            process.kill()
