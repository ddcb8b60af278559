"""params.yaml: every fault is named by its full path, what stands there and what was expected, before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pixelcnn import config
from pixelcnn.cli import SUITES

ROOT = Path(__file__).parent.parent
Change = Callable[[dict[str, Any]], object]


def run(params: dict[str, Any]) -> dict[str, Any]:
    return params["runs"]["digits-gated"]


BAD: list[tuple[str, Change, str]] = [
    ("unknown", lambda p: run(p)["train"].update(momentum=0.9), r"runs\.digits-gated\.train\.momentum: unknown key \(value 0\.9\)"),
    ("missing", lambda p: run(p)["train"].pop("steps"), r"runs\.digits-gated\.train\.steps: missing"),
    ("mistyped", lambda p: run(p)["train"].update(steps="many"), r"train\.steps: 'many' is refused: input should be a valid integer"),
    ("a float for an integer", lambda p: run(p)["train"].update(steps=1.5), r"train\.steps: 1\.5 is refused"),
    ("a string for a number", lambda p: run(p)["train"].update(learning_rate="1e-3"), r"train\.learning_rate: '1e-3' is refused"),
    ("negative", lambda p: run(p)["train"].update(learning_rate=-0.1), r"learning_rate: -0\.1 is refused: input should be greater than 0"),
    ("out of range", lambda p: run(p)["model"].update(dropout=1.0), r"model\.dropout: 1\.0 is refused: input should be less than 1"),
    ("not a choice", lambda p: run(p)["train"].update(precision="half"), r"precision: 'half' is refused: input should be 'float32' or 'bfloat16'"),
    ("even kernel", lambda p: run(p)["model"].update(kernel_size=4), r"runs\.digits-gated\.model\.kernel_size: 4 is not an odd number"),
    ("first kernel of 1", lambda p: run(p)["model"].update(first_kernel_size=1), r"model\.first_kernel_size: 1 is not an odd number of at least 3"),
    ("endless warm-up", lambda p: run(p)["train"].update(warmup_steps=800), r"train\.warmup_steps: 800 is not less than steps: 800"),
    ("unknown data set", lambda p: run(p).update(dataset="mnist"), r"runs\.digits-gated\.dataset: 'mnist' is not one of datasets: digits"),
    ("bad name", lambda p: p["runs"].update({"a b": run(p)}), r"runs\.a b: 'a b' is refused: string should match pattern"),
    ("unknown source", lambda p: p["datasets"]["digits"]["download"].update(source="mnist"), r"datasets\.digits\.download\.source: 'mnist' is refused: input should be 'digits', 'cifar10'"),
    ("unknown section", lambda p: p.update(optimizer={}), r"optimizer: unknown key"),
]  # fmt: skip


def content() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_fault_is_named(change: Change, message: str) -> None:
    params = content()
    change(params)
    with pytest.raises(ValueError, match=rf"params\.yaml: {'.*' if not message.startswith('runs') else ''}{message}"):
        config.check(config.Params, params, "params.yaml")


def test_all_faults_are_named_at_once() -> None:
    params = content()
    run(params)["train"].update(steps=0, batch_size=0)
    with pytest.raises(ValueError, match=r"steps: 0 (.|\n)*batch_size: 0 "):
        config.check(config.Params, params, "params.yaml")


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(SUITES.glob("*.yaml"))], ids=lambda path: path.stem)
def test_the_shipped_params_are_whole(path: Path) -> None:
    assert config.load(path).runs


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rate: 1e-3\nword: no\n")
    assert config.read_yaml(tmp_path / "a.yaml") == {"rate": 0.001, "word": "no"}


def test_a_file_that_is_not_yaml_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("runs: [")
    with pytest.raises(ValueError, match=r"a\.yaml: not YAML"):
        config.load(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=r"b\.yaml: no such file"):
        config.load(tmp_path / "b.yaml")


def test_nothing_has_a_default() -> None:
    sections = [config.Params, config.Dataset, config.Download, config.Preprocess, config.Run, config.GatedPixelCNN,
                config.Train, config.TrainProcess, config.Evaluate, config.Baseline]  # fmt: skip
    assert all(field.is_required() for section in sections for field in section.model_fields.values())
