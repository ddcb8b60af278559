"""Packing a run as one folder and registering it elsewhere; an incomplete run or folder is refused before writing."""

import json
import os
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
from pixelcnn import checkpoint, params
from pixelcnn.cli import main
from pixelcnn.config import check
from pixelcnn.data.config import Preprocess
from pixelcnn.generation.grids import save_grid
from pixelcnn.tracking import model_package
from tests.conftest import DEMO, Build
from tests.report_files import write_json
from tests.test_datasets import card

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    from pixelcnn.stages import register

RUN = "digits-gated"
SPLITS = ("test", "validation", "train")
SCORES = {split: {"bits_per_dim": 1.25, "standard_error": 0.125, "num_images": 3} for split in SPLITS}
TRAIN = {
    "step": 600,
    "steps": 600,
    "validation_bits_per_dim": 2.5,
    "train_bits_per_dim": 2.5,
    "num_parameters": 1000,
    "flops_per_image": 1e9,
    "images_seen": 640,
    "seconds": 90.0,
    "hardware": "2 CPU cores",
    "exact": True,
}
CARD = card(title="Noise", licence="free", citation="Somebody 1999").model_dump(mode="json")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Build) -> Path:
    """A working folder with params.yaml, a model, the reports of its stages, and an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    shutil.copy(DEMO, tmp_path / "params.yaml")
    model = small_model(1)
    sha256 = checkpoint.save(Path("models") / RUN, model, model.network.state_dict())
    content = YAML(typ="safe").load(tmp_path / "params.yaml")
    content["runs"][RUN]["model"] = model.config.model_dump()
    YAML().dump(content, tmp_path / "params.yaml")
    write_json(Path("reports/preprocess/digits.json"), CARD)
    write_json(Path(f"reports/train/{RUN}.json"), TRAIN)
    write_json(Path(f"reports/evaluate/{RUN}.scores.json"), SCORES)
    Path(f"reports/train/{RUN}.csv").write_text("step\n1\n")
    drawn(sha256)
    names = [split for split in SPLITS for _ in range(3)]
    rows = {"split": names, "image": [0, 1, 2] * 3, "bits_per_dim": [1.0, 1.25, 1.5] * 3}
    measured(rows, sha256)
    return tmp_path


def measured(rows: dict[str, Any], sha256: str) -> None:
    """Write the table of NLLs, as the stage evaluate does."""
    table = pd.DataFrame(rows)
    table.attrs = {"weights_sha256": sha256}
    table.to_parquet(f"reports/evaluate/{RUN}.parquet")


def drawn(sha256: str) -> None:
    """Write a sample grid, as the stage sample does."""
    zeros = torch.zeros(2, 1, 5, 8, dtype=torch.uint8)
    save_grid(Path(f"reports/sample/{RUN}.png"), zeros, 2, 4, weights_sha256=sha256)


def packed() -> Path:
    main(["models", "pack", RUN, "-o", "packed"])
    return Path("packed")


@pytest.mark.usefixtures("project")
def test_unpacking_gives_the_package_that_was_packed() -> None:
    loaded = params.load(Path("params.yaml"))
    before = model_package.of_run(RUN, loaded, Path("models") / RUN, Path("reports"))
    write_json(before.folder / "embedder" / "config.json", {})  # as of a model given embeddings
    after = model_package.unpack(packed())
    assert (after.run, after.seed, after.scores) == (before.run, before.seed, before.scores)
    assert after.card.strip() == before.card
    assert after.nll.read_bytes() == before.nll.read_bytes()
    assert after.samples.read_bytes() == before.samples.read_bytes()
    assert (after.folder / "embedder" / "config.json").is_file()
    content = json.loads(Path("packed/run.json").read_text())
    assert content["train"] == TRAIN
    assert check(params.Run, content["params"]["run"], "run.json") == loaded.runs[RUN]
    preprocess = check(Preprocess, content["params"]["preprocess"] | {"class_names": None}, "run.json")
    assert preprocess == loaded.datasets["digits"].preprocess


@pytest.mark.usefixtures("project")
def test_the_card_has_the_scores_the_cost_of_training_and_the_citation() -> None:
    card = (packed() / "README.md").read_text()
    assert "| test | 1.2500 | 0.1250 | 3 |" in card
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
    assert torch.equal(pixelcnn.load("packed").nll(x), pixelcnn.load(project / "models" / RUN).nll(x))
    for _ in range(2):  # the second time adds no version
        main(["models", "register", "packed"])
        said = capsys.readouterr().out
        assert "noise version 1 (challenger): its scores are unverified: no data set in data/prepared" in said
    main(["models", "show", "noise@challenger"])
    assert "| test | 1.2500 | 0.1250 | 3 |" in capsys.readouterr().out


def test_an_experiment_registers_nothing_until_it_is_asked_to(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = project / "reports" / "register" / f"{RUN}.json"
    monkeypatch.setenv("DVC_EXP_NAME", "flaky-bird")
    monkeypatch.setattr(
        "sys.argv", ["register", RUN, "--model", f"models/{RUN}", "--reports", "reports", "--out", str(report)]
    )
    register.main()
    content = json.loads(report.read_text())
    assert content["registered"] is False
    assert f"`dvc exp apply flaky-bird`, `pixelcnn models register models/{RUN}` registers it" in content["reason"]
    assert not Path("mlflow.db").exists()
    monkeypatch.delenv("DVC_EXP_NAME")
    main(["models", "register", f"models/{RUN}"])
    asked = report.read_text()
    assert "noise version 1 (champion): the first version of noise" in capsys.readouterr().out
    assert json.loads(asked)["registered"] is True
    register.main()  # as `dvc repro` does, since the report has changed
    assert report.read_text() == asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "nobody", "-o", "packed"], "params.yaml: runs.nobody: missing; its runs are digits-gated"),
        (
            ["pack", "digits-gated-label", "-o", "packed"],
            "evaluate/digits-gated-label.scores.json: no such file; run `dvc repro",
        ),
        (["pack", RUN, "-o", "params.yaml"], "--out: params.yaml is a file; give the path of a folder"),
        (["register", "models"], "models: no run.json there; `pixelcnn models pack RUN -o FOLDER` makes such a folder"),
    ],
)
@pytest.mark.usefixtures("project")
def test_unknown_unfinished_and_existing_names_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
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
def test_a_model_that_was_trained_again_after_its_evaluation_is_not_packed(
    small_model: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model(1)
    weights = {name: w + 1 for name, w in model.network.state_dict().items()}
    checkpoint.save(Path("models") / RUN, model, weights)
    with pytest.raises(SystemExit):
        packed()
    assert "measured with other weights than the model's" in capsys.readouterr().err
    assert not Path("packed").exists()


@pytest.mark.usefixtures("project")
def test_a_model_that_was_trained_again_after_its_samples_were_drawn_is_not_packed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn("0" * 64)
    with pytest.raises(SystemExit):
        packed()
    assert f"drawn with other weights than the model's; run `dvc repro sample@{RUN}`" in capsys.readouterr().err
    assert not Path("packed").exists()


@pytest.mark.parametrize(("section", "key", "value"), [("train", "steps", 601), ("model", "num_layers", 3)])
@pytest.mark.usefixtures("project")
def test_a_model_that_differs_from_its_run_in_params_is_not_packed(
    section: str, key: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    content = YAML(typ="safe").load(Path("params.yaml"))
    assert content["runs"][RUN][section][key] != value
    content["runs"][RUN][section][key] = value
    YAML().dump(content, Path("params.yaml"))
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


def endless_seed(folder: Path) -> None:
    content = json.loads((folder / "run.json").read_text())
    content["params"]["run"]["train"]["seed"] = 10**30
    (folder / "run.json").write_text(json.dumps(content))


def card_of_another_file(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            endless_seed,
            "packed/run.json: params.run.train.seed: Input should be less than 2147483648; pack the run again",
        ),
        (card_of_another_file, "packed/README.md: is a link or a device; a package has plain files only"),
        (lambda folder: os.mkfifo(folder / "x"), "packed/x: is a link or a device; a package has plain files only"),
        (lambda folder: (folder / f"{RUN}.png").write_bytes(b"GIF89a"), f"packed/{RUN}.png: is not an image of PNG"),
        (lambda folder: (folder / f"{RUN}.png").unlink(), f"packed: no {RUN}.png there; pack the run again"),
        (lambda folder: (folder / f"{RUN}.parquet").unlink(), f"packed: no {RUN}.parquet there; pack the run again"),
        (lambda folder: (folder / "run.json").write_text("{"), "packed/run.json: not JSON: "),
        (without_scores, "packed/run.json: scores: Field required; pack the run again"),
        (
            better,
            "3 images of test with 1.1500 bits/dim, but 3 with 1.2500 are reported; pack the run again",
        ),
        (
            fewer,
            "2 images of test with 1.2500 bits/dim, but 3 with 1.2500 are reported; pack the run again",
        ),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json: not a model of pixelcnn: no model"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_folder_that_was_changed_after_packing_is_not_registered(
    harm: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(packed())
    with pytest.raises(SystemExit) as end:
        main(["models", "register", "packed"])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("mlflow.db").exists()


@pytest.mark.usefixtures("project")
def test_a_folder_with_the_name_of_a_bundled_model_has_to_be_given_as_a_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["models", "pack", RUN, "-o", "cifar10"])
    assert "`pixelcnn sample ./cifar10 -o samples.png` anywhere" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"cifar10: both a bundled model and a folder here; write \./cifar10"):
        pixelcnn.load("cifar10")
    for source in ("./cifar10", Path("cifar10")):
        assert pixelcnn.load(source).inner.data.dataset == "noise"
