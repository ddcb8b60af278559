"""The only door to MLflow tracking. An experiment is a data set; a run is one training, and what is measured on it.

What is logged goes to an outbox on disk, and a thread brings it to the store (pixelcnn.tracking.store): a store that is slow or
down costs a training no time and no data. What it has not taken is sent by the next stage that reaches it, or by
`python -m pixelcnn.tracking.runs`. A run is found again by a tag that the training chose and its checkpoint holds, and by
the hash of its weights afterwards, so that no id enters a DVC output.

Names in MLflow: "training/..." are curves over steps, "system/..." what the machine did meanwhile, "usage/..." what the
training took; a name without such a prefix is a result.
"""

import contextlib
import hashlib
import json
import platform
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from pixelcnn.data.dataset import Card
from pixelcnn.tracking.outbox import Courier, Event, Outbox
from pixelcnn.tracking.store import UNSENT, Delivery, address, answering, connect, find_or_make, send_unsent

# isort: split

import mlflow
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.tracking.context.registry import resolve_tags

TRAINING_TAG, WEIGHTS_TAG = "training", "weights_sha256"
SECONDS_BETWEEN_SYSTEM_METRICS = 10.0


@dataclass
class _Active:
    """The run that this thread logs to, and the step that it has reached."""

    box: Outbox
    step: int = 0


_active: ContextVar[_Active] = ContextVar("the run that is logged to")


@contextlib.contextmanager
def training_run(
    name: str, description: str, params: Mapping[str, Any], card: Card, run_id: str | None
) -> Iterator[str]:
    """The run of a training: a new one, or the one that an earlier start yielded, continued where the store knows it.

    Yields what a later start gives as `run_id`. Ends as FINISHED, as KILLED after a signal (SystemExit), as FAILED
    after any other exception. A store that does not answer raises nothing, and delays the end by a minute at most.
    """
    training = run_id or uuid.uuid4().hex
    about = _about(card.dataset, TRAINING_TAG, training, name)
    about["tags"] |= {"mlflow.note.content": description} | provenance()
    with _logging(about):
        _put({"status": "RUNNING"})
        _put({"params": {key: str(value) for key, value in flatten(params).items()}})
        _put({"dataset": dataset(card)})
        _put_text("config.json", json.dumps(params, indent=2), "environment")
        _put_text("requirements.txt", environment(), "environment")
        with _ending(), _system_metrics():
            yield training


@contextlib.contextmanager
def run_of_weights(dataset: str, weights_sha256: str, name: str) -> Iterator[str]:
    """The run that made these weights, active in MLflow too; a new one where the store does not know them.

    Yields its id. After a clone and `dvc pull` the models are there and the store is empty: then the new run adopts
    them. Where the store does not answer the id is "", and what is `measured` waits until it does.
    """
    about = _about(dataset, WEIGHTS_TAG, weights_sha256, name) | {"over": True}
    about["tags"]["adopted"] = "weights came from DVC, not from a training here"
    try:
        client = connect(dataset)
        with answering():
            run_id = find_or_make(client, about)
    except ConnectionError:
        run_id = ""
    with _logging(about, run_id), _active_in_mlflow(run_id) if run_id else contextlib.nullcontext():
        yield run_id


def log(values: Mapping[str, float], step: int) -> None:
    """A point of each curve of the active run, at a step."""
    _active.get().step = step
    _put({"metrics": {f"training/{key}": value for key, value in values.items()}, "step": step})


def log_picture(name: str, path: Path, step: int) -> None:
    """A picture of the active run at a step: MLflow shows it beside the curves, with a slider over the steps."""
    _put({"picture": _active.get().box.keep(path), "name": f"training/{name}", "step": step})


def finish(values: Mapping[str, float], weights_sha256: str, files: Mapping[str, Path]) -> None:
    """A training's summary: what it cost, the weights' identity, and files by the artifact folder they go to.

    Bits/dim are left out: the curves have them, and evaluation measures them on these weights.
    """
    usage = {f"usage/{key}": value for key, value in values.items() if not key.endswith("bits_per_dim")}
    _put({"metrics": usage, "step": 0})
    _put({"tags": {WEIGHTS_TAG: weights_sha256}})
    _put_files(files)


def measured(scores: Mapping[str, Mapping[str, float]], files: Mapping[str, Path]) -> None:
    """What was measured on the active run's weights: scores by split, and files by artifact folder."""
    values = {f"{split}_bits_per_dim": score["bits_per_dim"] for split, score in scores.items()}
    _put({"metrics": values | {"test_standard_error": scores["test"]["standard_error"]}, "step": 0})
    rows = {"columns": ["split", *scores["test"]], "data": [[split, *s.values()] for split, s in scores.items()]}
    _put_text("scores.json", json.dumps(rows), "")
    _put({"tags": {"mlflow.loggedArtifacts": json.dumps([{"path": "scores.json", "type": "table"}])}})
    _put_files(files)


def _put(event: Event) -> None:
    _active.get().box.put(event | {"time": _now()})


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


def _put_files(files: Mapping[str, Path]) -> None:
    for folder, path in files.items():
        _put({"file": _active.get().box.keep(path), "to": folder})


def _put_text(name: str, text: str, folder: str) -> None:
    _put({"file": _active.get().box.keep_bytes(name, f"{text}\n".encode()), "to": folder})


def _about(experiment: str, tag: str, value: str, name: str) -> Event:
    """What it takes to find a run or to make it: store, experiment, the tag that is its identity, its first tags."""
    tags = resolve_tags({"mlflow.runName": name, tag: value})
    identity = [tag, value]
    return {
        "store": address(),
        "experiment": experiment,
        "identity": identity,
        "tags": tags,
        "time": _now(),
        "over": False,
    }


@contextlib.contextmanager
def _logging(about: Event, run_id: str = "") -> Iterator[None]:
    """An outbox for what is logged inside, and a thread that empties it."""
    box = Outbox.create(UNSENT / f"{about['time']}-{uuid.uuid4().hex[:8]}", about)
    courier = Courier(box, Delivery(run_id), f"MLflow at {address()}")
    token = _active.set(_Active(box))
    courier.start()
    try:
        yield
    finally:
        _active.reset(token)
        courier.close()


@contextlib.contextmanager
def _active_in_mlflow(run_id: str) -> Iterator[None]:
    """MLflow's active run; its duration stays that of the training."""
    client = mlflow.MlflowClient()
    end = client.get_run(run_id).info.end_time
    with mlflow.start_run(run_id):
        yield
    client.set_terminated(run_id, end_time=end)


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """The active run's last status."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except SystemExit:
        status = "KILLED"
        raise
    finally:
        _put({"status": status})


@contextlib.contextmanager
def _system_metrics() -> Iterator[None]:
    """CPU, memory, disk, network and GPU while the active run lasts, at the steps it has reached; MLflow's own probes.

    MLflow's own thread gives up when the store does not answer once.
    """
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # no GPU, no driver
        monitors.append(GPUMonitor())
    active, over = _active.get(), threading.Event()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_SYSTEM_METRICS):
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            active.box.put({"metrics": values, "step": active.step, "time": _now()})

    thread = threading.Thread(target=watch, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 9}} -> {"train.steps": 9}: flat names can be searched and compared in the UI."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def provenance() -> dict[str, str]:
    """Tags that say which code and which DVC state a run comes from."""
    tags = {}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["mlflow.source.git.commit"] = _git("rev-parse", "HEAD")
        tags["git_changes"] = "yes" if _git("status", "--porcelain", "--untracked-files=no") else "no"
    with contextlib.suppress(OSError):
        tags["dvc_lock_sha256"] = hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest()
    return tags


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def environment() -> str:
    """The Python and the packages that run this, as a requirements file."""
    packages = {f"{each.metadata['Name']}=={each.version}" for each in distributions()}
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *sorted(packages, key=str.lower)])


def dataset(card: Card) -> dict[str, str]:
    """The data set as MLflow shows it: name, the test split's fingerprint as digest, counts as profile."""
    return {
        "name": card.dataset,
        "digest": card.splits["test"].fingerprint[:16],
        "source_type": "local",
        "source": json.dumps({"uri": f"data/prepared/{card.dataset}", "homepage": card.homepage}),
        "schema": json.dumps({"shape": list(card.shape), "levels": card.levels, "classes": len(card.classes)}),
        "profile": json.dumps({name: split.num_images for name, split in card.splits.items()}),
    }


if __name__ == "__main__":
    print(f"sent to {address()}: what had waited of {send_unsent()} runs")
