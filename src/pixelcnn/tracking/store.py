"""The MLflow store: connecting to it, and delivering what an outbox holds.

The store is MLFLOW_TRACKING_URI, else a SQLite file beside params.yaml, which needs no server.
"""

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from PIL import Image

from pixelcnn.tracking.outbox import Event, Outbox, abandoned

LOCAL_STORE = Path("mlflow.db")
LOCAL_ARTIFACTS = Path("mlruns")
UNSENT = LOCAL_ARTIFACTS / "_unsent"  # the outboxes; a data set's name cannot begin with an underscore
# The view that the UI opens with `?viewStateShareKey=results`: runs sorted by test bits/dim, with the main columns
VIEW = {
    "orderByKey": "metrics.`test_bits_per_dim`",
    "orderByAsc": True,
    "selectedColumns": [
        "attributes.`Duration`",
        *[f"metrics.`{split}_bits_per_dim`" for split in ("test", "validation", "train")],
        "metrics.`test_standard_error`",
        "metrics.`usage/num_parameters`",
        *[f"params.`model.{key}`" for key in ("name", "condition", "num_layers", "hidden_channels")],
    ],
}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # the UI shows training runs first, not traces of LLMs
    "mlflow.sharedViewState.results": json.dumps(VIEW),
}
MAX_METRICS, MAX_PARAMS = 1000, 100  # of one request
REFUSALS = (400, 404, 409)  # HTTP status codes after which a retry is of no use


def connect(experiment: str) -> mlflow.MlflowClient:
    """Set the store and the experiment, creating both where they are missing, and send what earlier processes left.

    Raises ConnectionError when the store does not answer, after two minutes at most.
    """
    with answering():
        client, _ = _open(experiment)
        mlflow.set_experiment(experiment)
        send_unsent()
    return client


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn MLflow's errors about a store that does not answer into a ConnectionError that names the store.

    The same for a store of a kind that MLflow does not support, as every database is to mlflow-skinny.
    """
    try:
        yield
    except UnsupportedModelRegistryStoreURIException as error:
        raise ConnectionError(f"MLflow cannot use {address()} here: {str(error).strip().splitlines()[0]}") from None
    except MlflowException as error:
        if _refused(error):
            raise
        raise ConnectionError(f"MLflow at {address()} does not answer: {str(error).splitlines()[0]}") from None


def address() -> str:
    """The URI of the store, without a user name and password."""
    parts = urlsplit(_uri())
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else _uri()


def _uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", _local_uri())


def _local_uri() -> str:
    return f"sqlite:///{LOCAL_STORE}"


def find_or_create(client: mlflow.MlflowClient, about: Event) -> str:
    """The id of the run with the tag `about["identity"]`, created where there is none, and ended if `about["over"]`."""
    _, experiment_id = _open(about["experiment"])
    tag, value = about["identity"]
    with _creation_lock():
        for run in client.search_runs([experiment_id], f"tags.{tag} = '{value}'", max_results=1):
            return run.info.run_id
        run_id = client.create_run(experiment_id, about["time"], about["tags"]).info.run_id
    if about["over"]:
        client.set_terminated(run_id, end_time=about["time"])
    return run_id


def send_unsent() -> int:
    """Deliver the outboxes that earlier processes left for this store; returns their number."""
    sent = 0
    for box in abandoned(UNSENT):
        if box.about["store"] == address():
            Delivery()(box)
            box.remove()
            sent += 1
    return sent


def existing() -> mlflow.MlflowClient:
    """A client of the store, which creates nothing. ValueError where the local file does not exist yet."""
    if not is_there():
        raise ValueError(f"{LOCAL_STORE}: no such file, so no model is registered; `dvc repro` does it")
    with _creation_lock():
        return _client()


def is_there() -> bool:
    """Whether the local store exists; a server's is assumed to."""
    return not _is_local() or LOCAL_STORE.exists()


def _is_local() -> bool:
    return _uri() == _local_uri()


def _creation_lock() -> contextlib.AbstractContextManager[Any]:
    """A lock on the local store, where two processes would both create the tables of a new file, or an unknown run."""
    return FileLock(f"{LOCAL_STORE}.lock") if _is_local() else contextlib.nullcontext()


def _client() -> mlflow.MlflowClient:
    """The store's client; it creates the tables of a new SQLite file at once."""
    new = not is_there()
    mlflow.set_tracking_uri(_uri())
    client = mlflow.MlflowClient()
    if new:  # write-ahead logging is a property of the file: writers do not wait for readers, 3 ms instead of 20 ms
        with contextlib.closing(sqlite3.connect(LOCAL_STORE)) as database:
            database.execute("pragma journal_mode=wal")
    return client


def _open(experiment: str) -> tuple[mlflow.MlflowClient, str]:
    """The store's client and the experiment's id, both created where they are missing."""
    with _creation_lock():
        client = _client()
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            return client, found.experiment_id
        folder = (LOCAL_ARTIFACTS / experiment).resolve().as_uri() if _is_local() else None
        return client, client.create_experiment(experiment, artifact_location=folder, tags=EXPERIMENT_TAGS)


def _refused(error: MlflowException) -> bool:
    """Whether the store has answered and a retry is of no use."""
    return error.get_http_status_code() in REFUSALS


class Delivery:
    """Sends an outbox's events to MLflow, in order. Raises what MLflow raises when it does not answer.

    Idempotent: MLflow stores a metric of the same name, step, time and value once.
    """

    def __init__(self, run_id: str = ""):
        self.run_id = run_id

    def __call__(self, box: Outbox) -> None:
        """Deliver the events; those that the store refuses for good are dropped with a message."""
        if not self.run_id:
            client, _ = _open(box.about["experiment"])
            send_unsent()
            self.run_id = find_or_create(client, box.about)
        for events in box.undelivered():
            for kind, same in groupby(events, lambda event: next(iter(event))):
                try:
                    SENDERS[kind](mlflow.MlflowClient(), self.run_id, list(same), box.folder)
                except MlflowException as error:
                    if not _refused(error):
                        raise
                    print(f"MLflow refuses {kind} of a run, so they are lost: {error}", file=sys.stderr, flush=True)


def _send_status(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], _: Path) -> None:
    for event in events:
        if event["status"] == "RUNNING":
            client.update_run(run_id, "RUNNING")
        else:
            client.set_terminated(run_id, event["status"], event["time"])


def _send_params(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], _: Path) -> None:
    params = [Param(key, value) for event in events for key, value in event["params"].items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS])


def _send_metrics(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], _: Path) -> None:
    points = [Metric(key, value, e["time"], e["step"]) for e in events for key, value in e["metrics"].items()]
    for start in range(0, len(points), MAX_METRICS):
        client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])


def _send_tags(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], _: Path) -> None:
    for event in events:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in event["tags"].items()])


def _send_dataset(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], _: Path) -> None:
    context = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run_id, [DatasetInput(Dataset(**event["dataset"]), context) for event in events])


def _send_files(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], folder: Path) -> None:
    for event in events:
        client.log_artifact(run_id, str(folder / event["file"]), event["to"] or None)


def _send_pictures(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], folder: Path) -> None:
    for event in events:
        with Image.open(folder / event["picture"]) as image:
            image.load()
        where = {"key": event["name"], "step": event["step"], "timestamp": event["time"]}
        client.log_image(run_id, image, synchronous=True, **where)


# By the first key of an event, which is its kind
SENDERS: dict[str, Callable[[mlflow.MlflowClient, str, Sequence[Event], Path], None]] = {
    "status": _send_status,
    "params": _send_params,
    "metrics": _send_metrics,
    "tags": _send_tags,
    "dataset": _send_dataset,
    "file": _send_files,
    "picture": _send_pictures,
}
