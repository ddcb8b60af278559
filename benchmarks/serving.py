"""Latency and throughput of `mlflow models serve` on registered models, for batches of 1 and 64 images.

    python benchmarks/serving.py models:/digits@champion

For comparison, the same batches with `predict` in this process: the difference is HTTP, JSON and MLflow's checks.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import pixelcnn
from pixelcnn.tracking import store  # sets MLflow's switches, so it comes before MLflow itself

# isort: split

import mlflow

BATCHES, SECONDS = (1, 64), 10.0


@contextlib.contextmanager
def served(uri: str) -> Iterator[str]:
    """The URL of a server of this model, which is stopped at the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # for uvicorn
    child = subprocess.Popen(
        [sys.executable, "-m", *command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while child.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/ping")
                break
            time.sleep(0.5)
        yield f"{url}/invocations"
    finally:
        child.terminate()
        child.wait()


def ask(url: str, images: np.ndarray) -> list[float]:
    """Bits/dim of each image, from the server."""
    body = json.dumps({"inputs": images.tolist()}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        predictions: list[float] = json.load(answer)["predictions"]
    return predictions


def median_seconds(act: Callable[[], object]) -> float:
    """The median time of at least five repetitions, after one that is not counted."""
    act()
    end, times = time.monotonic() + SECONDS, list[float]()
    while time.monotonic() < end or len(times) < 5:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="models:/NAME@ALIAS")
    names = parser.parse_args().models
    uri = os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{store.LOCAL_STORE}")
    mlflow.set_tracking_uri(uri)
    print("| model | images | served, p50 | served, images/s | predict, p50 |\n|---|---:|---:|---:|---:|")
    for name in names:
        model = mlflow.pyfunc.load_model(name)
        shape = pixelcnn.load(name).shape
        with served(name) as url:
            for num in BATCHES:
                images = np.zeros((num, *shape), np.uint8)
                np.testing.assert_allclose(ask(url, images), model.predict(images), rtol=1e-5)
                by_http, here = (
                    median_seconds(partial(ask, url, images)),
                    median_seconds(partial(model.predict, images)),
                )
                row = f"| {name} | {num} | {1e3 * by_http:.0f} ms | {num / by_http:.0f} | {1e3 * here:.0f} ms |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
