"""The MLflow store: connect to it, and send it what it lacks of the records on disk.

The store is MLFLOW_TRACKING_URI, by default a SQLite file beside params.yaml, which needs no server. A tag on each run
says how much of its record the store has, so any store can be completed: one that was down, a replacement, or another.
Sending is idempotent, since MLflow stores a point of the same name, step, time and value once. Nothing is deleted.
"""

import contextlib
import json
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from PIL import Image, UnidentifiedImageError

from pixelcnn.files import message
from pixelcnn.tracking import records
from pixelcnn.tracking.records import Event, Record

LOCAL_STORE, LOCAL_ARTIFACTS = records.LOCAL_STORE, records.LOCAL_ARTIFACTS

TRAINING_TAG, WEIGHTS_TAG = "training", "weights_sha256"  # identify the run of a training, and of weights
# The view that the UI opens with `?viewStateShareKey=results`: runs sorted by test bits/dim, with the main columns
VIEW = {
    "orderByKey": "metrics.`test_bits_per_dim`",
    "orderByAsc": True,
    "selectedColumns": [
        "attributes.`Duration`",
        *[f"metrics.`{key}`" for key in ("test_bits_per_dim", "test_standard_error", "usage/num_parameters")],
        *[f"params.`model.{key}`" for key in ("condition", "name", "num_layers", "hidden_channels")],
        "tags.`given`",  # also of runs that no training here has logged params of
    ],
}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # the UI shows training runs first, not traces of LLMs
    "mlflow.sharedViewState.results": json.dumps(VIEW),
}
REFUSALS = (400, 404, 409, 413)  # HTTP status codes after which a retry is useless


# It prints tracebacks of errors that it also raises, such as those of a full disk
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class Deleted(ValueError):
    """A run or an experiment that somebody has deleted in MLflow; it is not created again."""


def connect(experiment: str) -> mlflow.MlflowClient:
    """Set the store and the experiment, create them if they are missing, and send what the store lacks.

    Raises ConnectionError if the store does not answer, after two minutes at most; Deleted for a deleted experiment.
    """
    with answering():
        client, _ = open_experiment(experiment)
        mlflow.set_experiment(experiment)
        sync()
    return client


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn MLflow's errors about a store that does not answer into a ConnectionError that names the store.

    The same for a kind of store that MLflow does not support, such as any database in mlflow-skinny.
    """
    try:
        yield
    except (UnsupportedModelRegistryStoreURIException, ModuleNotFoundError) as error:
        raise ConnectionError(f"MLflow cannot use {address()} here: {str(error).strip().splitlines()[0]}") from None
    except MlflowException as error:
        if _refused(error):
            raise
        raise ConnectionError(f"MLflow at {address()} does not answer: {reason(error)}") from None
    except Exception as error:  # of SQLAlchemy, which mlflow-skinny lacks: two processes create a database's tables
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        raise ConnectionError(f"MLflow cannot use {address()}: {reason(error)}; try again") from None


def reason(error: Exception) -> str:
    """The line of an error that says what is wrong, which is not the first one of SQLAlchemy's."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a result of ")]
    return (lines or [type(error).__name__])[0]


def address() -> str:
    """The URI of the store, without a user name and password."""
    parts = urlsplit(_uri())
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else _uri()


def _uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", _local_uri())


def _local_uri() -> str:
    return f"sqlite:///{LOCAL_STORE}"


def existing() -> mlflow.MlflowClient:
    """A client of the existing store. ValueError if the local file does not exist yet."""
    if not is_there():
        raise ValueError(f"{LOCAL_STORE}: no such file: nothing has been trained or registered here; run `dvc repro`")
    with _creation_lock():
        return _client()


def is_there() -> bool:
    """Whether the local store exists; a server is assumed to."""
    return not _is_local() or LOCAL_STORE.exists()


def _is_local() -> bool:
    return _uri() == _local_uri()


@contextlib.contextmanager
def _creation_lock() -> Iterator[None]:
    """A lock on the local store, so that two processes do not both create its tables or the same run.

    Raises ConnectionError where this user may not use the local store's files.
    """
    if not _is_local():
        yield
        return
    try:
        with FileLock(f"{LOCAL_STORE.resolve()}.lock"):
            yield
    except (PermissionError, sqlite3.Error) as error:
        raise ConnectionError(f"MLflow cannot use {address()}: {message(error)}") from None


def _client() -> mlflow.MlflowClient:
    """The store's client, after creating the tables of a new SQLite file."""
    if not is_there():
        _create_tables(LOCAL_STORE.resolve())
    elif _is_local():
        _make_relative()
    _set_tracking_uri()
    return mlflow.MlflowClient()


def _set_tracking_uri() -> None:
    """Name the local store by its full path: MLflow caches the connection of a URI even if the process changes folders.

    MLflow also sets MLFLOW_TRACKING_URI, which would then override another folder's store, so it is restored.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(f"sqlite:///{LOCAL_STORE.resolve()}" if _is_local() else _uri())
    if given is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = given


def _create_tables(path: Path) -> None:
    """Create a SQLite store under a temporary name, and rename it: MLflow cannot repair an incomplete file."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    part = path.with_name(f".{path.name}.part")
    for left in path.parent.glob(f"{part.name}*"):  # by a process that was killed at this point
        left.unlink()
    engine = create_sqlalchemy_engine(f"sqlite:///{part}")
    _initialize_tables(engine)
    engine.dispose()
    with contextlib.closing(sqlite3.connect(part)) as database:
        # Stored in the file: writers do not wait for readers, 3 ms instead of 20 ms
        database.execute("pragma journal_mode=wal")
    part.rename(path)


def open_experiment(name: str) -> tuple[mlflow.MlflowClient, str]:
    """The store's client and the experiment's id, created if missing. Raises Deleted if somebody deleted it."""
    with _creation_lock():
        client = _client()
        found: Experiment | None = client.get_experiment_by_name(name)
        if found is None:
            return client, _create_experiment(client, name)
    for key, value in EXPERIMENT_TAGS.items():  # of an earlier release
        if found.lifecycle_stage == "active" and found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    if found.lifecycle_stage == "deleted":
        restore = f"MLFLOW_TRACKING_URI={address()} mlflow experiments restore -x {found.experiment_id}"
        raise Deleted(
            f"the MLflow experiment {name} was deleted, so nothing can be logged for that data set: `{restore}` "
            "restores it, and `mlflow gc` (docs/mlflow.md) removes it for good, after which a new one is made"
        )
    return client, found.experiment_id


def _create_experiment(client: mlflow.MlflowClient, name: str) -> str:
    """A new experiment. In a local store its artifacts are located relative to this folder, which may be moved."""
    location = str(LOCAL_ARTIFACTS / name) if _is_local() else None
    made: str = client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
    if location:  # MLflow has made it absolute; runs and models inherit what is written here
        with contextlib.closing(sqlite3.connect(LOCAL_STORE)) as database, database:
            database.execute("update experiments set artifact_location = ? where experiment_id = ?", (location, made))
    return made


# Columns in which the local store keeps the locations of artifacts
LOCATIONS = [
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
]


def _make_relative() -> None:
    """Make the locations in a store of the first release relative to its folder, which may have been moved or copied.

    Only for experiments whose artifacts are here, under mlruns/.
    """
    with contextlib.closing(sqlite3.connect(LOCAL_STORE)) as database, database:
        absolute = database.execute(
            "select name, artifact_location from experiments where artifact_location like '%:/%' or "
            "artifact_location like '/%'"
        ).fetchall()
        for name, location in absolute:
            end = f"{LOCAL_ARTIFACTS}/{name}"
            if not location.endswith(f"/{end}") or not Path(end).exists():
                continue
            root = location.removesuffix(end)
            for table, column in LOCATIONS:
                database.execute(
                    f"update {table} set {column} = substr({column}, ?) where {column} like ? escape '!'",
                    (len(root) + 1, re.sub("([!%_])", r"!\1", root + end) + "%"),
                )


def _refused(error: MlflowException) -> bool:
    """Whether the store has answered and a retry is useless."""
    return error.get_http_status_code() in REFUSALS


def sync() -> int:
    """Send the store what it lacks of the records on disk; returns the number of records that were incomplete there.

    Records that another process holds are left to that process, and runs that somebody deleted in MLflow stay deleted.
    Raises what MLflow raises when the store does not answer.
    """
    records.adopt_outboxes()
    sent = 0
    for experiment, group in groupby(sorted(records.every(), key=_experiment), _experiment):
        with contextlib.suppress(Deleted):
            has = _sizes(experiment)
            sent += sum(_send_unheld(record) for record in group if has.get(_mark(record)) != record.size)
    return sent


def _experiment(record: Record) -> str:
    name: str = record.about["experiment"]
    return name


def _mark(record: Record) -> str:
    """The tag of a run that says how many bytes of a record's events the store has."""
    return f"record.{record.folder.name}"


def _sizes(experiment: str) -> dict[str, int]:
    """How many bytes the store has of each record, by mark; without runs still marked RUNNING, killed ones included."""
    _, experiment_id = open_experiment(experiment)
    runs = mlflow.search_runs([experiment_id], run_view_type=ViewType.ALL, max_results=50_000, output_format="list")
    over = [run for run in runs if run.info.status != "RUNNING"]
    return {key: int(value) for run in over for key, value in run.data.tags.items() if key.startswith("record.")}


def _send_unheld(record: Record) -> bool:
    """Send a record unless a process holds it. A training that nobody holds but is marked RUNNING was killed."""
    with contextlib.suppress(BlockingIOError, Deleted), record.locked():
        last = record.last_status
        if last.get("status") == "RUNNING":
            record.put({"status": "KILLED", "time": last["time"]})
        Sender(record).send()
        return True
    return False


class Sender:
    """Sends a record to the store, from where the store's copy ends."""

    def __init__(self, record: Record):
        self.record, self.run_id, self.sent = record, "", 0

    def send(self) -> None:
        """Send all entries so far. What the store refuses for good is left out with a message.

        Raises what MLflow raises when the store does not answer, and Deleted if the run was deleted.
        """
        client = mlflow.MlflowClient()
        if not self.run_id:
            self.run_id, self.sent = find_or_create(self.record)
        for events, end in self.record.chunks(self.sent):
            for event in events:
                for kind in SENDERS.keys() & event.keys():
                    with self._leaving_out(kind):
                        SENDERS[kind](client, self.run_id, event, self.record.folder)
            self._send_batch(client, events)
            client.set_tag(self.run_id, _mark(self.record), end)
            self.sent = end

    def _send_batch(self, client: mlflow.MlflowClient, events: Sequence[Event]) -> None:
        points = [Metric(k, v, e["time"], e["step"]) for e in events for k, v in e.get("metrics", {}).items()]
        given = [item for event in events for item in event.get("params", {}).items()]
        params = [Param(key, value) for key, value in dict.fromkeys(given)]  # each start of a training logs them again
        tags = [RunTag(key, value) for event in events for key, value in event.get("tags", {}).items()]
        batches: list[dict[str, Any]] = []
        for kind, values, most in (("metrics", points, 1000), ("params", params, 100), ("tags", tags, 100)):
            batches += [{kind: values[start : start + most]} for start in range(0, len(values), most)]
        for batch in batches:
            with self._leaving_out(next(iter(batch))):
                client.log_batch(self.run_id, **batch)

    @contextlib.contextmanager
    def _leaving_out(self, kind: str) -> Iterator[None]:
        """Print a message and go on if the store refuses something for good, but not if the run was deleted."""
        try:
            yield
        except (MlflowException, UnidentifiedImageError, FileNotFoundError) as error:
            if isinstance(error, MlflowException) and not _refused(error):
                raise
            _refuse_deleted(mlflow.MlflowClient().get_run(self.run_id))
            reason = str(error).splitlines()[0]
            print(f"MLflow has no {kind} that {self.record.folder} holds: {reason}", file=sys.stderr, flush=True)


def find_or_create(record: Record) -> tuple[str, int]:
    """The id of a record's run, created if there is none, and the number of bytes that the store has of the record."""
    about = record.about
    client, experiment_id = open_experiment(about["experiment"])
    tag, value = about["identity"]
    with _creation_lock():
        found = client.search_runs([experiment_id], f"tags.{tag} = '{value}'", ViewType.ALL, max_results=1)
        run: Run = found[0] if found else client.create_run(experiment_id, about["time"], about["tags"])
    _refuse_deleted(run)
    if about["over"] and not found:
        client.set_terminated(run.info.run_id, end_time=about["time"])
    return run.info.run_id, int(run.data.tags.get(_mark(record), 0))


def _refuse_deleted(run: Run) -> None:
    if run.info.lifecycle_stage == "deleted":
        name = run.info.run_name
        raise Deleted(f"the run {name} was deleted in MLflow; once it is restored `pixelcnn runs sync` adds the rest")


def _send_status(client: mlflow.MlflowClient, run_id: str, event: Event, _: Path) -> None:
    if event["status"] == "RUNNING":
        client.update_run(run_id, "RUNNING")
    else:
        client.set_terminated(run_id, event["status"], event["time"])


def _send_dataset(client: mlflow.MlflowClient, run_id: str, event: Event, _: Path) -> None:
    context = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run_id, [DatasetInput(Dataset(**event["dataset"]), context)])


def _send_file(client: mlflow.MlflowClient, run_id: str, event: Event, folder: Path) -> None:
    client.log_artifact(run_id, str(folder / event["file"]), event["to"] or None)


def _send_picture(client: mlflow.MlflowClient, run_id: str, event: Event, folder: Path) -> None:
    """Send a picture only once: MLflow gives each upload a new name. It stores the thumbnail last."""
    name = re.escape(f"{event['name'].replace('/', '~')}+step+{event['step']}+timestamp+{event['time']}+")
    if any(re.match(f"images/{name}.*compressed", item.path) for item in client.list_artifacts(run_id, "images")):
        return
    with Image.open(folder / event["picture"]) as image:
        image.load()
    where = {"key": event["name"], "step": event["step"], "timestamp": event["time"]}
    client.log_image(run_id, image, synchronous=True, **where)


# By the key of an event; points, params and tags go in batches
SENDERS: dict[str, Callable[[mlflow.MlflowClient, str, Event, Path], None]] = {
    "status": _send_status,
    "dataset": _send_dataset,
    "file": _send_file,
    "picture": _send_picture,
}
