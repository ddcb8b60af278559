"""The MLflow registry: a version per set of weights, and aliases that say which version to use.

One registered model per data set and task, so that the bits/dim of its versions are comparable. Aliases: `champion`,
the version to use; `challenger`, the newest other one. Each version is decided on once, when it is registered: the
first of its name becomes champion, a later one is promoted only if the confidence interval of its gain, in a paired
comparison on the same test images, lies above params.yaml's promotion.min_gain. Version k + 1 is compared as the k-th
challenger, at the confidence `comparison.confidence_of`. Version numbers are never reused, so deleting challengers
frees none of the error that they spent. The version's tags record the decision.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from pixelcnn import checkpoint
from pixelcnn.checkpoint import ModelConfig
from pixelcnn.config import Given, quoted
from pixelcnn.evaluation.baselines import uniform_bits_per_dim
from pixelcnn.evaluation.comparison import Comparison, compare, confidence_of
from pixelcnn.schemas import RegisterReport
from pixelcnn.tracking import store
from pixelcnn.tracking.model_package import ModelPackage, read_nll
from pixelcnn.tracking.runs import active_in_mlflow
from pixelcnn.tracking.store import WEIGHTS_TAG

CODE = Path(__file__).parent.parent  # copied into each version, so that loading one needs no installed pixelcnn
NAME = r"[a-z0-9][a-z0-9-]*"  # of a registered model: its data set's, and the task
URI = rf"models:/({NAME})(?:@([A-Za-z0-9_-]+)|/([0-9]{{1,9}}))"
PYFUNC = Path(__file__).with_name("pyfunc.py")
REQUIREMENTS = ["mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch"]
FINGERPRINT_TAG, DECISION_TAG, PREVIOUS_TAG = "test_fingerprint", "decision", "previous_champion"
PROMOTED = "promoted"  # the decision
RUN_TAG = "run"  # the first run of params.yaml that had a version's weights
PARAMETERS = ParamSchema(  # of `predict` (pixelcnn.tracking.pyfunc); label: a class's name or number
    [
        ParamSpec("task", "string", "score"),
        ParamSpec("num", "long", 1),
        ParamSpec("seed", "long", 0),
        ParamSpec("label", "string", ""),
        ParamSpec("temperature", "double", 1.0),
    ]
)
SAMPLES = "samples"  # the run's artifact folder with the sample grids
NLL = "nll"  # the run's artifact folder with the NLL of every image, in a file named after the version's `run`


@dataclass(frozen=True)
class Decision:
    """Whether a version is promoted to champion, why, and the comparison with the current champion, if there is one."""

    promoted: bool
    reason: str
    champion: int | None
    comparison: Comparison | None


@dataclass(frozen=True)
class Entry:
    """A version as a report shows it: run, seed, test bits/dim with standard error, sample grids."""

    version: int
    run: str
    seed: str
    test: float
    error: float
    samples: list[Path]


@dataclass(frozen=True)
class Version:
    """A version as a list shows it. test, error: bits/dim and its standard error. card: Markdown."""

    name: str
    version: int
    aliases: list[str]
    run: str
    test: float
    error: float
    registered: datetime
    card: str


def register(package: ModelPackage, min_gain: float, confidence: float, doubt: str = "") -> RegisterReport:
    """Register a model, or find the version with the same weights, and decide on its alias if that is not done yet.

    min_gain: the gain over the champion, in bits/dim, that a promotion must exceed. confidence: of all comparisons of a
    name together. doubt: why the package's scores are not trusted; the version then stays challenger. Raises ValueError
    for damaged weights and invalid scores, ConnectionError if the store does not answer.
    """
    described = checkpoint.read_config(package.folder)
    checkpoint.load(package.folder)  # refuses damaged weights before anything is written
    _test_bits(package.nll)
    doubt = doubt or _worse_than_uniform(package, described)
    client = store.connect(described.data.dataset)
    with _lock():  # of two concurrent calls, the second compares with the champion of the first
        found = _version_of_weights(client, described) or _add(client, package, described)
        if found.tags.get(RUN_TAG, package.run) == package.run:  # another run of the same weights changes nothing
            _describe(client, found, package, described)
        found = client.get_model_version(found.name, found.version)
        if DECISION_TAG not in found.tags:
            _apply(client, found, _decide(client, found, package.nll, min_gain, confidence, doubt))
        return _report(client.get_model_version(found.name, found.version))


def rollback(name: str, to: int | None) -> RegisterReport:
    """Make version `to`, by default the previous champion, the champion; the current champion becomes challenger.

    Raises ValueError if there is no such version; the message lists those that exist.
    """
    if not re.fullmatch(NAME, name):
        raise ValueError(f"{quoted(name)}: is not the name of a registered model, which has a-z, 0-9 and - alone")
    client = store.existing()
    with _lock():
        champion = _aliased(client, name, "champion")
        target = to if to is not None else int(champion.tags.get(PREVIOUS_TAG, 0)) if champion else 0
        found = next((v for v in _versions(client, name) if int(v.version) == target), None)
        if found is None:
            what = f"version {to}" if to is not None else "earlier champion"
            raise ValueError(f"{name}: no {what} in the registry, which has {_listing(client, name)}")
        if to is not None and champion is not None and champion.version != found.version:
            client.set_model_version_tag(name, found.version, PREVIOUS_TAG, champion.version)
        _promote(client, found, champion)
        return _report(client.get_model_version(name, found.version))


def advice(report: RegisterReport) -> str:
    """How to undo a decision by hand; "" if there is no other version, or if the reason already says how."""
    command = f"python -m pipelines.rollback {report.name}"
    if report.decision == PROMOTED:
        return f"To restore the previous champion: `{command}`" if report.compared_with else ""
    by_hand = f"`{command} --to {report.version}`"
    return "" if by_hand in report.reason else f"To promote it anyway: {by_hand}"


def entries(name: str, numbers: Sequence[int]) -> list[Entry]:
    """These versions of a registered model, in this order."""
    client = store.existing()
    return [_entry(client.get_model_version(name, str(number))) for number in numbers]


def seeds(name: str) -> list[int]:
    """The training seeds of the versions of a registered model; [] if nothing is registered."""
    if not store.is_there():
        return []
    return [int(v.tags["seed"]) for v in _versions(store.existing(), name) if "seed" in v.tags]


def catalogue() -> list[Version]:
    """Every version of every registered model, by name and number. ValueError if there is no store."""
    client = store.existing()
    names = sorted(m.name for m in client.search_registered_models() if re.fullmatch(NAME, m.name))
    return [_version(client, found) for name in names for found in reversed(_versions(client, name))]


def has(name: str) -> bool:
    """Whether a model of this name is registered."""
    return store.is_there() and bool(_versions(store.existing(), name))


def describe(uri: str) -> Version:
    """The version of a URI "models:/NAME@ALIAS" or "models:/NAME/VERSION". ValueError as `fetch`."""
    client = store.existing()
    return _version(client, client.get_model_version(*_found(client, uri)))


def fetch(uri: str) -> Path:
    """The local model folder (model.safetensors, config.json) of "models:/NAME@ALIAS" or "models:/NAME/VERSION".

    From a remote store it is downloaded; for a local store it is the store's own folder, which must not be changed.
    Raises ValueError for an unknown name, alias or version; the message lists the known ones.
    """
    name, number = _found(store.existing(), uri)
    # Not the whole version, into whose folder in the store MLflow would write its name, each time
    described = Model.load(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}/MLmodel"))
    path = described.flavors["python_function"]["artifacts"]["model"]["path"]
    return Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}/{path}"))


def test_bits(uri: str) -> np.ndarray:
    """Bits/dim (N,) of a version's test images, as measured when it was registered. ValueError as `fetch`."""
    client = store.existing()
    return _test_bits(_nll_of(client.get_model_version(*_found(client, uri))))


def _found(client: mlflow.MlflowClient, uri: str) -> tuple[str, str]:
    """The name and number of a URI's version."""
    form = re.fullmatch(URI, uri)
    if form is None:
        raise ValueError(f"{quoted(uri)}: a model of the registry is models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, digits = form.groups()
    number = _aliases(client, name).get(alias) if alias else int(digits)
    if number not in [int(v.version) for v in _versions(client, name)]:
        raise ValueError(f"{uri}: not in the registry, which has {_listing(client, name)}")
    return name, str(number)


def _decide(
    client: mlflow.MlflowClient, challenger: ModelVersion, nll: Path, min_gain: float, confidence: float, doubt: str
) -> Decision:
    champion = _aliased(client, challenger.name, "champion")
    if doubt:
        command = f"python -m pipelines.rollback {challenger.name} --to {challenger.version}"
        return Decision(False, f"{doubt}; `{command}` promotes it anyway", None, None)
    if champion is None or champion.version == challenger.version:
        # If it is champion already, an earlier process was killed after the decision; the tag has its reason
        reason = challenger.tags.get("reason", f"the first version of {challenger.name}")
        return Decision(True, reason, None, None)
    theirs, ours = (v.tags.get(FINGERPRINT_TAG, "unknown")[:12] for v in (champion, challenger))
    if theirs != ours:
        command = f"python -m pipelines.rollback {challenger.name} --to {challenger.version}"
        reason = (
            f"not comparable: champion {champion.version} was measured on other test images (fingerprint {theirs}, "
            f"here {ours}); `{command}` makes this one champion"
        )
        return Decision(False, reason, int(champion.version), None)
    try:
        current = _test_bits(_nll_of(champion))
    except ValueError as error:  # registered by an earlier release, which accepted any number
        reason = f"the scores of champion {champion.version} are invalid: {error}"
        return Decision(True, reason, int(champion.version), None)
    comparison = compare(current, _test_bits(nll), confidence_of(_number(challenger), confidence))
    promoted = comparison.exceeds(min_gain)
    verdict = "significantly above" if promoted else "not significantly above"
    reason = f"{comparison} against champion {champion.version}: {verdict} the margin of {min_gain:g}"
    return Decision(promoted, reason, int(champion.version), comparison)


def _number(challenger: ModelVersion) -> int:
    """Which challenger of its name a version is, at most; versions that were never compared count too."""
    return max(int(challenger.version) - 1, 1)


def _worse_than_uniform(package: ModelPackage, described: ModelConfig) -> str:
    """Why a model is doubted if it gives the test images less probability than the uniform distribution; else ""."""
    test, uniform = package.scores.test.bits_per_dim, uniform_bits_per_dim(described.data.levels)
    return f"worse than the uniform distribution: {test:.4f} bits/dim against {uniform:.4f}" if test > uniform else ""


def _apply(client: mlflow.MlflowClient, version: ModelVersion, decision: Decision) -> None:
    """Record a decision in the version's tags and move the alias. DECISION_TAG comes last and marks it complete."""
    champion = _aliased(client, version.name, "champion")
    numbers = asdict(decision.comparison) | {"number": _number(version)} if decision.comparison else {}
    tags = {"reason": decision.reason} | {f"comparison_{key}": value for key, value in numbers.items()}
    if decision.champion is not None:
        tags |= {"compared_with": decision.champion}
    if decision.promoted and champion is not None and champion.version != version.version:
        tags |= {PREVIOUS_TAG: champion.version}
    _tag(client, version, tags)
    if decision.promoted:
        _promote(client, version, None)
    else:
        client.set_registered_model_alias(version.name, "challenger", version.version)
    _tag(client, version, {DECISION_TAG: PROMOTED if decision.promoted else "kept as challenger"})


def _promote(client: mlflow.MlflowClient, version: ModelVersion, demoted: ModelVersion | None) -> None:
    """Make a version champion, and `demoted`, if it is a different one, challenger."""
    client.set_registered_model_alias(version.name, "champion", version.version)
    if _aliases(client, version.name).get("challenger") == int(version.version):
        client.delete_registered_model_alias(version.name, "challenger")
    if demoted is not None and demoted.version != version.version:
        client.set_registered_model_alias(version.name, "challenger", demoted.version)


def _describe(
    client: mlflow.MlflowClient, version: ModelVersion, package: ModelPackage, described: ModelConfig
) -> None:
    """Write a version's tags and card, and the NLLs that later versions are compared with."""
    name, number, scores = version.name, version.version, package.scores
    tags = {
        RUN_TAG: package.run,
        "seed": package.seed,
        WEIGHTS_TAG: described.weights_sha256,
        FINGERPRINT_TAG: described.data.fingerprints["test"],
        "validation_bits_per_dim": scores.validation.bits_per_dim,
        "test_bits_per_dim": scores.test.bits_per_dim,
    } | ({} if scores.test.standard_error is None else {"test_standard_error": scores.test.standard_error})
    _tag(client, version, tags)
    # Cards, even those packed elsewhere, load the champion; this version's card must load this version
    client.update_model_version(
        name, number, package.card.replace(f"models:/{name}@champion", f"models:/{name}/{number}")
    )
    client.log_artifact(version.run_id, str(package.nll), NLL)
    if not client.get_registered_model(name).description:  # otherwise somebody wrote one
        client.update_registered_model(name, _about(described))


def _about(described: ModelConfig) -> str:
    """The description of a registered model: what all its versions model."""
    data, given = described.data, described.model.given
    images = f"{data.dataset}, {'x'.join(map(str, data.shape))}, {data.levels} levels"
    what = {
        Given.NONE: f"Models p(x) of the images x of {images}.",
        Given.LABEL: f"Models p(x | class) of the images x of {images}, {len(data.classes)} classes.",
        Given.EMBEDDING: f"Models p(x | embedding) of the images x of {images}.",
        Given.CODE: f"Auto-encoders of the images of {images}: p(x | code of x), not comparable with p(x).",
    }[given]
    return f"{what} `champion` is the version to use, by a paired comparison of bits/dim on the same test images."


def _entry(found: ModelVersion) -> Entry:
    tags, (test, error) = found.tags, _test_score(found)
    folder = Path(mlflow.artifacts.download_artifacts(run_id=found.run_id, artifact_path=SAMPLES))
    samples = sorted(folder.glob("*.png"))
    return Entry(int(found.version), tags.get(RUN_TAG, ""), tags.get("seed", ""), test, error, samples)


def _version(client: mlflow.MlflowClient, found: ModelVersion) -> Version:
    aliases = sorted(alias for alias, number in _aliases(client, found.name).items() if number == int(found.version))
    registered = datetime.fromtimestamp(found.creation_timestamp / 1000)
    run, card = found.tags.get(RUN_TAG, ""), found.description or ""
    return Version(found.name, int(found.version), aliases, run, *_test_score(found), registered, card)


def _test_score(found: ModelVersion) -> tuple[float, float]:
    """Test bits/dim and standard error; nan if a version has no such tags."""
    tags = found.tags
    return float(tags.get("test_bits_per_dim", "nan")), float(tags.get("test_standard_error", "nan"))


def _nll_of(found: ModelVersion) -> Path:
    """The file of NLLs that _describe stored with a version."""
    folder = Path(mlflow.artifacts.download_artifacts(run_id=found.run_id, artifact_path=NLL))
    return folder / f"{found.tags[RUN_TAG]}.parquet"


def _test_bits(nll: Path) -> np.ndarray:
    """Bits/dim (N,) of the test images, in the split's order.

    Equal fingerprints do not imply equal order. If the order differs, the pairs are wrong: the mean gain is still
    right, and the interval is only wider.
    """
    table = read_nll(nll)
    return table[table.split == "test"].sort_values("image").bits_per_dim.to_numpy()


def _version_of_weights(client: mlflow.MlflowClient, described: ModelConfig) -> ModelVersion | None:
    """The first version with these weights."""
    versions = _versions(client, described.registered_name)
    same = [v for v in versions if v.tags.get(WEIGHTS_TAG) == described.weights_sha256]
    return min(same, key=lambda v: int(v.version), default=None)


def _add(client: mlflow.MlflowClient, package: ModelPackage, described: ModelConfig) -> ModelVersion:
    """Log the model to the run of its weights, as a new version of its registered model."""
    data, sha256 = described.data, described.weights_sha256
    bits = TensorSpec(np.dtype(np.float32), (-1,))
    needs_more = described.model.given is Given.EMBEDDING  # more than images, so MLflow cannot try an example
    with active_in_mlflow(data.dataset, sha256, package.run), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PYFUNC),
            artifacts={"model": str(package.folder)},
            code_paths=[str(CODE)],
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
            input_example=None if needs_more else np.zeros((1, *data.shape), np.uint8),
            signature=ModelSignature(outputs=Schema([bits]), params=PARAMETERS),
            metadata={WEIGHTS_TAG: sha256},
        )
    # The tag comes with the version: after a kill at any moment, the next start finds the version and completes it
    made = mlflow.register_model(info.model_uri, described.registered_name, tags={WEIGHTS_TAG: sha256})
    first = _version_of_weights(client, described)
    if first and first.version != made.version:  # by another machine, which does not share the lock
        client.delete_model_version(made.name, made.version)
        return first
    return client.get_model_version(described.registered_name, made.version)


def _lock() -> FileLock:
    """A lock on reading and moving aliases, for all processes on this machine that share this folder or its store."""
    return FileLock(f"{store.LOCAL_STORE.resolve()}.registry.lock")


def _report(found: ModelVersion) -> RegisterReport:
    aliases, met = sorted(found.aliases), found.tags.get("compared_with")
    return RegisterReport(
        name=found.name,
        version=int(found.version),
        aliases=aliases,
        weights_sha256=found.tags.get(WEIGHTS_TAG, ""),
        uri=f"models:/{found.name}@{aliases[0]}" if aliases else f"models:/{found.name}/{found.version}",
        decision=found.tags.get(DECISION_TAG, ""),
        reason=found.tags.get("reason", ""),
        compared_with=int(met) if met else None,
    )


def _tag(client: mlflow.MlflowClient, version: ModelVersion, tags: dict[str, Any]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, str(value))


def _versions(client: mlflow.MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _aliases(client: mlflow.MlflowClient, name: str) -> dict[str, int]:
    """The version number of each alias of a registered model; {} for a name that is not registered."""
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: int(number) for alias, number in found[0].aliases.items()} if found else {}


def _aliased(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    number = _aliases(client, name).get(alias)
    return client.get_model_version(name, str(number)) if number else None


def _listing(client: mlflow.MlflowClient, name: str) -> str:
    """The URIs of a registered model, or of all models' aliases if there is none of that name."""
    uris = [f"models:/{name}@{alias}" for alias in _aliases(client, name)]
    uris += [f"models:/{name}/{v.version}" for v in _versions(client, name)]
    if not uris:
        uris = [f"models:/{m.name}@{alias}" for m in client.search_registered_models() for alias in m.aliases]
    return ", ".join(uris) or "no model at all"
