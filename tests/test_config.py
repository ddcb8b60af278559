"""params.yaml: every fault is named by its full path, what is there and what was expected, before any work."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pixelcnn import architectures, config, likelihoods, params
from pixelcnn.cli.suite import SUITES
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
MISSING = object()
GATED = "runs.digits-gated"

# a key's path, the value put there, and the message after "params.yaml: "
PLUS = {"name": "pixelcnnpp", "condition": "none", "hidden_channels": 4, "num_resnets": 1, "num_resolutions": 2}
PLUS |= {"dropout": 0.0}
FILE = {"source": "file", "dataset": "digits", "path": "faces.parquet", "sha256": "0" * 64}
BAD: list[tuple[str, Any, str]] = [
    (f"{GATED}.train.momentum", 0.9, rf"{GATED}\.train\.momentum: unknown key \(value 0\.9\)"),
    (f"{GATED}.train.steps", MISSING, rf"{GATED}\.train\.steps: missing"),
    (f"{GATED}.train.steps", "many", rf"{GATED}\.train\.steps: 'many' is refused: input should be a valid integer"),
    (f"{GATED}.train.steps", 1.5, rf"{GATED}\.train\.steps: 1\.5 is refused"),
    (f"{GATED}.train.learning_rate", "fast", rf"{GATED}\.train\.learning_rate: 'fast' is refused"),
    (f"{GATED}.train.learning_rate", -0.1, rf"{GATED}\.train\.learning_rate: -0\.1 is refused: .* greater than 0"),
    (f"{GATED}.train.warmup_steps", 800, rf"{GATED}\.train\.warmup_steps: 800 is not less than steps: 600"),
    (
        f"{GATED}.train.schedule",
        {"name": "wsd", "cooldown": 0.9},
        r"shared\.train\.warmup_steps: 100 is not less than 60, the step at which .* \(in runs\.digits-gated\)",
    ),
    (f"{GATED}.train.schedule", {"name": "wsd"}, rf"{GATED}\.train\.schedule\.cooldown: missing"),
    (f"{GATED}.train.schedule", {"name": "step"}, rf"{GATED}\.train\.schedule\.name: 'step' is not one of 'cosine'"),
    (
        f"{GATED}.train.initial",
        {"model": "cifar10", "weights_sha256": "12"},
        rf"{GATED}\.train\.initial\.weights_sha256: '12' is refused",
    ),
    (f"{GATED}.train.precision", "half", rf"{GATED}\.train\.precision: 'half' is refused: .*'float32' or 'bfloat16'"),
    (f"{GATED}.train.betas", [0.9], rf"{GATED}\.train\.betas: \[0\.9\] is refused: .*at least 2 items"),
    (f"{GATED}.train.optimizer", "sgd", rf"{GATED}\.train\.optimizer: 'sgd' is refused: .*'adamw' or 'muon'"),
    (f"{GATED}.model.dropout", 1.0, rf"{GATED}\.model\.dropout: 1\.0 is refused: input should be less than 1"),
    (f"{GATED}.model.kernel_size", 4, rf"{GATED}\.model\.kernel_size: 4 is not an odd number"),
    (f"{GATED}.model.first_kernel_size", 1, rf"{GATED}\.model\.first_kernel_size: 1 is not an odd .* at least 3"),
    (
        f"{GATED}.model.name",
        "transformer",
        rf"{GATED}\.model\.name: 'transformer' is not one of .*'gated_pixelcnn'.*'pixelcnn'",
    ),
    (f"{GATED}.model.name", MISSING, rf"{GATED}\.model\.name: missing"),
    (f"{GATED}.model.attention", True, rf"{GATED}\.model\.attention: unknown key"),
    (f"{GATED}.dataset", "mnist", rf"{GATED}\.dataset: 'mnist' is not one of datasets: digits"),
    ("runs.a b", {}, r"runs\.a b: 'a b' is refused: string should match pattern"),
    (
        "datasets.digits.download.source",
        "cifar",
        r"datasets\.digits\.download\.source: 'cifar' is not one of .*cifar10.*digits",
    ),
    (
        "datasets.digits.download.source",
        "imagenet32-vdo2016",
        r"datasets\.digits\.download\.source: 'imagenet32-vdo2016' is called 'imagenet32_vdo2016' now",
    ),
    (f"{GATED}.model.name", "pixelcnn++", rf"{GATED}\.model\.name: 'pixelcnn\+\+' is called 'pixelcnnpp' now"),
    (f"{GATED}.likelihood", MISSING, rf"{GATED}\.likelihood: missing"),
    (f"{GATED}.likelihood", {}, rf"{GATED}\.likelihood\.name: missing"),
    (f"{GATED}.likelihood.name", "gaussian", rf"{GATED}\.likelihood\.name: 'gaussian' is not one of 'categorical'"),
    (f"{GATED}.likelihood.num_mixtures", 5, rf"{GATED}\.likelihood\.num_mixtures: unknown key"),
    (
        f"{GATED}.model",
        PLUS,
        rf"{GATED}\.likelihood\.name: 'categorical' does not work with model\.name: 'pixelcnnpp', whose",
    ),
    (
        "runs.digits-squared-error.likelihood",
        {"name": "logistic_mixture", "num_mixtures": 2},
        r"runs\.digits-squared-error\.likelihood\.name: 'logistic_mixture' does not work with model\.name",
    ),
    ("optimizer", {}, r"optimizer: unknown key"),
    ("evaluate.samples_per_class", 10, r"evaluate\.samples_per_class: is sample\.per_class now"),
    ("sample", MISSING, r"sample: missing"),
    (f"{GATED}.model.condition", "map", rf"{GATED}\.model\.condition: 'map' is refused: .*'embedding-map'"),
    ("embeddings.faces", {"source": "web"}, r"embeddings\.faces\.source: 'web' is not one of 'classifier', 'file'"),
    ("embeddings.faces", {}, r"embeddings\.faces\.source: missing"),
    ("embeddings.faces", FILE | {"sha256": "12"}, r"embeddings\.faces\.sha256: '12' is refused: string should match"),
    ("embeddings.faces", FILE | {"dataset": "x"}, r"embeddings\.faces\.dataset: 'x' is not one of datasets: digits"),
    (
        f"{GATED}.model.condition",
        "embedding",
        rf"{GATED}\.model\.condition: 'embedding' needs embeddings, but digits has none; its dataset is an entry of",
    ),
    ("embeddings.digits", FILE, r"embeddings\.digits: the name of a data set"),
]


def content() -> dict[str, Any]:
    return YAML(typ="safe").load(DEMO)


def put(section: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split(".")
    for folder in folders:
        section = section[folder]
    if value is MISSING:
        del section[last]
    else:
        section[last] = value


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_a_fault_is_named(path: str, value: Any, message: str) -> None:
    changed = content()
    put(changed, path, value)
    with pytest.raises(ValueError, match=rf"(^|\n)params\.yaml: {message}"):
        params.parse(changed, "params.yaml")


def test_all_faults_are_named_at_once() -> None:
    changed = content()
    put(changed, f"{GATED}.train.steps", 0)
    put(changed, f"{GATED}.train.batch_size", 0)
    with pytest.raises(ValueError, match=r"steps: 0 (.|\n)*batch_size: 0 "):
        params.parse(changed, "params.yaml")


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_params_are_whole(path: Path) -> None:
    assert params.load(path).runs


def shared_and_two_runs() -> dict[str, Any]:
    """The demo's two Gated PixelCNNs, which take over all of `shared.train` and override the number of steps."""
    changed = content()
    changed["runs"] = {name: changed["runs"][name] for name in ("digits-gated", "digits-gated-label")}
    return changed


def test_a_run_takes_over_what_it_does_not_say_itself() -> None:
    changed = shared_and_two_runs()
    put(changed, "shared.train.learning_rate", 0.5)
    put(changed, "shared.likelihood", {"num_mixtures": 7})
    put(changed, f"{GATED}.train.weight_decay", 0.0)
    for run in changed["runs"].values():
        run["likelihood"] = {"name": "logistic_mixture"}
    plain, label = params.parse(changed, "params.yaml").runs.values()
    assert (plain.train.learning_rate, plain.train.weight_decay, plain.train.steps) == (0.5, 0.0, 600)
    assert (label.train.learning_rate, label.train.weight_decay) == (0.5, 0.01)
    assert plain.likelihood.model_dump() == {"name": "logistic_mixture", "num_mixtures": 7}


def test_what_a_run_takes_over_is_as_if_it_stood_there() -> None:
    changed = shared_and_two_runs()
    written_out = shared_and_two_runs()
    for run in written_out["runs"].values():
        run["train"] = written_out["shared"]["train"] | run["train"]
    written_out["shared"] = {}
    assert params.parse(changed, "").runs == params.parse(written_out, "").runs


SHARED: list[tuple[str, Any, list[str]]] = [  # a key's path, the value put there, and all lines of the message
    ("shared.train.momentum", 0.9, ["shared.train.momentum: unknown key (value 0.9); is it misspelt?"]),
    ("shared.train.batch_size", 0, ["shared.train.batch_size: 0 is refused: input should be greater than 0"]),
    ("shared.train.warmup_steps", 800, ["shared.train.warmup_steps: 800 is not less than steps: 600"]),
    ("shared.train.betas", MISSING, ["shared.train.betas: missing"]),
    (f"{GATED}.train.steps", MISSING, [f"{GATED}.train.steps: missing"]),
    (f"{GATED}.train", MISSING, [f"{GATED}.train: missing"]),
    (
        "shared.model", {"kernel_size": 5, "name": "pixelcnn"},
        ["shared.model.name: write it in each run, where dvc.yaml reads it"],
    ),
    ("shared", MISSING, ["shared: missing"]),
    ("shared", None, ["shared: None is refused: input should be a valid dictionary"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "lines"), SHARED)
def test_a_fault_is_named_where_it_was_written(path: str, value: Any, lines: list[str]) -> None:
    changed = shared_and_two_runs()
    put(changed, path, value)
    with pytest.raises(ValueError, match=r"params\.yaml: ") as error:
        params.parse(changed, "params.yaml")
    found = str(error.value).splitlines()
    assert [line for line in found if "shared" in line or path.startswith("runs")] == [
        f"params.yaml: {line}" for line in lines
    ]


def test_a_shared_key_that_does_not_suit_one_run_names_that_run() -> None:
    changed = content()
    put(changed, "shared.model", {"first_kernel_size": 5})
    with pytest.raises(
        ValueError, match=r"shared\.model\.first_kernel_size: unknown key .* \(in runs\.digits-squared-error\)$"
    ):
        params.parse(changed, "params.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rate: 1e-3\nword: no\n")
    assert config.read_yaml(tmp_path / "a.yaml") == {"rate": 0.001, "word": "no"}


def test_a_file_that_is_not_yaml_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("runs: [")
    with pytest.raises(ValueError, match=r"a\.yaml: not YAML"):
        params.load(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=r"b\.yaml: no such file"):
        params.load(tmp_path / "b.yaml")


def test_nothing_has_a_default() -> None:
    shared = [value for value in vars(params).values() if isinstance(value, type) and issubclass(value, config.Section)]
    sections = [*shared, *architectures.sections(), *likelihoods.sections()]
    assert params.Train in sections
    assert all(field.is_required() for section in sections for field in section.model_fields.values())
