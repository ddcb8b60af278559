"""MLflow runs. An experiment is a data set; a run is one training and what is measured on its weights.

Logging appends to an outbox on disk, which a thread delivers to the store (pixelcnn.tracking.store), so that a store
that is slow or down costs a training neither time nor data. What is not delivered is sent by the next stage that
reaches the store, or by `python -m pixelcnn.tracking.runs`. A run is identified by a tag: during a training by an id
that the checkpoint holds, afterwards by the sha256 of the weights. So no MLflow id enters a DVC output.

Names in MLflow: "training/..." are curves over steps, "system/..." utilisation of the machine, "usage/..." the cost of
the training; a name without such a prefix is a result.
"""

import contextlib
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

import mlflow
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.tracking.context.registry import resolve_tags

from pixelcnn.data.dataset import DatasetInfo
from pixelcnn.files import sha256_of
from pixelcnn.tracking.outbox import DeliveryThread, Event, Outbox
from pixelcnn.tracking.store import UNSENT, Delivery, address, answering, connect, find_or_create, send_unsent

TRAINING_TAG, WEIGHTS_TAG, EXPERIMENT_TAG = "training", "weights_sha256", "dvc_experiment"
SYSTEM_METRICS_INTERVAL = 10.0  # seconds


@dataclass
class _Active:
    """The outbox of the active run, and the last step that was logged."""

    box: Outbox
    step: int = 0


_active: ContextVar[_Active] = ContextVar("the active run")


@contextlib.contextmanager
def training_run(
    name: str, description: str, params: Mapping[str, Any], info: DatasetInfo, run_id: str | None, experiment: str = ""
) -> Iterator[str]:
    """The run of a training: a new one where `run_id` is None, else the one that an earlier start yielded.

    experiment: the name of the DVC experiment that trains, if one does: it stands in the run's name, and in a tag.
    Yields the `run_id` of a later start. The run's status ends as FINISHED, as KILLED after a signal (SystemExit), as
    FAILED after any other exception. Raises nothing where the store does not answer, and ends a minute later at most.
    """
    training = run_id or uuid.uuid4().hex
    about = _about(info.dataset, TRAINING_TAG, training, f"{name}, {experiment}" if experiment else name)
    about["tags"] |= {"mlflow.note.content": description} | provenance()
    about["tags"] |= {EXPERIMENT_TAG: experiment} if experiment else {}
    with _logging(about):
        _put({"status": "RUNNING"})
        _put({"params": {key: str(value) for key, value in flatten(params).items()}})
        _put({"dataset": dataset(info)})
        _put_text("config.json", json.dumps(params, indent=2), "environment")
        _put_text("requirements.txt", environment(), "environment")
        with _ending(), _system_metrics():
            yield training


@contextlib.contextmanager
def run_of_weights(dataset: str, weights_sha256: str, name: str) -> Iterator[str]:
    """The run that trained these weights; a new one where the store has none with them.

    Yields its id. A new run is tagged `adopted`: after a clone and `dvc pull` there are models but no runs. Where the
    store does not answer the id is "", and what `measured` logs is delivered when it does.
    """
    about = _about(dataset, WEIGHTS_TAG, weights_sha256, name) | {"over": True}
    about["tags"]["adopted"] = "weights came from DVC, not from a training here"
    try:
        client = connect(dataset)
        with answering():
            run_id = find_or_create(client, about)
    except ConnectionError:
        run_id = ""
    with _logging(about, run_id):
        yield run_id


def log(values: Mapping[str, float], step: int) -> None:
    """Log a point of each training curve of the active run at a step."""
    _active.get().step = step
    _put({"metrics": {f"training/{key}": value for key, value in values.items()}, "step": step})


def log_picture(name: str, path: Path, step: int) -> None:
    """Log an image file of the active run at a step; MLflow shows these beside the curves, with a slider over steps."""
    _put({"picture": _active.get().box.attach(path), "name": f"training/{name}", "step": step})


def finish(values: Mapping[str, float], weights_sha256: str, files: Mapping[str, Path]) -> None:
    """Log a finished training: its cost, the sha256 of its weights, and files by artifact folder.

    Bits/dim are left out: the curves have them, and evaluation measures them on these weights.
    """
    usage = {f"usage/{key}": value for key, value in values.items() if not key.endswith("bits_per_dim")}
    _put({"metrics": usage, "step": 0})
    _put({"tags": {WEIGHTS_TAG: weights_sha256}})
    log_files(files)


def measured(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Log what was measured on the active run's weights: scores by split."""
    values = {f"{split}_bits_per_dim": score["bits_per_dim"] for split, score in scores.items()}
    _put({"metrics": values | {"test_standard_error": scores["test"]["standard_error"]}, "step": 0})
    rows = {"columns": ["split", *scores["test"]], "data": [[split, *s.values()] for split, s in scores.items()]}
    _put_text("scores.json", json.dumps(rows), "")
    _put({"tags": {"mlflow.loggedArtifacts": json.dumps([{"path": "scores.json", "type": "table"}])}})


def log_files(files: Mapping[str, Path]) -> None:
    """Log files of the active run by artifact folder, as they are now."""
    for folder, path in files.items():
        _put({"file": _active.get().box.attach(path), "to": folder})


def _put(event: Event) -> None:
    _active.get().box.put(event | {"time": _now()})


def _now() -> int:
    """Milliseconds since 1970, MLflow's unit of time."""
    return time.time_ns() // 1_000_000


def _put_text(name: str, text: str, folder: str) -> None:
    _put({"file": _active.get().box.attach_bytes(name, f"{text}\n".encode()), "to": folder})


def _about(experiment: str, tag: str, value: str, name: str) -> Event:
    """What store.find_or_create needs: store, experiment, the identifying tag, and the tags of a new run."""
    return {
        "store": address(),
        "experiment": experiment,
        "identity": [tag, value],
        "tags": resolve_tags({"mlflow.runName": name, tag: value}),
        "time": _now(),
        "over": False,  # whether a new run is ended at once
    }


@contextlib.contextmanager
def _logging(about: Event, run_id: str = "") -> Iterator[None]:
    """An outbox for what is logged in this context, and the thread that delivers it."""
    box = Outbox.create(UNSENT / f"{about['time']}-{uuid.uuid4().hex[:8]}", about)
    delivery = DeliveryThread(box, Delivery(run_id), f"MLflow at {address()}")
    token = _active.set(_Active(box))
    delivery.start()
    try:
        yield
    finally:
        _active.reset(token)
        delivery.close()


@contextlib.contextmanager
def active_in_mlflow(run_id: str) -> Iterator[None]:
    """Make the run MLflow's active one, and restore its end time: its duration is that of the training."""
    client = mlflow.MlflowClient()
    end = client.get_run(run_id).info.end_time
    with mlflow.start_run(run_id):
        yield
    client.set_terminated(run_id, end_time=end)


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Log the active run's final status."""
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
    """Log utilisation of CPU, memory, disk, network and GPU at the current step, by MLflow's monitors.

    Not by MLflow's own thread, which gives up the first time that the store does not answer.
    """
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # no GPU, no driver
        monitors.append(GPUMonitor())
    active, done = _active.get(), threading.Event()

    def watch() -> None:
        while not done.wait(SYSTEM_METRICS_INTERVAL):
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
        done.set()
        thread.join()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 9}} -> {"train.steps": 9}: MLflow's UI searches and compares flat names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def provenance() -> dict[str, str]:
    """Tags for the git commit, whether there were uncommitted changes, and the sha256 of dvc.lock."""
    tags = {}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["mlflow.source.git.commit"] = _git("rev-parse", "HEAD")
        tags["git_changes"] = "yes" if _git("status", "--porcelain", "--untracked-files=no") else "no"
    with contextlib.suppress(OSError):
        tags["dvc_lock_sha256"] = sha256_of(Path("dvc.lock"))
    return tags


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def environment() -> str:
    """The installed packages as a requirements file, with the versions of Python and the platform."""
    packages = {f"{each.metadata['Name']}=={each.version}" for each in distributions()}
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *sorted(packages, key=str.lower)])


def dataset(info: DatasetInfo) -> dict[str, str]:
    """The fields of an MLflow dataset: name, the test split's fingerprint as digest, image counts as profile."""
    return {
        "name": info.dataset,
        "digest": info.splits["test"].fingerprint[:16],
        "source_type": "local",
        "source": json.dumps({"uri": f"data/prepared/{info.dataset}", "homepage": info.homepage}),
        "schema": json.dumps({"shape": list(info.shape), "levels": info.levels, "classes": len(info.classes)}),
        "profile": json.dumps({name: split.num_images for name, split in info.splits.items()}),
    }


if __name__ == "__main__":
    print(f"sent to {address()}: what was unsent of {send_unsent()} runs")
