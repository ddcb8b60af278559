"""`pixelcnn ui`: MLflow's pages of this project, with the addresses to begin at."""

import argparse
import errno
import os
import socket
import sys

HOST = "127.0.0.1"


def run(args: argparse.Namespace) -> None:
    """Print where runs and models are found; without a server of its own (MLFLOW_TRACKING_URI) become one.

    One worker, and no queue of jobs for language models: MLflow's defaults start a dozen processes.
    """
    from pixelcnn.tracking.pages import pages  # imports MLflow
    from pixelcnn.tracking.store import address

    store = address()
    if store.startswith("http"):
        _show(pages(store))
        return
    _check_free(args.port)
    _show(pages(f"http://{HOST}:{args.port}"))
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    server = ["server", "--backend-store-uri", os.environ.get("MLFLOW_TRACKING_URI", store), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *server, "--host", HOST, "--port", str(args.port)])


def _show(found: dict[str, str]) -> None:
    width = max(map(len, found))
    for title, page in found.items():
        print(f"{title:<{width}}  {page}", flush=True)


def _check_free(port: int) -> None:
    """Raise ValueError for a port that cannot be listened at, with one that can."""
    try:
        _bind(port)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "another program is listening on it, perhaps another `pixelcnn ui`" if taken else error.strerror
        raise ValueError(f"--port: {port} cannot be used: {reason}. Try `pixelcnn ui --port {_bind(0)}`") from None
    except OverflowError:
        raise ValueError(f"--port: {port} is not one of 1 ... 65535") from None


def _bind(port: int) -> int:
    """Bind a socket for a moment; returns its port, which 0 leaves to the system."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        found: int = probe.getsockname()[1]
        return found
