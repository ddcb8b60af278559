"""Where MLflow keeps runs, and how what an outbox holds gets there.

The store is MLFLOW_TRACKING_URI, else a SQLite file beside params.yaml, which needs no server.
"""

import contextlib
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # what it makes and starts is no news to a user
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds; MLflow's own 120 and 7 retries
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # are many minutes at a server that is down

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from PIL import Image

from pixelcnn.tracking.outbox import Event, Outbox, abandoned

# Without GitPython MLflow warns three times at each start; the commit comes from tracking.provenance all the same
logging.getLogger("mlflow.utils.git_utils").setLevel(logging.ERROR)

LOCAL_STORE = Path("mlflow.db")
LOCAL_ARTIFACTS = Path("mlruns")
UNSENT = LOCAL_ARTIFACTS / "_unsent"  # no data set's name begins so
# What the UI opens with `?viewStateShareKey=results`: the runs, best first, and what tells them apart
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
    "mlflow.experimentKind": "custom_model_development",  # the UI shows trainings first, not chats
    "mlflow.sharedViewState.results": json.dumps(VIEW),
}
MOST_METRICS, MOST_PARAMS = 1000, 100  # in one request
REFUSALS = (400, 404, 409)  # HTTP: the store has understood, and will never take it


def connect(experiment: str) -> mlflow.MlflowClient:
    """Choose the store and the experiment, making both where they are missing, and send first what waits for them.

    Raises ConnectionError when the store does not answer, which takes two minutes at most.
    """
    with answering():
        client, _ = _open(experiment)
        mlflow.set_experiment(experiment)
        send_unsent()
    return client


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """What MLflow raises when it does not answer becomes a ConnectionError, which names the store.

    So does its word that it cannot use the store at all, which mlflow-skinny has for every database.
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
    """The store, without the password that a URI may hold."""
    parts = urlsplit(_uri())
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else _uri()


def _uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", _local_uri())


def _local_uri() -> str:
    return f"sqlite:///{LOCAL_STORE}"


def find_or_make(client: mlflow.MlflowClient, about: Event) -> str:
    """The id of the run with the tag `about["identity"]`, made where there is none; ended if `about["over"]`."""
    _, experiment_id = _open(about["experiment"])
    tag, value = about["identity"]
    for run in client.search_runs([experiment_id], f"tags.{tag} = '{value}'", max_results=1):
        return run.info.run_id
    run_id = client.create_run(experiment_id, about["time"], about["tags"]).info.run_id
    if about["over"]:
        client.set_terminated(run_id, end_time=about["time"])
    return run_id


def send_unsent() -> int:
    """Send what earlier processes could not send to this store; the number of outboxes that it was in."""
    sent = 0
    for box in abandoned(UNSENT):
        if box.about["store"] == address():
            Delivery()(box)
            box.remove()
            sent += 1
    return sent


def existing() -> mlflow.MlflowClient:
    """The store as it is: unlike `connect`, makes nothing. ValueError where the local file is not there yet."""
    if not is_there():
        raise ValueError(f"{LOCAL_STORE}: no such file, so no model is registered; `dvc repro` does it")
    with _alone():
        return _client()


def is_there() -> bool:
    """Whether there is a store to ask: a server's is taken to be."""
    return not _is_local() or LOCAL_STORE.exists()


def _is_local() -> bool:
    return _uri() == _local_uri()


def _alone() -> contextlib.AbstractContextManager[Any]:
    """Held while a local store is opened: of processes that meet a new file together, all would make its tables."""
    return FileLock(f"{LOCAL_STORE}.lock") if _is_local() else contextlib.nullcontext()


def _client() -> mlflow.MlflowClient:
    """The store's client, which in a new SQLite file makes the tables at once."""
    new = not is_there()
    mlflow.set_tracking_uri(_uri())
    client = mlflow.MlflowClient()
    if new:  # write-ahead logging stays with the file: writers no longer wait for readers, 20 ms become 3 ms
        with contextlib.closing(sqlite3.connect(LOCAL_STORE)) as database:
            database.execute("pragma journal_mode=wal")
    return client


def _open(experiment: str) -> tuple[mlflow.MlflowClient, str]:
    """The store's client, and the experiment's id, both made where they are missing."""
    with _alone():
        client = _client()
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            return client, found.experiment_id
        folder = (LOCAL_ARTIFACTS / experiment).resolve().as_uri() if _is_local() else None
        return client, client.create_experiment(experiment, artifact_location=folder, tags=EXPERIMENT_TAGS)


def _refused(error: MlflowException) -> bool:
    """Whether the store answered, and trying again is of no use."""
    return error.get_http_status_code() in REFUSALS


class Delivery:
    """Brings an outbox's events to MLflow, in order. Raises what MLflow raises when it does not answer.

    Nothing is harmed by a second delivery: MLflow keeps a metric of the same name, step, time and value once.
    """

    def __init__(self, run_id: str = ""):
        self.run_id = run_id

    def __call__(self, box: Outbox) -> None:
        """Deliver what waits; what the store refuses for good is lost, and said."""
        if not self.run_id:
            client, _ = _open(box.about["experiment"])
            send_unsent()
            self.run_id = find_or_make(client, box.about)
        for events in box.waiting():
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
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + MOST_PARAMS])


def _send_metrics(client: mlflow.MlflowClient, run_id: str, events: Sequence[Event], _: Path) -> None:
    points = [Metric(key, value, e["time"], e["step"]) for e in events for key, value in e["metrics"].items()]
    for start in range(0, len(points), MOST_METRICS):
        client.log_batch(run_id, metrics=points[start : start + MOST_METRICS])


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
        place = {"key": event["name"], "step": event["step"], "timestamp": event["time"]}
        client.log_image(run_id, image, synchronous=True, **place)


# The first key of an event says what it is
SENDERS: dict[str, Callable[[mlflow.MlflowClient, str, Sequence[Event], Path], None]] = {
    "status": _send_status,
    "params": _send_params,
    "metrics": _send_metrics,
    "tags": _send_tags,
    "dataset": _send_dataset,
    "file": _send_files,
    "picture": _send_pictures,
}
