"""`pixelcnn models` and `pixelcnn.load`: versions are listed, downloaded and loaded, without executing them."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pixelcnn
from pixelcnn import checkpoint
from pixelcnn.cli import main
from pixelcnn.model import Model
from pixelcnn.schemas import EvaluateReport, RegisterReport, Score
from tests.conftest import images
from tests.servers import free_port
from tests.test_architectures import model_of

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    import mlflow

    from pixelcnn.tracking import registry
    from pixelcnn.tracking.model_package import ModelPackage


class Bomb:
    """A pickle that creates a folder when it is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def register(kind: str, condition: str = "none") -> RegisterReport:
    """Register a tiny model of an architecture as a version of its data set's model."""
    model = model_of(kind, 1, condition)
    folder = Path("models") / f"{kind}-{condition}"
    checkpoint.save(folder, model, model.network.state_dict())
    bits = np.full(3, 2.5)
    nll = folder.with_suffix(".parquet")
    pd.DataFrame({"split": "test", "image": range(3), "bits_per_dim": bits}).to_parquet(nll)
    score = Score(bits_per_dim=2.5, standard_error=0.125, num_images=3)
    scores = EvaluateReport(test=score, validation=score, train=score)
    package = ModelPackage(folder, f"{kind}-run", 0, "**A card**", scores, nll, nll)
    return registry.register(package, min_gain=0.005, confidence=0.95)


@contextlib.contextmanager
def registered(folder: Path) -> Iterator[dict[str, RegisterReport]]:
    """A store with an unconditional, a class-conditional and an embedding-conditional model and an auto-encoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        kinds = {condition: register("gated_pixelcnn", condition) for condition in ("none", "label", "embedding")}
        yield kinds | {"code": register("pixelcnn_autoencoder", "code-map")}


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[dict[str, RegisterReport]]:
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_store, folder / "mlflow.db")
    with registered(folder) as made:
        yield made


def original(condition: str) -> Model:
    return checkpoint.load(next(Path("models").glob(f"*-{condition}*/config.json")).parent)


def test_the_list_has_a_row_per_version_with_its_test_score(
    receipts: dict[str, RegisterReport], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(receipts) + 2
    assert lines[-1].startswith("bundled: ")
    row = next(line for line in lines if line.startswith(f"{receipts['none'].name} "))
    assert all(word in row for word in ("champion", "2.500", "0.125", "gated_pixelcnn-run"))


def test_show_prints_the_card_of_a_model_that_comes_along(
    receipts: dict[str, RegisterReport],  # noqa: ARG001 (a registry without it)
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["models", "show", "cifar10-large"])
    shown = capsys.readouterr().out
    assert shown.startswith("cifar10-large, bundled with pixelcnn")
    assert 'pixelcnn.load("cifar10-large")' in shown


@pytest.mark.parametrize("form", ["{}", "{}@champion", "{}/1", "models:/{}@champion"])
def test_show_prints_the_card_for_every_form_of_the_name(
    receipts: dict[str, RegisterReport], capsys: pytest.CaptureFixture[str], form: str
) -> None:
    main(["models", "show", form.format(receipts["none"].name)])
    shown = capsys.readouterr().out
    assert f"{receipts['none'].name} version 1 (champion), run gated_pixelcnn-run" in shown
    assert "**A card**" in shown


def test_a_downloaded_model_works_in_any_folder_without_mlflow(
    receipts: dict[str, RegisterReport], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "download", receipts["none"].name, "-o", str(tmp_path / "mine")])
    assert "pixelcnn.load(" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    elsewhere = shutil.move(tmp_path / "mine", tmp_path / "elsewhere")
    model, x = pixelcnn.load(elsewhere), images(original("none"), 2)
    assert torch.equal(model.nll(x), original("none").nll(x))
    assert model.sample(2).shape == x.shape
    script = f"import sys, pixelcnn; pixelcnn.load({str(elsewhere)!r}); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_load_accepts_the_uri_of_a_registered_model(receipts: dict[str, RegisterReport]) -> None:
    x = images(original("none"), 2)
    assert torch.equal(pixelcnn.load(f"models:/{receipts['none'].name}@champion").nll(x), original("none").nll(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nobody"], "models:/nobody@champion: not in the registry, which has models:/"),
        (["show", "a@b@c"], "MODEL: 'a@b@c' is neither NAME"),
        (["download", "{}/7"], "/7: not in the registry, which has models:/"),
        (["download", "{}", "-o", "mlruns"], "--out: mlruns already exists"),
        (["download", "{}", "-o", "models/x"], "contains or is inside"),
    ],
)
def test_unknown_models_and_existing_folders_are_refused(
    receipts: dict[str, RegisterReport], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["models", *[argument.format(receipts["none"].name) for argument in arguments]])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_registry_that_does_not_answer_is_reported_in_one_line(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    env = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [sys.executable, "-m", "pixelcnn.cli", "models", "list"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"error: MLflow at {uri} does not answer" in done.stderr
    assert "Traceback" not in done.stderr


# Trust


def poison(folder: Path, trace: Path) -> list[Path]:
    """Replace every file of a folder, and files that other formats would unpickle, by a pickle that creates `trace`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    files += [
        folder / name for name in ("python_model.pkl", "model.pkl", "data/model.pth", "data/pickle_module_info.txt")
    ]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(Bomb(trace)))
    return files


def test_the_pickle_creates_the_folder_when_it_is_loaded(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


def test_no_file_of_a_poisoned_version_is_unpickled(receipts: dict[str, RegisterReport], tmp_path: Path) -> None:
    source = mlflow.artifacts.download_artifacts(f"models:/{receipts['none'].name}/1")
    version = Path(shutil.copytree(source, tmp_path / "version"))
    files = poison(version, tmp_path / "trace")
    assert len(files) > 20
    model = next(version.glob("artifacts/*"))
    with pytest.raises(ValueError, match=r"config\.json|utf-8"):
        pixelcnn.load(model)
    with pytest.raises(Exception, match=r".") as refused:
        mlflow.pyfunc.load_model(str(version))
    assert refused.type is not FileNotFoundError
    assert not (tmp_path / "trace").exists()


def test_poisoned_weights_are_refused_in_an_otherwise_intact_version(
    receipts: dict[str, RegisterReport], tmp_path: Path
) -> None:
    source = mlflow.artifacts.download_artifacts(f"models:/{receipts['none'].name}/1")
    version = Path(shutil.copytree(source, tmp_path / "version"))
    weights = next(version.rglob("model.safetensors"))
    weights.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    for load in (lambda: pixelcnn.load(weights.parent), lambda: mlflow.pyfunc.load_model(str(version))):
        with pytest.raises(Exception, match=r"sha256 is .* config\.json says .*: changed or damaged"):
            load()
    assert not (tmp_path / "trace").exists()
    config = json.loads((weights.parent / "config.json").read_text())
    assert set(config) == {"format", "model", "likelihood", "data", "weights_sha256"}


def test_weights_changed_on_disk_are_not_downloaded(
    receipts: dict[str, RegisterReport], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = registry.fetch(f"models:/{receipts['label'].name}/1") / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(SystemExit):
            main(["models", "download", receipts["label"].name, "-o", str(tmp_path / "out")])
        assert "changed or damaged" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    finally:
        weights.write_bytes(content)
