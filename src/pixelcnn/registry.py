"""The only door to the MLflow registry: a version per set of weights, aliases that say which one to use.

One registered model per (data set, task): versions of one name answer the same question, so their numbers compare.
Aliases: `champion`, the version with the lowest validation bits/dim; `challenger`, the newest of the others.
"""

from pixelcnn import tracking  # sets MLflow's switches, so it comes before MLflow itself

# isort: split

import os
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pixelcnn import checkpoint, config, pyfunc

CODE = Path(__file__).parent  # travels with each version, so that loading needs no installed pixelcnn
REQUIREMENTS = ["mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch"]
VALIDATION_TAG, FINGERPRINT_TAG = "validation_bits_per_dim", "validation_fingerprint"


@dataclass(frozen=True)
class Receipt:
    """Where a model stands in the registry."""

    name: str
    version: int
    aliases: list[str]
    weights_sha256: str
    uri: str


def registered_name(description: dict[str, Any]) -> str:
    """The registered model that a config.json's model is a version of: its data set, and the task if it has one."""
    return description["data"]["dataset"] + config.task(description["model"])


def register(folder: Path, run_name: str, card: str, scores: dict[str, Any]) -> Receipt:
    """A version for the model in `folder`; the one that is there already when the registry knows these weights.

    card: Markdown for the version's page. scores: what reports/evaluate holds of the run.
    """
    description = checkpoint.read_config(folder)
    checkpoint.load(folder)  # refuses damaged weights before anything is written
    name, sha256 = registered_name(description), description["weights_sha256"]
    client = tracking.connect(description["data"]["dataset"])
    known = [v for v in _versions(client, name) if v.tags.get(tracking.WEIGHTS_TAG) == sha256]
    entry = known[0] if known else _add(client, folder, name, run_name, description)
    tags = {
        "run": run_name,
        tracking.WEIGHTS_TAG: sha256,
        FINGERPRINT_TAG: description["data"]["fingerprints"]["validation"],
        VALIDATION_TAG: scores["validation"]["bits_per_dim"],
        "test_bits_per_dim": scores["test"]["bits_per_dim"],
        "test_standard_error": scores["test"]["standard_error"],
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, entry.version, key, str(value))
    client.update_model_version(name, entry.version, card)
    _assign_aliases(client, name)
    aliases = sorted(client.get_model_version(name, entry.version).aliases)
    uri = f"models:/{name}@{aliases[0]}" if aliases else f"models:/{name}/{entry.version}"
    return Receipt(name, int(entry.version), aliases, sha256, uri)


def fetch(uri: str) -> Path:
    """The local folder (model.safetensors, config.json) of "models:/NAME@ALIAS" or "models:/NAME/VERSION".

    Downloads from a remote store; a local one's own folder is given, which is to be read only. Raises ValueError for
    what the registry does not have, with what it has.
    """
    form = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if form is None:
        raise ValueError(f"{uri}: a model of the registry is models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, digits = form.groups()
    client = _open()
    number = _aliases(client, name).get(alias) if alias else int(digits)
    if number not in [int(v.version) for v in _versions(client, name)]:
        raise ValueError(f"{uri}: not in the registry, which has {_listing(client, name)}")
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}"))
    return folder / Model.load(str(folder)).flavors["python_function"]["artifacts"]["model"]["path"]


def _open() -> mlflow.MlflowClient:
    """The store as it is: unlike tracking.connect, makes nothing."""
    if "MLFLOW_TRACKING_URI" not in os.environ:
        if not tracking.LOCAL_STORE.exists():
            raise ValueError(f"{tracking.LOCAL_STORE}: no such file, so no model is registered; `dvc repro` does it")
        mlflow.set_tracking_uri(f"sqlite:///{tracking.LOCAL_STORE}")
    return mlflow.MlflowClient()


def _aliases(client: mlflow.MlflowClient, name: str) -> dict[str, int]:
    """The version that each alias of a name points to; {} for a name that is not registered."""
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: int(number) for alias, number in found[0].aliases.items()} if found else {}


def _listing(client: mlflow.MlflowClient, name: str) -> str:
    """The URIs of a registered model, or of all models' aliases when there is none of that name."""
    uris = [f"models:/{name}@{alias}" for alias in _aliases(client, name)]
    uris += [f"models:/{name}/{v.version}" for v in _versions(client, name)]
    if not uris:
        uris = [f"models:/{m.name}@{alias}" for m in client.search_registered_models() for alias in m.aliases]
    return ", ".join(uris) or "no model at all"


def _add(
    client: mlflow.MlflowClient, folder: Path, name: str, run_name: str, description: dict[str, Any]
) -> ModelVersion:
    data = description["data"]
    images = TensorSpec(np.dtype(np.uint8), (-1, *data["shape"]))
    bits = TensorSpec(np.dtype(np.float32), (-1,))
    with tracking.run_of_weights(data["dataset"], description["weights_sha256"], run_name):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=pyfunc.__file__,
            artifacts={"model": str(folder)},
            code_paths=[str(CODE)],
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            input_example=np.zeros((1, *data["shape"]), np.uint8),
            signature=ModelSignature(Schema([images]), Schema([bits])),
            registered_model_name=name,
            metadata={tracking.WEIGHTS_TAG: description["weights_sha256"]},
        )
    return client.get_model_version(name, str(info.registered_model_version))


def _assign_aliases(client: mlflow.MlflowClient, name: str) -> None:
    """Move champion and challenger among the versions that were validated on the same images as the newest one."""
    versions = sorted(_versions(client, name), key=lambda v: int(v.version))
    same = [v for v in versions if v.tags.get(FINGERPRINT_TAG) == versions[-1].tags.get(FINGERPRINT_TAG)]
    champion = min(same, key=lambda v: float(v.tags[VALIDATION_TAG]))
    client.set_registered_model_alias(name, "champion", champion.version)
    others = [v for v in same if v.version != champion.version]
    if others:
        client.set_registered_model_alias(name, "challenger", others[-1].version)


def _versions(client: mlflow.MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))
