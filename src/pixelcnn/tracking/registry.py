"""The only door to the MLflow registry: a version per set of weights, aliases that say which one to use.

One registered model per (data set, task): versions of one name answer the same question, so their numbers compare.
Aliases: `champion`, the version to use; `challenger`, the newest one that is not. A version is judged once, when it
comes: the first of its name is champion, any later one takes the alias only if a paired comparison on the same test
images puts its whole confidence interval above params.yaml's promotion.min_gain. Its tags keep the decision.
"""

from pixelcnn.tracking import runs as tracking  # store sets MLflow's switches, so it comes before MLflow itself
from pixelcnn.tracking import store

# isort: split

import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pixelcnn import checkpoint, config
from pixelcnn.evaluation.comparison import Comparison, compare
from pixelcnn.reporting.model_card import registered_name
from pixelcnn.tracking import pyfunc
from pixelcnn.tracking.model_package import Candidate

CODE = Path(__file__).parent.parent  # travels with each version, so that loading needs no installed pixelcnn
REQUIREMENTS = ["mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch"]
FINGERPRINT_TAG, DECISION_TAG, PREVIOUS_TAG = "test_fingerprint", "decision", "previous_champion"
SAMPLES = "samples"  # the run's artifact folder with the sample grids that evaluation drew
NLL = "nll"  # the run's artifact folder with the NLL of every image, under the version's `run`


@dataclass(frozen=True)
class Decision:
    """Whether a version became champion, why, and the comparison with the champion it met, if there was one."""

    promoted: bool
    reason: str
    champion: int | None
    comparison: Comparison | None


@dataclass(frozen=True)
class Receipt:
    """Where a model stands in the registry, and what was decided when it came."""

    name: str
    version: int
    aliases: list[str]
    weights_sha256: str
    uri: str
    decision: str
    reason: str
    compared_with: int | None


@dataclass(frozen=True)
class Entry:
    """A version as a page shows it: its run and seed, its test bits/dim with standard error, its sample grids."""

    version: int
    run: str
    seed: str
    test: float
    error: float
    samples: list[Path]


@dataclass(frozen=True)
class Version:
    """A version as a list shows it; `test` and `error` are bits/dim, `card` is Markdown."""

    name: str
    version: int
    aliases: list[str]
    run: str
    test: float
    error: float
    registered: datetime
    card: str


def register(candidate: Candidate, min_gain: float, confidence: float) -> Receipt:
    """A version for the candidate, judged; the one that is there already when the registry knows these weights.

    min_gain: bits/dim that a champion's heir must surely save. confidence: of the interval that says so.
    """
    description = checkpoint.read_config(candidate.folder)
    checkpoint.load(candidate.folder)  # refuses damaged weights before anything is written
    name, sha256 = registered_name(description), description["weights_sha256"]
    client = store.connect(description["data"]["dataset"])
    with _lock():  # of two that come at once, the second meets the champion that the first left
        known = [v for v in _versions(client, name) if v.tags.get(tracking.WEIGHTS_TAG) == sha256]
        entry = known[0] if known else _add(client, candidate, name, description)
        _describe(client, entry, candidate, description)
        entry = client.get_model_version(name, entry.version)
        if DECISION_TAG not in entry.tags:
            _settle(client, entry, _judge(client, entry, candidate.nll, min_gain, confidence))
        return _receipt(client.get_model_version(name, entry.version))


def rollback(name: str, to: int | None) -> Receipt:
    """Make version `to` the champion, or the one that was champion before: the dethroned one is challenger then.

    Raises ValueError where there is no such version, with those that there are.
    """
    client = store.existing()
    with _lock():
        champion = _aliased(client, name, "champion")
        target = to if to is not None else int(champion.tags.get(PREVIOUS_TAG, 0)) if champion else 0
        entry = next((v for v in _versions(client, name) if int(v.version) == target), None)
        if entry is None:
            what = f"version {to}" if to is not None else "earlier champion"
            raise ValueError(f"{name}: no {what} in the registry, which has {_listing(client, name)}")
        if to is not None and champion is not None and champion.version != entry.version:
            client.set_model_version_tag(name, entry.version, PREVIOUS_TAG, champion.version)
        _crown(client, entry, champion)
        return _receipt(client.get_model_version(name, entry.version))


def entries(name: str, numbers: Sequence[int]) -> list[Entry]:
    """These versions of a name, in this order."""
    client = store.existing()
    return [_entry(client.get_model_version(name, str(number))) for number in numbers]


def seeds(name: str) -> list[int]:
    """The seeds that versions of a name were trained with; [] where nothing is registered."""
    if not store.is_there():
        return []
    return [int(v.tags["seed"]) for v in _versions(store.existing(), name) if "seed" in v.tags]


def catalogue() -> list[Version]:
    """Every version of every registered model, by name and number; [] where nothing is registered."""
    client = store.existing()
    names = sorted(model.name for model in client.search_registered_models())
    return [_version(client, entry) for name in names for entry in reversed(_versions(client, name))]


def describe(uri: str) -> Version:
    """The version that "models:/NAME@ALIAS" or "models:/NAME/VERSION" means; ValueError as `fetch`."""
    client = store.existing()
    return _version(client, client.get_model_version(*_found(client, uri)))


def fetch(uri: str) -> Path:
    """The local folder (model.safetensors, config.json) of "models:/NAME@ALIAS" or "models:/NAME/VERSION".

    Downloads from a remote store; a local one's own folder is given, which is to be read only. Raises ValueError for
    what the registry does not have, with what it has.
    """
    name, number = _found(store.existing(), uri)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}"))
    return folder / Model.load(str(folder)).flavors["python_function"]["artifacts"]["model"]["path"]


def _found(client: mlflow.MlflowClient, uri: str) -> tuple[str, str]:
    """Name and number of the version that a URI means."""
    form = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if form is None:
        raise ValueError(f"{uri}: a model of the registry is models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, digits = form.groups()
    number = _aliases(client, name).get(alias) if alias else int(digits)
    if number not in [int(v.version) for v in _versions(client, name)]:
        raise ValueError(f"{uri}: not in the registry, which has {_listing(client, name)}")
    return name, str(number)


def _judge(client: mlflow.MlflowClient, entry: ModelVersion, nll: Path, min_gain: float, confidence: float) -> Decision:
    champion = _aliased(client, entry.name, "champion")
    if champion is None or champion.version == entry.version:
        return Decision(True, f"the first version of {entry.name}", None, None)
    theirs, ours = (v.tags.get(FINGERPRINT_TAG, "unknown")[:12] for v in (champion, entry))
    if theirs != ours:
        reason = (
            f"not comparable: champion {champion.version} was measured on other test images (fingerprint {theirs}, "
            f"here {ours}); `python -m pipelines.rollback {entry.name} --to {entry.version}` makes this one champion"
        )
        return Decision(False, reason, int(champion.version), None)
    comparison = compare(_test_bits(_nll_of(champion)), _test_bits(nll), confidence)
    promoted = comparison.exceeds(min_gain)
    verdict = "surely above" if promoted else "not surely above"
    reason = f"{comparison} against champion {champion.version}: {verdict} the margin of {min_gain:g}"
    return Decision(promoted, reason, int(champion.version), comparison)


def _settle(client: mlflow.MlflowClient, entry: ModelVersion, decision: Decision) -> None:
    """Write a decision down and move the alias. The tag that says it is settled comes last."""
    champion = _aliased(client, entry.name, "champion")
    numbers = asdict(decision.comparison) if decision.comparison else {}
    tags = {"reason": decision.reason} | {f"comparison_{key}": value for key, value in numbers.items()}
    if decision.champion is not None:
        tags |= {"compared_with": decision.champion}
    if decision.promoted and champion is not None and champion.version != entry.version:
        tags |= {PREVIOUS_TAG: champion.version}
    _tag(client, entry, tags)
    if decision.promoted:
        _crown(client, entry, None)
    else:
        client.set_registered_model_alias(entry.name, "challenger", entry.version)
    _tag(client, entry, {DECISION_TAG: "promoted" if decision.promoted else "kept as challenger"})


def _crown(client: mlflow.MlflowClient, entry: ModelVersion, dethroned: ModelVersion | None) -> None:
    client.set_registered_model_alias(entry.name, "champion", entry.version)
    if _aliases(client, entry.name).get("challenger") == int(entry.version):
        client.delete_registered_model_alias(entry.name, "challenger")
    if dethroned is not None and dethroned.version != entry.version:
        client.set_registered_model_alias(entry.name, "challenger", dethroned.version)


def _describe(
    client: mlflow.MlflowClient, entry: ModelVersion, candidate: Candidate, description: dict[str, Any]
) -> None:
    """What the version's page shows, and the NLLs that later challengers are compared with."""
    test = candidate.scores["test"]
    tags = {
        "run": candidate.run,
        "seed": candidate.seed,
        tracking.WEIGHTS_TAG: description["weights_sha256"],
        FINGERPRINT_TAG: description["data"]["fingerprints"]["test"],
        "validation_bits_per_dim": candidate.scores["validation"]["bits_per_dim"],
        "test_bits_per_dim": test["bits_per_dim"],
        "test_standard_error": test["standard_error"],
    }
    _tag(client, entry, tags)
    client.update_model_version(entry.name, entry.version, candidate.card)
    client.log_artifact(entry.run_id, str(candidate.nll), NLL)


def _entry(version: ModelVersion) -> Entry:
    tags = version.tags
    folder = Path(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=SAMPLES))
    test, error = (float(tags.get(f"test_{key}", "nan")) for key in ("bits_per_dim", "standard_error"))
    samples = sorted(folder.glob("*.png"))
    return Entry(int(version.version), tags.get("run", ""), tags.get("seed", ""), test, error, samples)


def _version(client: mlflow.MlflowClient, entry: ModelVersion) -> Version:
    test, error = (float(entry.tags.get(f"test_{key}", "nan")) for key in ("bits_per_dim", "standard_error"))
    aliases = sorted(alias for alias, number in _aliases(client, entry.name).items() if number == int(entry.version))
    registered = datetime.fromtimestamp(entry.creation_timestamp / 1000)
    run, card = entry.tags.get("run", ""), entry.description or ""
    return Version(entry.name, int(entry.version), aliases, run, test, error, registered, card)


def _nll_of(entry: ModelVersion) -> Path:
    """The file that _describe kept of a version."""
    folder = Path(mlflow.artifacts.download_artifacts(run_id=entry.run_id, artifact_path=NLL))
    return folder / f"{entry.tags['run']}.parquet"


def _test_bits(nll: Path) -> np.ndarray:
    """Bits/dim (N,) of the test images, in the split's order.

    A fingerprint does not tell one order from another: then the pairs are wrong, the mean gain is not, and the interval
    is only wider.
    """
    table = pd.read_parquet(nll)
    return table[table.split == "test"].sort_values("image").bits_per_dim.to_numpy()


def _add(client: mlflow.MlflowClient, candidate: Candidate, name: str, description: dict[str, Any]) -> ModelVersion:
    data = description["data"]
    images = TensorSpec(np.dtype(np.uint8), (-1, *data["shape"]))
    bits = TensorSpec(np.dtype(np.float32), (-1,))
    needs_more = config.given(description["model"]["condition"]) == "embedding"  # than images, so MLflow cannot try it
    run = tracking.run_of_weights(data["dataset"], description["weights_sha256"], candidate.run)
    with run, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=pyfunc.__file__,
            artifacts={"model": str(candidate.folder)},
            code_paths=[str(CODE)],
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            input_example=None if needs_more else np.zeros((1, *data["shape"]), np.uint8),
            signature=ModelSignature(Schema([images]), Schema([bits])),
            registered_model_name=name,
            metadata={tracking.WEIGHTS_TAG: description["weights_sha256"]},
        )
    return client.get_model_version(name, str(info.registered_model_version))


def _lock() -> FileLock:
    """Held while a champion is found and replaced, by all that share the local store, or a folder on this machine."""
    return FileLock(f"{store.LOCAL_STORE.resolve()}.registry.lock")


def _receipt(entry: ModelVersion) -> Receipt:
    aliases = sorted(entry.aliases)
    uri = f"models:/{entry.name}@{aliases[0]}" if aliases else f"models:/{entry.name}/{entry.version}"
    sha256, decision, reason = (entry.tags.get(tag, "") for tag in (tracking.WEIGHTS_TAG, DECISION_TAG, "reason"))
    met = entry.tags.get("compared_with")
    return Receipt(entry.name, int(entry.version), aliases, sha256, uri, decision, reason, int(met) if met else None)


def _tag(client: mlflow.MlflowClient, entry: ModelVersion, tags: dict[str, Any]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(entry.name, entry.version, key, str(value))


def _versions(client: mlflow.MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _aliases(client: mlflow.MlflowClient, name: str) -> dict[str, int]:
    """The version that each alias of a name points to; {} for a name that is not registered."""
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: int(number) for alias, number in found[0].aliases.items()} if found else {}


def _aliased(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    number = _aliases(client, name).get(alias)
    return client.get_model_version(name, str(number)) if number else None


def _listing(client: mlflow.MlflowClient, name: str) -> str:
    """The URIs of a registered model, or of all models' aliases when there is none of that name."""
    uris = [f"models:/{name}@{alias}" for alias in _aliases(client, name)]
    uris += [f"models:/{name}/{v.version}" for v in _versions(client, name)]
    if not uris:
        uris = [f"models:/{m.name}@{alias}" for m in client.search_registered_models() for alias in m.aliases]
    return ", ".join(uris) or "no model at all"
