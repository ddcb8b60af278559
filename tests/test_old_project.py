"""A project that the first release left on disk still serves: its models load, answer as before and decode archives."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

import pixelcnn
from pixelcnn import params
from pixelcnn.data.dataset import read_split
from pixelcnn.migrations import migrated
from tests import old_project

ROOT = Path(__file__).parent.parent
INTERRUPTED = "digits-plus"
STAGE = ["-m", "pixelcnn.stages.train", INTERRUPTED, "--data", "data/prepared/digits"]
VERSIONS = ["digits/1", "digits/2", "digits-class-conditional/1", "digits-autoencoder-3/1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_project.restore(tmp_path_factory.mktemp("old") / "project")


@pytest.fixture(scope="module")
def expected(project: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project / "expected.json").read_text())
    assert list(content["bits_per_dim"]) == sorted(VERSIONS, key=list(content["bits_per_dim"]).index)
    return content


def python(folder: Path, *arguments: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_prepared_data_are_read(project: Path, expected: dict[str, Any]) -> None:
    images = read_split(project / "data/prepared/digits", "test").images[:40]
    assert hashlib.sha256(images.numpy().tobytes()).hexdigest() == expected["images_sha256"]


def test_registered_versions_answer_as_before_by_pyfunc_and_by_load(project: Path, expected: dict[str, Any]) -> None:
    """MLflow finds the code of the first release in a version; what is imported already is the code of today."""
    script = f"""if True:
        import json, mlflow, pixelcnn, torch
        from pathlib import Path
        from pixelcnn.data.dataset import read_split
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        images = read_split(Path("data/prepared/digits"), "test").images[:40]
        answers = {{name: mlflow.pyfunc.load_model(f"models:/{{name}}").predict(images.numpy()).tolist()
                    for name in {VERSIONS}}}
        loaded = {{name: pixelcnn.load(f"models:/{{name}}").given for name in {VERSIONS}}}
        print(json.dumps([answers, loaded]))
    """
    answers, loaded = json.loads(python(project, "-c", script).splitlines()[-1])
    for name, bits in expected["bits_per_dim"].items():
        np.testing.assert_allclose(answers[name], bits, rtol=1e-5, err_msg=name)
    assert list(loaded.values()) == ["none", "none", "label", "code"]


def test_once_it_is_moved_its_versions_load_and_its_runs_go_on(tmp_path: Path) -> None:
    """Its store has absolute locations, of which there are relative ones after the first use."""
    moved = old_project.restore(tmp_path / "first").rename(tmp_path / "moved_100%")
    script = f"""if True:
        import mlflow, pixelcnn, sqlite3
        from pathlib import Path
        from pixelcnn.tracking import runs
        loaded = {{name: pixelcnn.load(f"models:/{{name}}") for name in {VERSIONS}}}
        served = mlflow.pyfunc.load_model("models:/digits/1")
        with runs.run_of_weights("digits", loaded["digits/1"].inner.weights_sha256, "x") as log:
            log.log_files({{"samples": Path("params.yaml")}})
        tables = "\\n".join(sqlite3.connect("mlflow.db").iterdump())
        print(tables.count("first/mlruns/digits"))
    """
    assert python(moved, "-c", script).splitlines()[-1] == "0"
    assert len(list(moved.glob("mlruns/digits/*/artifacts/samples/params.yaml"))) == 1
    assert not (tmp_path / "first").exists()


def test_model_folders_load(project: Path, expected: dict[str, Any]) -> None:
    images = read_split(project / "data/prepared/digits", "test").images[:40]
    model = pixelcnn.load(project / "models" / "digits-gated")
    np.testing.assert_allclose(model.bits_per_dim(images).numpy(), expected["bits_per_dim"]["digits/1"], rtol=1e-5)


def test_an_archive_decodes(project: Path) -> None:
    call = "from pixelcnn.cli import main; main()"
    python(project, "-c", call, "decompress", "models/digits-gated", "digits.pxc", "-o", "restored")
    assert len(list((project / "restored").glob("*.png"))) == 40


def test_its_params_are_refused_with_what_would_be_right(project: Path) -> None:
    with pytest.raises(ValueError, match=r"runs\.digits-gated\.likelihood: missing") as error:
        params.load(project / "params.yaml")
    assert "runs.digits-plus.model.name: 'pixelcnn++' is called 'pixelcnnpp' now" in str(error.value)
    assert "evaluate.samples_per_class: is sample.per_class now" in str(error.value)
    assert "params.yaml: shared: missing" in str(error.value)


@pytest.mark.slow
def test_its_interrupted_training_begins_anew_and_says_so(project: Path, expected: dict[str, Any]) -> None:
    content = YAML(typ="safe").load(project / "params.yaml")
    for run in content["runs"].values():
        sections = migrated({"model": run["model"]}, "params.yaml")
        run |= {"model": sections["model"], "likelihood": sections["likelihood"]}
        run["train"] |= {"schedule": {"name": "cosine"}, "initial": None}
    for dataset in content["datasets"].values():
        dataset["preprocess"]["class_names"] = None
    evaluate, content["shared"], content["images"] = content["evaluate"], {}, {}
    content["sample"] = {
        "per_class": evaluate.pop("samples_per_class"), "seed": 0, "temperature": evaluate.pop("temperature"),
    }  # fmt: skip
    with (project / "params.yaml").open("w") as file:
        YAML().dump(content, file)
    said = python(project, *STAGE, "--out", f"models/{INTERRUPTED}", "--report", f"reports/train/{INTERRUPTED}")
    assert "belongs to other params or data and is not resumed" in said
    description = json.loads((project / "models" / INTERRUPTED / "config.json").read_text())
    assert description["weights_sha256"] == expected["interrupted"]["weights_sha256"]
