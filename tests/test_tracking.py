"""What a training says arrives in MLflow under names one can search, once, and whatever happens to the store."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from PIL import Image

from pixelcnn.data.dataset import Card, SplitCard
from pixelcnn.tracking import outbox, store
from pixelcnn.tracking import runs as tracking
from tests.servers import free_port, mlflow_server
from tests.test_datasets import card

PARAMS = {"dataset": "digits", "model": {"name": "gated_pixelcnn", "sizes": [3, 5]}, "train": {"steps": 9}}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, which take seconds to make, for tests to copy."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with an empty local store. MLflow keeps a store per URI, so the URI is an absolute one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "LOCAL_STORE", tmp_path / "mlflow.db")
    monkeypatch.setattr(outbox, "SECONDS_BETWEEN_DELIVERIES", 0.05)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")  # which MLflow sets itself, too
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    before = mlflow.get_tracking_uri()
    yield tmp_path
    mlflow.set_tracking_uri(before)


def data() -> Card:
    return card(dataset="noise", splits={"test": SplitCard(num_images=7, fingerprint="f" * 64, shards=())})


def train(steps: range, run_id: str | None = None) -> str:
    with tracking.training_run("a-run", "What it is", PARAMS, data(), run_id) as training:
        for step in steps:
            tracking.log({"train_bits_per_dim": 1 / step, "learning_rate": 0.1}, step)
    return training


def runs() -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{store.LOCAL_STORE}")
    experiment = client.get_experiment_by_name("noise")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def steps_of(run: Run, key: str = "training/train_bits_per_dim") -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{store.LOCAL_STORE}")
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def artifacts(run: Run) -> set[str]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_has_flat_params_its_data_set_curves_over_steps_and_the_environment(here: Path) -> None:
    (here / "dvc.lock").write_text("schema: '2.0'\n")
    train(range(1, 4))
    (run,) = runs()
    assert run.info.run_name == "a-run"
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "dataset": "digits", "model.name": "gated_pixelcnn", "model.sizes": "[3, 5]", "train.steps": "9",
    }  # fmt: skip
    assert run.data.tags["mlflow.note.content"] == "What it is"
    assert len(run.data.tags["dvc_lock_sha256"]) == 64
    assert run.inputs.dataset_inputs[0].dataset.name == "noise"
    assert steps_of(run) == [1, 2, 3]
    assert {"environment/requirements.txt", "environment/config.json"} == artifacts(run)
    assert not list(here.glob("mlruns/_unsent/*"))


def test_what_was_measured_is_found_by_the_weights_and_replaces_nothing(here: Path) -> None:
    (here / "samples.png").write_bytes(b"png")
    with tracking.training_run("a-run", "", PARAMS, data(), None):
        tracking.log({"validation_bits_per_dim": 2.0}, 7)
        tracking.finish({"validation_bits_per_dim": 1.0, "seconds": 8.0}, "cafe", {})
    before = runs()[0].info
    for score in (1.5, 1.25):  # evaluated twice
        with tracking.run_of_weights("noise", "cafe", "a-run") as run_id:
            scores = {"test": {"bits_per_dim": score, "standard_error": 0.5}}
            tracking.measured(scores, {"samples": here / "samples.png"})
    (run,) = runs()
    assert run.info.run_id == run_id
    assert run.data.metrics == {
        "training/validation_bits_per_dim": 2.0, "usage/seconds": 8.0, "test_bits_per_dim": 1.25,
        "test_standard_error": 0.5,
    }  # fmt: skip
    assert (run.info.status, run.info.end_time) == (before.status, before.end_time), "its duration is the training's"
    table = json.loads(Path(run.info.artifact_uri.removeprefix("file://"), "scores.json").read_text())
    assert table == {"columns": ["split", "bits_per_dim", "standard_error"], "data": [["test", 1.25, 0.5]]}
    assert "samples/samples.png" in artifacts(run)


def test_weights_that_the_store_does_not_know_get_a_run_that_says_so() -> None:
    with tracking.run_of_weights("noise", "cafe", "a-run"):
        pass
    with tracking.run_of_weights("noise", "cafe", "a-run"):
        assert mlflow.active_run() is not None
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert "DVC" in run.data.tags["adopted"]


def test_pictures_have_a_step(here: Path) -> None:
    Image.new("L", (4, 4)).save(here / "grid.png")
    with tracking.training_run("a-run", "", PARAMS, data(), None):
        for step in (10, 20):
            tracking.log_picture("samples", here / "grid.png", step)
    names = [name for name in artifacts(runs()[0]) if name.endswith(".png")]
    assert sorted(name.partition("+timestamp")[0] for name in names) == [
        "images/training~samples+step+10",
        "images/training~samples+step+20",
    ]


def stopped_at_step_1() -> str:
    with contextlib.suppress(SystemExit), tracking.training_run("a-run", "", PARAMS, data(), "a-training") as training:
        tracking.log({"train_bits_per_dim": 1}, 1)
        sys.exit(143)
    return training


def test_a_resumed_training_continues_its_run() -> None:
    training = stopped_at_step_1()
    assert runs()[0].info.status == "KILLED"
    assert train(range(2, 4), run_id=training) == training
    (run,) = runs()
    assert steps_of(run) == [1, 2, 3]
    assert run.info.status == "FINISHED"


def test_a_training_that_fails_is_marked_so() -> None:
    with pytest.raises(FloatingPointError), tracking.training_run("a-run", "", PARAMS, data(), None):
        raise FloatingPointError
    assert runs()[0].info.status == "FAILED"


def test_system_metrics_are_there_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SECONDS_BETWEEN_SYSTEM_METRICS", 0.01)
    with tracking.training_run("a-run", "", PARAMS, data(), None):
        tracking.log({"train_bits_per_dim": 1}, 40)
        time.sleep(0.3)
    (run,) = runs()
    assert 0 < run.data.metrics["system/system_memory_usage_percentage"] <= 100
    assert 40 in steps_of(run, "system/cpu_utilization_percentage")


@contextlib.contextmanager
def store_is_down() -> Iterator[None]:
    def down(_: str) -> None:
        raise mlflow.MlflowException("connection refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_open", down)
        yield


def test_a_store_that_is_down_costs_a_training_nothing_and_gets_it_later(capsys: pytest.CaptureFixture[str]) -> None:
    with store_is_down():
        training = train(range(1, 4))
        with tracking.run_of_weights("noise", "cafe", "a-run") as run_id:
            assert run_id == ""
            tracking.measured({"test": {"bits_per_dim": 1.5, "standard_error": 0.5}}, {})
    said = capsys.readouterr().err
    assert "does not answer (connection refused)" in said
    assert "the rest waits in mlruns/_unsent/" in said
    train(range(4, 6), run_id=training)  # the same training resumed: what it could not send comes first
    trained = next(run for run in runs() if "training" in run.data.tags)
    assert steps_of(trained) == [1, 2, 3, 4, 5]
    assert len(runs()) == 2
    assert not list(Path("mlruns/_unsent").iterdir())


def test_what_needs_the_store_says_that_it_is_down() -> None:
    with (
        store_is_down(),
        pytest.raises(ConnectionError, match=r"MLflow at sqlite:.*does not answer: connection refused"),
    ):
        store.connect("noise")


def test_a_store_that_mlflow_cannot_use_here_costs_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """mlflow-skinny knows no database."""

    def refuse(*_: object) -> None:
        raise UnsupportedModelRegistryStoreURIException("sqlite:///mlflow.db", ["file"])

    scores = {"test": {"bits_per_dim": 2.0, "standard_error": 0.1, "num_images": 7}}
    with monkeypatch.context() as patched:
        patched.setattr(store, "_client", refuse)
        with pytest.raises(ConnectionError, match=r"MLflow cannot use sqlite:.* here: Model registry"):
            store.connect("noise")
        with tracking.run_of_weights("noise", "a" * 64, "a-run"):
            tracking.measured(scores, {})
    assert "does not answer" in capsys.readouterr().err
    store.connect("noise")  # where MLflow is whole: what waits is sent
    (run,) = runs()
    assert run.data.metrics["test_bits_per_dim"] == 2.0


def test_what_was_meant_for_one_store_is_not_sent_to_another(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = outbox.Outbox.create(store.UNSENT / "1", {"store": "http://elsewhere:5000", "experiment": "noise"})
    box.put({"metrics": {"x": 1.0}, "step": 1, "time": 1})
    box.release()
    store.connect("noise")
    assert runs() == []
    assert (here / store.UNSENT / "1").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@elsewhere:5000/path")
    assert store.address() == "http://elsewhere:5000/path"


def test_what_the_store_refuses_is_said_to_be_lost_and_the_rest_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    with tracking.training_run("a-run", "", PARAMS, data(), None):
        tracking._put({"params": {"dataset": "another"}})  # MLflow lets no param change
        tracking.log({"train_bits_per_dim": 1}, 1)
    assert "MLflow refuses params of a run, so they are lost" in capsys.readouterr().err
    assert steps_of(runs()[0]) == [1]


# With processes and servers as users have them

TRAINING = """
import sys, time
from pathlib import Path
from pixelcnn.tracking import runs as tracking
from tests.test_tracking import PARAMS, data
with tracking.training_run(sys.argv[1], "", PARAMS, data(), None):
    for step in range(1, int(sys.argv[2]) + 1):
        tracking.log({"a": step, "b": 1 / step}, step)
        time.sleep(float(sys.argv[3]))
    while not Path("go").exists():
        time.sleep(0.1)
"""


def environment(uri: str | None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return kept | ({} if uri is None else {"MLFLOW_TRACKING_URI": uri})


def start(here: Path, name: str, steps: int, pause: float, uri: str | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", TRAINING, name, str(steps), str(pause)]
    env = environment(uri) | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    return subprocess.Popen(command, cwd=here, env=env, stderr=subprocess.PIPE, text=True)


def count(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        counted: int = connection.execute("select count(*) from metrics where key like 'training/%'").fetchone()[0]
    connection.close()
    return counted


@pytest.mark.slow
def test_four_trainings_at_once_lose_nothing(here: Path) -> None:
    (here / "go").touch()
    (here / "mlflow.db").unlink()  # so that all four meet a store that is not there
    children = [start(here, f"run-{n}", 200, 0.01) for n in range(4)]
    said = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, said
    assert count(here / "mlflow.db") == 4 * 200 * 2
    assert not list((here / store.UNSENT).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_server_killed_in_the_middle_of_a_training_gets_all_in_the_end(here: Path, comes_back: bool) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(here / "server", port) as server:
        child = start(here, "a-run", 1000, 0.01, uri)
        database = here / "server" / "mlflow.db"
        while count(database) < 100:
            time.sleep(0.1)
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert child.poll() is None, "the server dies in the middle"
    if comes_back:
        with mlflow_server(here / "server", port):
            (here / "go").touch()
            said = child.communicate()[1]
        assert "answers again" in said
    else:
        (here / "go").touch()
        said = child.communicate()[1]
        assert "the rest waits in mlruns/_unsent/" in said
        assert count(database) < 2000
        with mlflow_server(here / "server", port):
            command = [sys.executable, "-m", "pixelcnn.tracking.runs"]
            sent = subprocess.run(command, cwd=here, env=environment(uri), capture_output=True, text=True, check=True)
            assert "1 run" in sent.stdout
    assert child.returncode == 0, said
    assert "does not answer" in said
    assert count(database) == 2000
    assert not list((here / store.UNSENT).iterdir())


def test_processes_that_meet_a_new_store_at_once_all_find_its_tables(here: Path) -> None:
    folder = here / "new"
    folder.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    ask = [sys.executable, "-c", "from pixelcnn import store; store.connect('noise').search_experiments(max_results=1)"]
    processes = [subprocess.Popen(ask, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",), "writers would wait for readers"
