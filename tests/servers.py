"""Servers that tests start on this machine: MLflow and, where it is installed, PostgreSQL."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path


def free_port() -> int:
    """A TCP port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int, database: str | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """An MLflow server that also serves artifacts, as in docs/servers.md; by default on a SQLite file."""
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database or f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its workers too
        server.wait()


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    while True:
        assert server.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.2)


def why_no_postgres() -> str:
    """Why no PostgreSQL server can be started here; "" where one can."""
    if not all(map(shutil.which, ("initdb", "postgres"))):
        return "initdb and postgres are not on the PATH"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL refuses to run as root, and there is no runuser"
    return ""


@contextlib.contextmanager
def postgres(port: int) -> Iterator[str]:
    """The URI of an empty PostgreSQL database, as in docs/servers.md."""
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        folder = Path(home)
        if as_user:
            shutil.chown(folder, "postgres")
        data = [*as_user, "initdb", "-D", home + "/data", "-A", "trust", "-U", "mlflow"]
        subprocess.run(data, check=True, capture_output=True, cwd=folder)
        command = [*as_user, "postgres", "-D", home + "/data", "-p", str(port), "-k", home, "-h", "127.0.0.1"]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            while subprocess.run(["pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode:
                assert server.poll() is None, "PostgreSQL has ended"
                time.sleep(0.2)
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait()
