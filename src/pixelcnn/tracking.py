"""The only door to MLflow tracking. An experiment is a data set; a run is one training, and what is measured on it.

Where: MLFLOW_TRACKING_URI, else a SQLite file beside params.yaml, which needs no server. A run is found again by its
checkpoint's run id while it trains, and by the hash of its weights afterwards, so no id enters a DVC output.
"""

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # what it makes and starts is no news to a user

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag

from pixelcnn.data.datasets import Card

LOCAL_STORE = Path("mlflow.db")
LOCAL_ARTIFACTS = Path("mlruns")
WEIGHTS_TAG = "weights_sha256"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI shows trainings first, not chats


def connect(experiment: str) -> mlflow.MlflowClient:
    """Choose the store and the experiment, making both where they are missing."""
    local = "MLFLOW_TRACKING_URI" not in os.environ
    if local:
        mlflow.set_tracking_uri(f"sqlite:///{LOCAL_STORE}")
    client = mlflow.MlflowClient()
    # Processes that meet a new SQLite file at the same time would all create its tables and fail
    with FileLock(f"{LOCAL_STORE}.lock") if local else contextlib.nullcontext():
        new = local and not LOCAL_STORE.exists()
        if client.get_experiment_by_name(experiment) is None:
            folder = (LOCAL_ARTIFACTS / experiment).resolve().as_uri() if local else None
            client.create_experiment(experiment, artifact_location=folder, tags=EXPERIMENT_TAGS)
        if new:  # write-ahead logging stays with the file: writers no longer wait for readers, 20 ms become 3 ms
            with contextlib.closing(sqlite3.connect(LOCAL_STORE)) as database:
                database.execute("pragma journal_mode=wal")
    mlflow.set_experiment(experiment)
    return client


@contextlib.contextmanager
def training_run(
    name: str, description: str, params: Mapping[str, Any], card: Card, run_id: str | None
) -> Iterator[str]:
    """The MLflow run of a training: a new one, or `run_id` continued where this store knows it. Yields the run's id.

    Ends as FINISHED, as KILLED after a signal (SystemExit), as FAILED after any other exception.
    """
    client = connect(card.dataset)
    known = run_id if run_id and _exists(client, run_id) else None
    mlflow.start_run(run_id=known, run_name=name, description=description, log_system_metrics=True)
    run = mlflow.active_run()
    assert run is not None
    status = "FAILED"
    try:
        if known is None:
            mlflow.log_params(flatten(params))
            mlflow.set_tags(provenance())
            client.log_inputs(run.info.run_id, [dataset_input(card)])
        yield run.info.run_id
        status = "FINISHED"
    except SystemExit:
        status = "KILLED"
        raise
    finally:
        mlflow.flush_async_logging()
        mlflow.end_run(status)


def log(values: Mapping[str, float], step: int) -> None:
    """Metrics of the active run; returns at once, a background thread writes."""
    mlflow.log_metrics(dict(values), step=step, synchronous=False)


def finish(values: Mapping[str, float], weights_sha256: str, files: Mapping[str, Path]) -> None:
    """A training's summary: final metrics, the weights' identity, and files by the artifact folder they go to."""
    mlflow.log_metrics(dict(values))
    mlflow.set_tag(WEIGHTS_TAG, weights_sha256)
    for folder, path in files.items():
        mlflow.log_artifact(str(path), folder)


@contextlib.contextmanager
def run_of_weights(dataset: str, weights_sha256: str, name: str) -> Iterator[str]:
    """The MLflow run that made these weights, active; a new run where this store does not know them.

    After a clone and `dvc pull` the models are there and the store is empty: then the new run adopts them.
    """
    client = connect(dataset)
    experiment = client.get_experiment_by_name(dataset)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.{WEIGHTS_TAG} = '{weights_sha256}'", max_results=1)
    with mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=name) as run:
        if not found:
            mlflow.set_tags({WEIGHTS_TAG: weights_sha256, "adopted": "weights came from DVC, not from a training here"})
        yield run.info.run_id


def measured(values: Mapping[str, float], table: list[dict[str, Any]], files: Mapping[str, Path]) -> None:
    """What was measured on the active run's weights: metrics, a table of rows, and files by artifact folder."""
    mlflow.log_metrics(dict(values))
    mlflow.log_table({column: [row[column] for row in table] for column in table[0]}, "scores.json")
    for folder, path in files.items():
        mlflow.log_artifact(str(path), folder)


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
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags


def dataset_input(card: Card) -> DatasetInput:
    """The data set as MLflow shows it: name, the test split's fingerprint as digest, counts as profile."""
    profile = {name: split.num_images for name, split in card.splits.items()}
    dataset = Dataset(
        name=card.dataset,
        digest=card.splits["test"].fingerprint[:16],
        source_type="local",
        source=json.dumps({"uri": f"data/prepared/{card.dataset}", "homepage": card.homepage}),
        schema=json.dumps({"shape": list(card.shape), "levels": card.levels, "classes": len(card.classes)}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _exists(client: mlflow.MlflowClient, run_id: str) -> bool:
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except mlflow.MlflowException:
        return False
