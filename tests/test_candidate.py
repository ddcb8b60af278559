"""A run as one folder holds all that a registry elsewhere needs of it; what is not whole is refused before writing."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

import pixelcnn
from pixelcnn import checkpoint, config
from pixelcnn.cli import main
from pixelcnn.tracking import model_package as candidate
from tests.conftest import DEMO, Build
from tests.report_files import write_json

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    import pixelcnn.tracking.registry

ROOT = Path(__file__).parent.parent
RUN = "digits-gated"
SCORES = {split: {"bits_per_dim": 2.5, "standard_error": 0.125, "num_images": 3} for split in ("test", "validation")}
TRAIN = {
    "steps": 600,
    "num_parameters": 1000,
    "flops_per_image": 1e9,
    "images_seen": 640,
    "seconds": 90.0,
    "hardware": "2 CPU cores",
}
CARD = {"title": "Noise", "licence": "free", "citation": "Somebody 1999"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Build) -> Path:
    """A folder with params.yaml, a model and what its stages reported; a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    shutil.copy(DEMO, tmp_path / "params.yaml")
    model = small_model(1)
    sha256 = checkpoint.save(Path("models") / RUN, model, model.network.state_dict())
    params = YAML(typ="safe").load(tmp_path / "params.yaml")
    params["runs"][RUN]["model"] = model.config.model_dump()
    YAML().dump(params, tmp_path / "params.yaml")
    write_json(Path("reports/preprocess/digits.json"), CARD)
    write_json(Path(f"reports/train/{RUN}.json"), TRAIN)
    write_json(Path(f"reports/evaluate/{RUN}.json"), SCORES)
    Path(f"reports/train/{RUN}.csv").write_text("step\n1\n")
    Path(f"reports/evaluate/{RUN}.png").write_bytes((ROOT / "docs/digits-label-samples.png").read_bytes())
    rows = {"split": ["test"] * 3 + ["validation"] * 3, "image": [0, 1, 2] * 2, "bits_per_dim": [2.0, 2.5, 3.0] * 2}
    measured(rows, sha256)
    return tmp_path


def measured(rows: dict[str, Any], sha256: str) -> None:
    """What the stage evaluate would have left."""
    table = pd.DataFrame(rows)
    table.attrs = {"weights_sha256": sha256}
    table.to_parquet(f"reports/evaluate/{RUN}.parquet")


def packed() -> Path:
    main(["models", "pack", RUN, "-o", "packed"])
    return Path("packed")


@pytest.mark.usefixtures("project")
def test_a_packed_run_is_the_candidate_that_it_was_packed_from() -> None:
    params = config.load(Path("params.yaml"))
    before = candidate.of_run(RUN, params, Path("models") / RUN, Path("reports"))
    after = candidate.unpack(packed())
    assert (after.run, after.seed, after.scores) == (before.run, before.seed, before.scores)
    assert after.card.strip() == before.card
    assert after.nll.read_bytes() == before.nll.read_bytes()
    assert after.samples.read_bytes() == before.samples.read_bytes()
    content = json.loads(Path("packed/run.json").read_text())
    assert content["train"] == TRAIN
    assert config.check(config.Run, content["params"]["run"], "run.json") == params.runs[RUN]
    cut = config.check(config.Preprocess, content["params"]["preprocess"], "run.json")
    assert cut == params.datasets["digits"].preprocess


@pytest.mark.usefixtures("project")
def test_the_card_says_what_was_measured_and_what_it_took() -> None:
    card = (packed() / "README.md").read_text()
    assert "| test | 2.5000 | 0.1250 | 3 |" in card
    assert "1 k parameters. Training: 90 s, 2 CPU cores; 640 images; 640 GFLOP." in card
    assert "Cite: Somebody 1999" in card


def test_a_packed_run_is_loaded_and_registered_in_another_project(
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packed()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move(project / "packed", elsewhere / "packed")
    shutil.copy(project / "params.yaml", elsewhere)
    monkeypatch.chdir(elsewhere)
    x = torch.zeros(2, 1, 5, 8, dtype=torch.uint8)
    assert torch.equal(pixelcnn.load("packed").nll(x), checkpoint.load(project / "models" / RUN).nll(x))
    for _ in range(2):  # the second time nothing new comes of it
        main(["models", "register", "packed"])
        assert "noise version 1 (champion): the first version of noise" in capsys.readouterr().out
    main(["models", "show", "noise"])
    assert "| test | 2.5000 | 0.1250 | 3 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "nobody", "-o", "packed"], "params.yaml: runs.nobody: missing; its runs are digits-gated"),
        (
            ["pack", "digits-gated-label", "-o", "packed"],
            "evaluate/digits-gated-label.json: no such file; run `dvc repro",
        ),
        (["pack", RUN, "-o", "models"], "--out: models is there already"),
        (["register", "models"], "models: no run.json there; `pixelcnn models pack RUN -o FOLDER` makes such a folder"),
    ],
)
@pytest.mark.usefixtures("project")
def test_what_is_not_whole_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["models", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("packed").exists()


@pytest.mark.usefixtures("project")
def test_damaged_weights_are_not_packed(capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path("models") / RUN / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SystemExit):
        packed()
    assert "changed or damaged" in capsys.readouterr().err
    assert not Path("packed").exists()


@pytest.mark.usefixtures("project")
def test_what_was_trained_again_and_not_evaluated_since_is_not_packed(
    small_model: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model(1)
    weights = {name: w + 1 for name, w in model.network.state_dict().items()}
    checkpoint.save(Path("models") / RUN, model, weights)
    with pytest.raises(SystemExit):
        packed()
    assert "measured with other weights than the model's" in capsys.readouterr().err
    assert not Path("packed").exists()


@pytest.mark.parametrize(("section", "key", "value"), [("train", "steps", 601), ("model", "num_layers", 3)])
@pytest.mark.usefixtures("project")
def test_a_run_that_params_no_longer_describe_is_not_packed(
    section: str, key: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    params = YAML(typ="safe").load(Path("params.yaml"))
    assert params["runs"][RUN][section][key] != value
    params["runs"][RUN][section][key] = value
    YAML().dump(params, Path("params.yaml"))
    with pytest.raises(SystemExit):
        packed()
    assert f"another model than params.yaml's runs.{RUN}; run `dvc repro train@{RUN}`" in capsys.readouterr().err


def better(folder: Path) -> None:
    table = pd.read_parquet(folder / f"{RUN}.parquet")
    table["bits_per_dim"] -= 0.1
    table.to_parquet(folder / f"{RUN}.parquet")


def fewer(folder: Path) -> None:
    pd.read_parquet(folder / f"{RUN}.parquet").drop(index=1).to_parquet(folder / f"{RUN}.parquet")


def without_scores(folder: Path) -> None:
    content = json.loads((folder / "run.json").read_text())
    del content["scores"]
    (folder / "run.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / f"{RUN}.png").unlink(), f"packed: no {RUN}.png there; pack the run again"),
        (lambda folder: (folder / f"{RUN}.parquet").unlink(), f"packed: no {RUN}.parquet there; pack the run again"),
        (lambda folder: (folder / "run.json").write_text("{"), "run.json: not as `pixelcnn models pack` wrote it"),
        (without_scores, "run.json: not as `pixelcnn models pack` wrote it: KeyError('scores')"),
        (better, "3 images of test with 2.4000 bits/dim, claimed are 3 with 2.5000; pack the run again"),
        (fewer, "2 images of test with 2.5000 bits/dim, claimed are 3 with 2.5000; pack the run again"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json: not a model of pixelcnn: no model"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_folder_that_changed_after_packing_registers_nothing(
    harm: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(packed())
    with pytest.raises(SystemExit) as end:
        main(["models", "register", "packed"])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("mlflow.db").exists()


@pytest.mark.usefixtures("project")
def test_a_folder_with_the_name_of_a_model_that_comes_along_is_not_taken_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["models", "pack", RUN, "-o", "cifar10"])
    assert "`pixelcnn sample ./cifar10` anywhere" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"cifar10: comes with pixelcnn, and is a folder here too; \./cifar10 means"):
        pixelcnn.load("cifar10")
    for source in ("./cifar10", Path("cifar10")):
        assert pixelcnn.load(source).data.dataset == "noise"
