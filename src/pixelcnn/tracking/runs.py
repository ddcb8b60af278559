"""MLflow runs. Each data set is an experiment; each run is one training, with everything measured on its weights.

Logging appends to a record on disk (pixelcnn.tracking.records), and a thread sends new entries to the store, so a slow
or dead store costs a training neither time nor data. A store that was down, a machine without a network and a killed
process are one case: the next stage or `pixelcnn runs sync` sends the rest. A tag identifies a run: during training an
id in its record and its checkpoint, afterwards the sha256 of the weights. So no MLflow id enters a DVC output.

Names in MLflow: "training/..." are curves over steps, "system/..." the utilisation of the machine (only in the store,
not in records), "usage/..." the cost of the training, "given_code/..." and "given_embedding/..." results that are not
comparable with the others. Names without such a prefix are results.
"""

import contextlib
import json
import platform
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import mlflow
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.registry import resolve_tags

from pixelcnn.config import Given
from pixelcnn.data.dataset import DatasetInfo
from pixelcnn.files import sha256_of
from pixelcnn.tracking import records, store
from pixelcnn.tracking.records import Event, Record
from pixelcnn.tracking.store import TRAINING_TAG, WEIGHTS_TAG, Sender

MADE = ("dvc.lock", "reports")  # written by stages: changes here are results, not changes of code or params
EXPERIMENT_TAG = "dvc_experiment"
INTERVAL, MAX_INTERVAL = 2.0, 60.0  # seconds between uploads; grows to MAX while the store does not answer
CLOSE_TIMEOUT = 60.0  # seconds that a training waits at its end for the last upload
PATIENCE = 60.0  # seconds that a training waits at its start for another process that is sending its record


class RunLog:
    """Logs to one MLflow run. Every method appends to the run's record, which takes well under 1 ms."""

    def __init__(self, record: Record):
        """Find the last logged step: a resumed training repeats the steps since its checkpoint, logged already."""
        self.record = record
        points = [event for event in record.events() if "step" in event]
        self.logged = max((p["step"] for p in points if "metrics" in p), default=0)
        self.pictured = max((p["step"] for p in points if "picture" in p), default=0)

    @property
    def training(self) -> str:
        """The id to pass to `training_run` when this training resumes."""
        value: str = self.record.about["identity"][1]
        return value

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log a point of each training curve at a step, once."""
        if step > self.logged:
            self._put({"metrics": {f"training/{key}": value for key, value in values.items()}, "step": step})

    def log_picture(self, name: str, path: Path, step: int) -> None:
        """Log an image file at a step, once; MLflow shows these beside the curves, with a slider over steps."""
        if step > self.pictured:
            self._put({"picture": self.record.attach(path), "name": f"training/{name}", "step": step})

    def finish(self, values: Mapping[str, float], weights_sha256: str, files: Mapping[str, Path]) -> None:
        """Log a finished training: its cost, the sha256 of its weights, and files by artifact folder.

        Bits/dim are left out: the curves have them, and evaluation measures them on these weights.
        """
        usage = {f"usage/{key}": value for key, value in values.items() if not key.endswith("bits_per_dim")}
        self._put({"metrics": usage, "step": 0})
        self._put({"tags": {WEIGHTS_TAG: weights_sha256}})
        self.log_files(files)

    def measured(self, scores: Mapping[str, Mapping[str, float | None]], given: Given) -> None:
        """Log the scores of the run's weights by split, and what the model is given.

        Bits/dim not comparable with those of p(x) have separate names, and so never lead a sorted table.
        """
        kind = "" if given.comparable else f"given_{given}/"
        values = {f"{kind}{split}_bits_per_dim": score["bits_per_dim"] for split, score in scores.items()}
        if (error := scores["test"].get("standard_error")) is not None:
            values[f"{kind}test_standard_error"] = error
        self._put({"metrics": values, "step": 0})
        rows = {"columns": ["split", *scores["test"]], "data": [[split, *s.values()] for split, s in scores.items()]}
        self._put_text("scores.json", json.dumps(rows), "")
        table = json.dumps([{"path": "scores.json", "type": "table"}])
        self._put({"tags": {"given": str(given), "mlflow.loggedArtifacts": table}})

    def log_files(self, files: Mapping[str, Path]) -> None:
        """Log files by artifact folder, as they are now."""
        for folder, path in files.items():
            self._put({"file": self.record.attach(path), "to": folder})

    def begin(self, params: Mapping[str, Any], info: DatasetInfo) -> None:
        """Log the start of a training: params, data set, environment."""
        self._put({"status": "RUNNING"})
        self._put({"params": {key: str(value) for key, value in flatten(params).items()}})
        self._put({"dataset": dataset(info)})
        self._put_text("config.json", json.dumps(params, indent=2), "environment")
        self._put_text("requirements.txt", environment(), "environment")

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Log the final status when the context ends."""
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except SystemExit:
            status = "KILLED"
            raise
        finally:
            self._put({"status": status})

    def _put(self, event: Event) -> None:
        self.record.put(event | {"time": _now()})

    def _put_text(self, name: str, text: str, folder: str) -> None:
        self._put({"file": self.record.attach_bytes(name, f"{text}\n".encode()), "to": folder})


def _now() -> int:
    """Milliseconds since 1970, MLflow's unit of time."""
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def training_run(
    name: str,
    description: str,
    params: Mapping[str, Any],
    info: DatasetInfo,
    training: str | None,
    checkpoint: str,
    experiment: str = "",
) -> Iterator[RunLog]:
    """The run of a training: an earlier one resumed if `training` is its id or if a record says that a training with
    this checkpoint was killed, otherwise a new one.

    checkpoint: the name under which this training saves, unique to its params and data. experiment: the name of the DVC
    experiment that trains, if any, for the run's name and a tag.
    The final status is FINISHED, KILLED after a signal (SystemExit), or FAILED after any other exception. Raises
    ValueError if the data set's experiment was deleted in MLflow. If the store does not answer, nothing is raised, and
    the end waits for it at most a minute.
    """
    with contextlib.suppress(ConnectionError), store.answering():
        store.open_experiment(info.dataset)
    run_name = f"{name}, {experiment}" if experiment else name
    about = _about(info.dataset, (TRAINING_TAG, training or uuid.uuid4().hex), run_name)
    about["tags"] |= {"mlflow.note.content": description} | provenance()
    about["tags"] |= {EXPERIMENT_TAG: experiment} if experiment else {}
    record = _begun(training, checkpoint) or Record.create(about | {"checkpoint": checkpoint})
    with record.locked(PATIENCE):
        run = RunLog(record)
        run.begin(params, info)
        with _live(record), run.ending():
            yield run


def _begun(training: str | None, checkpoint: str) -> Record | None:
    """The record of an earlier start of this training, if it is on this machine and no process holds it."""
    if training is not None:
        return records.find(identity=[TRAINING_TAG, training])
    found = records.find(checkpoint=checkpoint)
    with contextlib.suppress(BlockingIOError):
        if found is not None and found.last_status.get("status") in ("RUNNING", "KILLED"):
            with found.locked(PATIENCE):
                return found
    return None


@contextlib.contextmanager
def run_of_weights(dataset: str, weights_sha256: str, name: str) -> Iterator[RunLog]:
    """The run that trained these weights; a new one if the store has none.

    A new run is tagged `adopted`: after a clone and `dvc pull` there are models but no runs. The log is sent at the
    end; if the store does not answer, it waits on disk and a line says so.
    """
    run = RunLog(_record_of_weights(dataset, weights_sha256, name))
    yield run
    try:
        store.connect(dataset)
    except (ConnectionError, store.Deleted) as error:
        print(f"{error}; what was logged waits in {run.record.folder}", file=sys.stderr, flush=True)


def _record_of_weights(dataset: str, weights_sha256: str, name: str) -> Record:
    about = _about(dataset, (WEIGHTS_TAG, weights_sha256), name) | {"over": True}
    about["tags"]["adopted"] = "weights came from DVC, not from a training here"
    return records.find(experiment=dataset, identity=about["identity"]) or Record.create(about)


@contextlib.contextmanager
def active_in_mlflow(dataset: str, weights_sha256: str, name: str) -> Iterator[str]:
    """Make the run of these weights MLflow's active run; afterwards restore its end time, that of the training.

    Yields its id. Raises ConnectionError if the store does not answer.
    """
    with store.answering():
        run_id, _ = store.find_or_create(_record_of_weights(dataset, weights_sha256, name))
    client = mlflow.MlflowClient()
    end = client.get_run(run_id).info.end_time
    with mlflow.start_run(run_id):
        yield run_id
    client.set_terminated(run_id, end_time=end)


def _about(experiment: str, identity: tuple[str, str], name: str) -> Event:
    """What store.find_or_create needs: experiment, the identifying tag, and the time and tags of a new run."""
    return {
        "experiment": experiment,
        "identity": list(identity),
        "tags": resolve_tags({"mlflow.runName": name, identity[0]: identity[1]}),
        "time": _now(),
        "over": False,  # whether a new run is ended at once
    }


@contextlib.contextmanager
def _live(record: Record) -> Iterator[None]:
    """Send a record to the store in a thread, within this context."""
    live = Live(record)
    live.start()
    try:
        yield
    finally:
        live.close()


class Live(threading.Thread):
    """Sends a record periodically, and the machine's utilisation by MLflow's own monitor while the store answers."""

    def __init__(self, record: Record):
        super().__init__(name="MLflow", daemon=True)
        self.record, self.sender = record, Sender(record)
        self.closing = threading.Event()
        self.monitor: SystemMetricsMonitor | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        """Send until closed, then once more. When the store first answers, also send records that others left."""
        interval = INTERVAL
        while True:
            last = self.closing.is_set()  # read before sending, so that the last sending has every event
            if last and self.monitor is not None:
                self.monitor.finish()
            try:
                self.sender.send()
                if self.monitor is None:
                    self._on_first_answer()
                interval = INTERVAL
                self._report(None)
            except Exception as error:
                interval = min(2 * interval, MAX_INTERVAL)
                self._report(error)
            if last:
                return
            self.closing.wait(interval)

    def close(self) -> None:
        """Send the rest within CLOSE_TIMEOUT; if that fails, a message says where it waits."""
        self.closing.set()
        self.join(CLOSE_TIMEOUT)
        if self.failure is not None or self.is_alive():
            waits = f"the rest waits in {self.record.folder}; `pixelcnn runs sync` sends it"
            print(f"MLflow at {store.address()} has not taken everything; {waits}", file=sys.stderr, flush=True)

    def _on_first_answer(self) -> None:
        store.sync()
        self.monitor = SystemMetricsMonitor(self.sender.run_id, resume_logging=True)
        self.monitor.start()

    def _report(self, error: Exception | None) -> None:
        """Print a line when sending begins to fail, and when it succeeds again."""
        at = f"MLflow at {store.address()}"
        if error is not None and self.failure is None:
            print(
                f"{at} does not answer ({store.reason(error)[:200]}); going on, trying again",
                file=sys.stderr,
                flush=True,
            )
        if error is None and self.failure is not None:
            print(f"{at} answers again", file=sys.stderr, flush=True)
        self.failure = error


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
    """Tags for the git commit, whether code or params had uncommitted changes, and the sha256 of dvc.lock."""
    tags = {}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["mlflow.source.git.commit"] = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *[f":!/{out}" for out in MADE])
        tags["git_changes"] = "yes" if changed else "no"
    with contextlib.suppress(OSError):
        tags["dvc_lock_sha256"] = sha256_of(Path("dvc.lock"))
    return tags


def commit() -> str:
    """The short git commit, with a "+" if there are uncommitted changes; "" outside a git repository."""
    tags = provenance()
    mark = "+" if tags.get("git_changes") == "yes" else ""
    return tags.get("mlflow.source.git.commit", "")[:7] + mark


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@cache
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
