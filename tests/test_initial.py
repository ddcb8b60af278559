"""`train.initial`: the stage train gives a model the weights that it names, and says what both trainings cost."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pixelcnn import checkpoint, params, pretrained
from pixelcnn.cli.suite import SUITES
from pixelcnn.model import Data, Model, build
from pixelcnn.params import Run
from pixelcnn.reporting.reports import cost
from pixelcnn.schemas import Initial, Trained, TrainReport
from pixelcnn.stages import train
from pixelcnn.training.distributed import World
from tests.conftest import Build, images
from tests.test_training import SETTINGS

REPORT: dict[str, Any] = {
    "step": 2, "steps": 2, "validation_bits_per_dim": 1.0, "train_bits_per_dim": 1.0, "num_parameters": 5,
    "flops_per_image": 10.0, "images_seen": 30, "seconds": 1.0, "hardware": "2 CPU cores",
}  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Build) -> tuple[Model, str]:
    """A trained model, which lies in models/first, and the sha256 of its weights."""
    monkeypatch.chdir(tmp_path)
    model = small_model(1)
    model.network.float()
    for weight in model.network.parameters():
        weight.data.add_(0.1)
    sha256 = checkpoint.save(Path("models/first"), model, model.network.state_dict())
    Trained(images_seen=70, flops=700.0).write(Path("models/first") / checkpoint.TRAINING)
    return model, sha256


def started(model: Model, source: str, sha256: str) -> Initial | None:
    settings = SETTINGS | {"initial": {"model": source, "weights_sha256": sha256}}
    sections = {"model": model.config.model_dump(), "likelihood": model.likelihood_config.model_dump()}
    run = Run.model_validate({"description": "", "dataset": "noise", "train": settings} | sections)
    return train._initial(run, "second", model, World(0, 1))


@pytest.mark.parametrize("source", ["first", "models/first"])
def test_a_run_or_a_folder_gives_its_weights_and_its_cost(
    trained: tuple[Model, str], small_model: Build, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, sha256), second = trained, small_model(1)
    second.network.float()
    initial = started(second, source, sha256)
    assert initial == Initial(model=source, weights_sha256=sha256, images_seen=70, flops=700.0)
    x = images(second, 3)
    assert torch.equal(second.nll(x), first.nll(x))
    assert f"second: starting from the weights of {source} ({sha256[:12]})" in capsys.readouterr().out
    report = TrainReport.model_validate(REPORT | {"initial": initial})
    assert (report.trained.images_seen, report.trained.flops) == (100, 1000.0)
    assert cost(report).endswith(f"300 FLOP; from the weights of {source} (1 kFLOP in all)")


def test_other_weights_than_those_of_the_hash_are_refused_with_the_hash_to_write(
    trained: tuple[Model, str], small_model: Build
) -> None:
    with pytest.raises(ValueError, match=rf"^runs\.second\.train\.initial: .* of sha256 {trained[1]}; write that"):
        started(small_model(1), "first", "0" * 64)
    with pytest.raises(ValueError, match=r"^runs\.second\.train\.initial: nobody: neither a folder nor a bundled"):
        started(small_model(1), "nobody", "0" * 64)
    with pytest.raises(ValueError, match=r"^runs\.second\.train\.initial: gated_pixelcnn has other weights than"):
        started(small_model(1, num_layers=3), "first", trained[1])


def test_the_bundled_weights_from_which_suites_start_are_those_they_name_and_fit() -> None:
    found = 0
    for path in sorted(SUITES.glob("*.yaml")):
        for name, run in params.load(path).runs.items():
            if run.train.initial and run.train.initial.model in pretrained.folders():
                data = Data(run.dataset, (3, 32, 32), 256, ("bird", "dog"), {})
                assert train._initial(run, name, build(run.model, run.likelihood, data), World(0, 1)) is not None
                found += 1
    assert found, "the suite `images` has some"
