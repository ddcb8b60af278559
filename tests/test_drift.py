"""Drift by likelihood: the test and its spent error, a champion's tests in MLflow, and what the flow does."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from prefect.logging import disable_run_logger

from pixelcnn import api, checkpoint, params
from pixelcnn.cli.suite import SUITES
from pixelcnn.data import image_files
from pixelcnn.data.dataset import Split
from pixelcnn.evaluation.drift import FEWEST, ks_test
from pixelcnn.evaluation.spending import level
from pixelcnn.schemas import EvaluateReport, Score
from tests.conftest import Build
from tests.test_full_disk import no_file_above

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    from pipelines import drift
    from pixelcnn.tracking import drift as tests
    from pixelcnn.tracking import registry
    from pixelcnn.tracking.model_package import ModelPackage

# DVC 3.67 uses a deprecated function of pygtrie
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


def test_the_error_of_all_tests_together_is_alpha() -> None:
    levels = np.array([level(k, 0.05) for k in range(1, 10**5)])
    assert 0.0499 < levels.sum() < 0.05
    assert (np.diff(levels) < 0).all()


@pytest.mark.parametrize("change", [lambda x: x + 0.4, lambda x: x - 0.4, lambda x: x.mean() + (x - x.mean()) * 0.3])
def test_nlls_that_are_higher_lower_or_narrower_are_drift(change: Callable[[np.ndarray], np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    of_test, new = rng.normal(3, 0.7, 2000), rng.normal(3, 0.7, 200)
    assert not ks_test(of_test, new, 1, 0.05).drifted
    assert str(ks_test(of_test, change(new), 1, 0.05)).startswith("drift: 200 images of ")
    assert not ks_test(of_test, change(new), 10**20, 0.05).drifted  # little error is left


def test_few_images_are_not_tested() -> None:
    with pytest.raises(ValueError, match=f"a test needs {FEWEST} at least"):
        ks_test(np.zeros(100), np.ones(FEWEST - 1), 1, 0.05)


@pytest.fixture(scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A working folder with an empty MLflow store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(tmp_path_factory.mktemp("store"))
        yield


@pytest.fixture
def model(_store: None, small_model: Build) -> api.Model:
    """The model that is champion of `noise` in the working folder's store; samples of it are its test images."""
    if Path("run").exists():
        return api.Model(checkpoint.load(Path("run")))
    made = small_model(1)
    data = replace(made.data, fingerprints={"train": "0", "validation": "1", "test": "2"})
    checkpoint.save(Path("run"), replace(made, data=data), made.network.float().state_dict())
    model = api.Model(checkpoint.load(Path("run")))
    bits = model.bits_per_dim(model.sample(200, seed=1)).numpy()
    score = Score(bits_per_dim=float(bits.mean()), standard_error=0.01, num_images=len(bits))
    table = pd.DataFrame({"split": "test", "image": range(len(bits)), "bits_per_dim": bits})
    table.to_parquet("run.parquet")
    scores, nll = EvaluateReport(test=score, validation=score, train=score), Path("run.parquet")
    package = ModelPackage(Path("run"), "run", 0, "A card", scores, nll, nll)
    registry.register(package, min_gain=0.005, confidence=0.95)
    for file in ("dvc.yaml", "params.yaml"):
        Path(file).write_text("{}")
    return model


def write(folder: str, images: torch.Tensor) -> None:
    for number, image in enumerate(images):
        image_files.write(Path(folder) / f"{number}.png", image, 4)


def test_the_runs_on_the_images_that_grew_are_retrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((SUITES / "images.yaml").read_text())
    [entry] = params.load(Path("params.yaml")).images.values()
    assert drift._runs_on(Path(entry.path) / "train") == ["photographs-finetuned", "photographs-finetuned-label"]
    assert drift._runs_on(Path("elsewhere")) == []


def test_the_flow_tests_new_images_once_and_adds_those_that_drifted(
    model: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained: list[object] = []
    monkeypatch.setattr(drift, "retrain", lambda runs, **_: retrained.append(runs))
    monkeypatch.setattr(drift, "_runs_on", lambda place: [f"run on {place}"])
    monkeypatch.setattr(drift, "create_markdown_artifact", lambda *_, **__: None)

    def test(folder: str, add_to: str = "") -> tuple[str | None, str]:
        with disable_run_logger():
            state = drift.drift.fn("noise", folder, add_to)
        return state.name, state.message or ""

    write("usual", model.sample(40, seed=2))
    name, said = test("usual")
    assert (name, said[:20]) == ("Completed", "no drift: 40 images ")
    assert test("usual")[1] == "not tested: 40 images, the same as in test 1 of noise 1"

    write(
        "odd",
        torch.cat(
            [torch.zeros(30, 1, 5, 7, dtype=torch.uint8), torch.ones(30, 1, 5, 1).byte().cumsum(0).byte() % 4], 3
        ),
    )
    name, said = test("odd")
    assert name == "Drift"
    assert "of test 2; no image is added, since noise is no entry of params.yaml's `images`" in said
    assert not retrained
    Path("params.yaml").write_text("images: {noise: {path: own}}")
    Path("own/train").mkdir(parents=True)
    write("odd", model.sample(1, seed=3))
    add = drift._add

    def on_a_full_disk(*given: Any) -> str:
        with no_file_above(30):
            return add(*given)

    with monkeypatch.context() as patch:
        patch.setattr(drift, "_add", on_a_full_disk)
        with pytest.raises(OSError, match="File too large: 'own/train/"):
            test("odd")
    assert list(Path("own/train").iterdir()) == []  # and the test is not counted: the next one adds them
    assert test("odd")[1].endswith("5 images are added to own/train, and runs on them are trained")
    assert len(list(Path("own/train").iterdir())) == 5  # 30 files of which 4 differ, and a new one
    assert retrained == [["run on own/train"]]

    [run] = registry.store.existing().search_runs([registry.store.open_experiment("noise-drift")[1]])
    levels = registry.store.existing().get_metric_history(run.info.run_id, "level")
    assert [(point.step, point.value) for point in levels] == [(k, level(k, 0.05)) for k in (1, 2, 3)]


def test_files_that_are_no_images_of_the_model_are_counted_and_left_out(model: api.Model) -> None:
    write("new", model.sample(3, seed=0))
    image_files.write(Path("new/below/large.png"), torch.zeros(1, 9, 9, dtype=torch.uint8), 4)
    Path("new/broken.png").write_bytes(b"\x89PNG")
    found = drift.read_folder(Path("new"), tests.champion("noise"))
    assert found.images.shape == (3, 1, 5, 8)
    assert str(found).startswith("3 images, 2 left out (the first: new/below/large.png: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("nose", "new", "", 0.05), "models:/nose@champion: not in the registry"),
        (("noise", "old", "", 0.05), "old: no such folder"),
        (("noise", "new", "new/own", 0.05), "--add-to: new/own and new hold each other's images"),
        (("noise", "new", "models/x", 0.05), "which DVC deletes"),
        (("noise", "new", "", 5.0), "--alpha: 5 is not a probability between 0 and 1"),
    ],
)
@pytest.mark.usefixtures("model")
def test_what_cannot_be_tested_is_refused_before_the_work(given: tuple[str, str, str, float], message: str) -> None:
    Path("new").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=message):
        drift._checked(*given)


def test_a_class_conditional_champion_scores_its_test_images_without_labels_too(
    model: api.Model, small_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = tests.Champion("noise", 1, api.Model(small_model(1, condition="label")), {})
    with pytest.raises(ValueError, match="no data set in data/prepared has its test images to measure them without"):
        tests._of_test(champion, Path("data/prepared"))
    images = model.sample(5, seed=1)
    info = SimpleNamespace(splits={"test": SimpleNamespace(num_images=5)})
    monkeypatch.setattr(tests, "prepared_data", lambda *_: Path("data"))
    monkeypatch.setattr(tests, "read_info", lambda _: info)
    monkeypatch.setattr(tests, "read_rows", lambda *_: Split(images, torch.zeros(5, dtype=torch.int64)))
    measured = tests._of_test(champion, Path("data/prepared"))
    np.testing.assert_allclose(measured, champion.model.bits_per_dim(images))
    monkeypatch.delattr(tests, "read_rows")
    np.testing.assert_array_equal(tests._of_test(champion, Path("data/prepared")), measured)  # kept, not measured again
