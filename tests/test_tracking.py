"""What a training logs arrives in MLflow exactly once, under searchable names, also when the store is down."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from PIL import Image

from pixelcnn.cli import main
from pixelcnn.config import Given
from pixelcnn.data.dataset import DatasetInfo, SplitInfo
from pixelcnn.tracking import records, store
from pixelcnn.tracking import runs as tracking
from pixelcnn.tracking.records import Record
from pixelcnn.tracking.runs import RunLog
from tests.servers import free_port, mlflow_server
from tests.test_datasets import card

PARAMS = {"dataset": "digits", "model": {"name": "gated_pixelcnn", "sizes": [3, 5]}, "train": {"steps": 9}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an empty local store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "INTERVAL", 0.05)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def data() -> DatasetInfo:
    return card(dataset="noise", splits={"test": SplitInfo(num_images=7, fingerprint="f" * 64, shards=())})


def begin(
    name: str = "a-run", training: str | None = None, key: str = "a-run-0", experiment: str = ""
) -> AbstractContextManager[RunLog]:
    return tracking.training_run(name, "What it is", PARAMS, data(), training, key, experiment)


def train(steps: range, training: str | None = None) -> str:
    with begin(training=training) as run:
        for step in steps:
            run.log({"train_bits_per_dim": 1 / step, "learning_rate": 0.1}, step)
    return run.training


def nothing_is_lacking() -> bool:
    """Whether the store has every record as it is on disk."""
    return store.sync() == 0


def runs() -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{store.LOCAL_STORE.resolve()}")
    experiment = client.get_experiment_by_name("noise")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def steps_of(run: Run, key: str = "training/train_bits_per_dim") -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{store.LOCAL_STORE.resolve()}")
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def artifacts(run: Run) -> set[str]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_has_flat_params_a_dataset_training_curves_and_the_environment(here: Path) -> None:
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
    assert nothing_is_lacking()


def test_a_training_by_an_experiment_has_its_name_and_a_tag() -> None:
    with begin(experiment="flaky-bird"):
        pass
    (run,) = runs()
    assert run.info.run_name == "a-run, flaky-bird"
    assert run.data.tags["dvc_experiment"] == "flaky-bird"


def test_measurements_are_added_to_the_run_of_the_weights(here: Path) -> None:
    (here / "samples.png").write_bytes(b"png")
    with begin() as log:
        log.log({"validation_bits_per_dim": 2.0}, 7)
        log.finish({"validation_bits_per_dim": 1.0, "seconds": 8.0}, "cafe", {})
    before = runs()[0].info
    for score in (1.5, 1.25):  # evaluated twice
        with tracking.run_of_weights("noise", "cafe", "a-run") as log:
            log.measured({"test": {"bits_per_dim": score, "standard_error": 0.5}}, Given.NONE)
            log.log_files({"samples": here / "samples.png"})
    (run,) = runs()
    assert run.data.metrics == {
        "training/validation_bits_per_dim": 2.0, "usage/seconds": 8.0, "test_bits_per_dim": 1.25,
        "test_standard_error": 0.5,
    }  # fmt: skip
    assert (run.info.status, run.info.end_time) == (before.status, before.end_time), "the training's duration"
    table = json.loads(Path(run.info.artifact_uri.removeprefix("file://"), "scores.json").read_text())
    assert table == {"columns": ["split", "bits_per_dim", "standard_error"], "data": [["test", 1.25, 0.5]]}
    assert "samples/samples.png" in artifacts(run)


def test_weights_that_are_unknown_to_the_store_get_a_run_tagged_adopted() -> None:
    with tracking.run_of_weights("noise", "cafe", "a-run"):
        pass
    with tracking.active_in_mlflow("noise", "cafe", "a-run") as run_id:
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run_id
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert "DVC" in run.data.tags["adopted"]


def test_images_are_logged_with_their_step(here: Path) -> None:
    Image.new("L", (4, 4)).save(here / "grid.png")
    with begin() as run:
        for step in (10, 20):
            run.log_picture("samples", here / "grid.png", step)
    names = [name for name in artifacts(runs()[0]) if name.endswith(".png")]
    assert sorted(name.partition("+timestamp")[0] for name in names) == [
        "images/training~samples+step+10",
        "images/training~samples+step+20",
    ]


def stopped_at_step_1() -> str:
    with contextlib.suppress(SystemExit), begin() as run:
        run.log({"train_bits_per_dim": 1}, 1)
        sys.exit(143)
    return run.training


def test_what_is_sent_a_second_time_is_there_once(here: Path) -> None:
    """As after a kill between a sending and its mark."""
    Image.new("L", (4, 4)).save(here / "grid.png")
    with begin() as run:
        run.log({"train_bits_per_dim": 2.0}, 10)
        run.log_picture("samples", here / "grid.png", 10)
    before = runs()[0], artifacts(runs()[0])
    mlflow.MlflowClient().set_tag(before[0].info.run_id, store._mark(run.record), 0)
    assert store.sync() == 1
    assert artifacts(runs()[0]) == before[1]
    assert runs()[0].info.end_time == before[0].info.end_time
    assert steps_of(runs()[0]) == [10]


def test_a_resumed_training_continues_its_run() -> None:
    training = stopped_at_step_1()
    assert runs()[0].info.status == "KILLED"
    assert train(range(2, 4), training=training) == training
    (run,) = runs()
    assert steps_of(run) == [1, 2, 3]
    assert run.info.status == "FINISHED"


def test_a_training_that_raises_ends_as_failed() -> None:
    with pytest.raises(FloatingPointError), begin():
        raise FloatingPointError
    assert runs()[0].info.status == "FAILED"


def test_the_store_has_the_utilisation_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    with begin():
        time.sleep(2)
    assert 0 < runs()[0].data.metrics["system/system_memory_usage_percentage"] <= 100


@contextlib.contextmanager
def store_is_down() -> Iterator[None]:
    def down(_: str) -> None:
        raise mlflow.MlflowException("connection refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "open_experiment", down)
        yield


def test_a_training_runs_while_the_store_is_down_and_is_sent_later(capsys: pytest.CaptureFixture[str]) -> None:
    with store_is_down():
        training = train(range(1, 4))
        with tracking.run_of_weights("noise", "cafe", "a-run") as log:
            log.measured({"test": {"bits_per_dim": 1.5, "standard_error": 0.5}}, Given.NONE)
    said = capsys.readouterr().err
    assert "does not answer (connection refused)" in said
    assert "the rest waits in mlruns/records/" in said
    assert "what was logged waits in mlruns/records/" in said
    train(range(4, 6), training=training)  # the same training resumed; the store gets what it lacks of both
    trained = next(run for run in runs() if "training" in run.data.tags)
    assert steps_of(trained) == [1, 2, 3, 4, 5]
    assert trained.data.params["train.steps"] == "9"
    assert len(runs()) == 2
    assert nothing_is_lacking()


def test_connecting_to_a_store_that_is_down_raises_connection_error() -> None:
    with (
        store_is_down(),
        pytest.raises(ConnectionError, match=r"MLflow at sqlite:.*does not answer: connection refused"),
    ):
        store.connect("noise")


def test_what_does_not_compare_with_p_x_has_metrics_of_its_own(here: Path) -> None:  # noqa: ARG001
    scores = {"test": {"bits_per_dim": 1.5, "standard_error": 0.5, "num_images": 7}}
    for weights, given in (("a" * 64, Given.LABEL), ("b" * 64, Given.CODE)):
        with tracking.run_of_weights("noise", weights, "a-run") as log:
            log.measured(scores, given)
    found = {run.data.tags["given"]: set(run.data.metrics) for run in runs()}
    assert found["label"] == {"test_bits_per_dim", "test_standard_error"}
    assert found["code"] == {"given_code/test_bits_per_dim", "given_code/test_standard_error"}


def test_measurements_wait_for_a_store_that_the_installed_mlflow_does_not_support(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As mlflow-skinny, which supports no database."""

    def refuse(*_: object) -> None:
        raise UnsupportedModelRegistryStoreURIException("sqlite:///mlflow.db", ["file"])

    scores = {"test": {"bits_per_dim": 2.0, "standard_error": 0.1, "num_images": 7}}
    with monkeypatch.context() as patched:
        patched.setattr(store, "_client", refuse)
        with tracking.run_of_weights("noise", "a" * 64, "a-run") as log:
            log.measured(scores, Given.NONE)
    assert "MLflow cannot use sqlite:" in capsys.readouterr().err
    store.connect("noise")  # with a complete MLflow
    (run,) = runs()
    assert run.data.metrics["test_bits_per_dim"] == 2.0


def use_another_store(here: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = here / "other.db"
    shutil.copy(empty_store, other)
    monkeypatch.setattr(store, "LOCAL_STORE", other)


def test_a_process_that_changes_folders_uses_the_store_there(
    here: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(range(1, 3))
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    shutil.copy(empty_store, "mlflow.db")
    assert runs() == []
    train(range(1, 5))
    (run,) = runs()
    assert steps_of(run) == [1, 2, 3, 4]
    monkeypatch.chdir(here)
    assert nothing_is_lacking()
    (run,) = runs()
    assert steps_of(run) == [1, 2]


def test_any_store_gets_what_it_lacks_and_keeps_what_it_has(
    here: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (4, 4)).save(here / "grid.png")
    with begin() as run:
        run.log({"train_bits_per_dim": 2.0}, 10)
        run.log_picture("samples", here / "grid.png", 10)
    before = runs()[0]
    use_another_store(here, empty_store, monkeypatch)
    assert runs() == []
    main(["runs", "sync"])
    assert "1 records completed" in capsys.readouterr().out
    (copy,) = runs()
    assert copy.info.run_id != before.info.run_id
    assert (copy.data.params, copy.info.end_time) == (before.data.params, before.info.end_time)
    assert steps_of(copy) == [10]
    assert len(artifacts(copy)) == len(artifacts(before))
    mlflow.MlflowClient().set_tag(copy.info.run_id, "mine", "kept")
    assert nothing_is_lacking()
    assert runs()[0].data.tags["mine"] == "kept"


def test_a_run_that_was_deleted_in_mlflow_is_not_made_again() -> None:
    train(range(1, 3))
    mlflow.MlflowClient().delete_run(runs()[0].info.run_id)
    Record(next(records.RECORDS.iterdir())).put({"metrics": {"training/a": 1.0}, "step": 9, "time": 1})
    assert store.sync() == 0
    assert runs() == []


def test_a_deleted_experiment_is_said_before_the_training() -> None:
    train(range(1, 3))
    client = mlflow.MlflowClient()
    client.delete_experiment(client.get_experiment_by_name("noise").experiment_id)
    with pytest.raises(ValueError, match=r"the MLflow experiment noise was deleted.*mlflow experiments restore -x 1"):
        train(range(1, 3))
    assert len(list(records.RECORDS.iterdir())) == 1


def test_what_the_first_release_had_not_sent_is_sent() -> None:
    box = records.OUTBOXES / "1700000000000-abcd"
    box.mkdir(parents=True)
    about = {"store": "sqlite:///mlflow.db", "experiment": "noise", "identity": ["training", "a"], "time": 7}
    (box / "about.json").write_text(json.dumps(about | {"tags": {"training": "a"}, "over": False}))
    (box / "events.jsonl").write_text('{"metrics": {"training/a": 1.0}, "step": 3, "time": 8}\n')
    (box / "delivered").write_text("0")
    store.connect("noise")
    assert steps_of(runs()[0], "training/a") == [3]
    assert not list(records.OUTBOXES.iterdir())


def test_what_the_store_refuses_is_left_out_with_a_message_and_the_rest_arrives(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "torn.png").write_bytes(b"no picture")
    with begin() as run:
        run._put({"params": {"dataset": "another"}})  # MLflow lets no param change
        run.log_picture("samples", here / "torn.png", 1)
        run.log({"train_bits_per_dim": 1}, 1)
    said = capsys.readouterr().err
    assert "MLflow has no params that mlruns/records/" in said
    assert "MLflow has no picture that mlruns/records/" in said
    assert steps_of(runs()[0]) == [1]


def test_a_training_resumes_while_another_process_sends_its_record() -> None:
    training = stopped_at_step_1()
    record, sending = Record(next(records.RECORDS.iterdir())), threading.Event()

    def send() -> None:
        with record.locked():
            sending.set()
            time.sleep(0.5)

    other = threading.Thread(target=send)
    other.start()
    sending.wait()
    train(range(2, 3))
    other.join()
    (run,) = runs()
    assert run.data.tags["training"] == training
    assert steps_of(run) == [1, 2]


def test_a_line_that_a_killed_process_left_unfinished_hides_no_other() -> None:
    training = stopped_at_step_1()
    with next(records.RECORDS.glob("*/events.jsonl")).open("a") as file:
        file.write('{"metrics": {"training/tr')
    train(range(2, 4), training=training)
    assert steps_of(runs()[0]) == [1, 2, 3]


def test_a_step_that_a_resumed_training_repeats_is_logged_once() -> None:
    training = stopped_at_step_1()
    train(range(1, 3), training=training)
    assert steps_of(runs()[0]) == [1, 2]


# With separate processes and servers

TRAINING = """
import sys, time
from pathlib import Path
from tests.test_tracking import begin
with begin(sys.argv[1], key=sys.argv[1]) as run:
    for step in range(1, int(sys.argv[2]) + 1):
        run.log({"a": step, "b": 1 / step}, step)
        time.sleep(float(sys.argv[3]))
    while not Path("go").exists():
        time.sleep(0.1)
"""


def test_killed_before_its_first_checkpoint_a_training_goes_on_in_its_run(here: Path) -> None:
    child = start(here, "a-run-0", 3, 0.0)
    while count(here / "mlflow.db") < 6:
        time.sleep(0.05)
    child.kill()
    child.communicate()
    assert runs()[0].info.status == "RUNNING"
    store.sync()
    assert runs()[0].info.status == "KILLED", "if nobody goes on"
    train(range(1, 5))
    (run,) = runs()
    assert steps_of(run, "training/a") == [1, 2, 3]
    assert steps_of(run) == [4]
    assert run.info.status == "FINISHED"
    train(range(1, 5))
    assert len(runs()) == 2, "one that has finished is not continued"


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
def test_four_concurrent_trainings_lose_no_metric(here: Path) -> None:
    (here / "go").touch()
    (here / "mlflow.db").unlink()  # so that all four find no store
    children = [start(here, f"run-{n}", 200, 0.01) for n in range(4)]
    said = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, said
    assert count(here / "mlflow.db") == 4 * 200 * 2
    assert nothing_is_lacking()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("comes_back", [True, False])
def test_every_metric_arrives_although_the_server_is_killed_during_the_training(here: Path, comes_back: bool) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(here / "server", port) as server:
        child = start(here, "a-run", 1000, 0.01, uri)
        database = here / "server" / "mlflow.db"
        while count(database) < 100:
            time.sleep(0.1)
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert child.poll() is None, "the server is killed during the training"
    if comes_back:
        with mlflow_server(here / "server", port):
            (here / "go").touch()
            said = child.communicate()[1]
        assert "answers again" in said
    else:
        (here / "go").touch()
        said = child.communicate()[1]
        assert "the rest waits in mlruns/records/" in said
        assert count(database) < 2000
        with mlflow_server(here / "server", port):
            command = [sys.executable, "-m", "pixelcnn.cli", "runs", "sync"]
            sent = subprocess.run(command, cwd=here, env=environment(uri), capture_output=True, text=True, check=True)
            assert "1 records completed" in sent.stdout
    assert child.returncode == 0, said
    assert "does not answer" in said
    assert count(database) == 2000


def test_killed_while_it_creates_the_tables_a_process_leaves_no_unusable_store(here: Path) -> None:
    folder = here / "new"
    folder.mkdir()
    connect = "from pixelcnn.tracking import store; store.connect('noise').search_experiments(max_results=1)"
    kill = "import os, mlflow.store.db.utils as utils; utils._upgrade_db = lambda _: os.kill(os.getpid(), 9); "
    env = environment(None)
    killed = subprocess.run([sys.executable, "-c", kill + connect], cwd=folder, env=env)
    assert killed.returncode == -signal.SIGKILL
    assert (folder / ".mlflow.db.part").exists()
    subprocess.run([sys.executable, "-c", connect], cwd=folder, env=env, check=True)
    assert not list(folder.glob(".mlflow.db.part*"))


def test_concurrent_processes_create_the_tables_of_a_new_store_once(here: Path) -> None:
    folder = here / "new"
    folder.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    ask = [
        sys.executable,
        "-c",
        "from pixelcnn.tracking import store; store.connect('noise').search_experiments(max_results=1)",
    ]
    processes = [subprocess.Popen(ask, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",), "writers would wait for readers"
