"""The whole pipeline, as a user runs it: `dvc repro` in a folder of its own, with a small params.yaml."""

import contextlib
import errno
import hashlib
import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pixelcnn import checkpoint, cli, files, stages
from pixelcnn.training.distributed import World
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
RUN = "digits-gated"

# Python runs a sitecustomize module at every start: this one notes whom a process of the pipeline looks up
AUDIT = """
import sys
def note(event, args):
    if event == "socket.getaddrinfo":
        open({log!r}, "a").write(f"{{args[0]}}\\n")
    elif event == "socket.connect" and isinstance(args[1], tuple):
        open({log!r}, "a").write(f"{{args[1][0]}}\\n")
sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's files with a params.yaml that trains one tiny network for 30 steps, and a DVC repo without git."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "audit").mkdir()
    (folder / "audit" / "sitecustomize.py").write_text(AUDIT.format(log=str(folder / "looked-up")))
    write_params(folder, {})
    dvc(folder, "init", "--no-scm")
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    dvc(folder, "config", "core.no_scm", "true")
    return folder


def write_params(folder: Path, train: dict[str, Any]) -> None:
    params = YAML(typ="safe").load(DEMO)
    run = params["runs"][RUN]
    run["model"] |= {"num_layers": 2, "hidden_channels": 8, "head_channels": 8}
    run["train"] |= {"steps": 30, "batch_size": 16, "warmup_steps": 2, "validate_every": 10} | train
    params["runs"] = {RUN: run}
    params["train"] = {"log_every": 5, "checkpoint_every": 0.01, "pictures_every": 20, "processes": 1}
    params["evaluate"] |= {"num_train_images": 50}
    params["sample"] |= {"per_class": 2}
    with (folder / "params.yaml").open("w") as handle:
        YAML().dump(params, handle)


def environment() -> dict[str, str]:
    """A user's: none of the switches that make or CI would set."""
    set_by_others = ("MLFLOW_", "DVC_", "PREFECT_", "DO_NOT_TRACK", "CI")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(set_by_others)}
    # one thread: for networks this small, threads that wait for each other cost far more than they bring
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def call(folder: Path, *command: str, code: int = 0, audit: bool = False) -> str:
    env = environment() | ({"PYTHONPATH": str(folder / "audit")} if audit else {})
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(folder: Path, *arguments: str, code: int = 0) -> str:
    return call(folder, sys.executable, "-m", "dvc", *arguments, code=code)


def python(folder: Path, *arguments: str, code: int = 0) -> str:
    return call(folder, sys.executable, "-m", *arguments, code=code)


def train_command(out: str) -> list[str]:
    return [
        sys.executable, "-m", "pixelcnn.stages.train", RUN, "--data", "data/prepared/digits",
        "--out", f"models/{out}", "--report", f"reports/train/{out}",
    ]  # fmt: skip


def wait_for(what: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def finished(reproduced: Path) -> Path:
    """The project after its first `dvc repro`, with the params.yaml of that, whatever a test before wrote."""
    write_params(reproduced, {})
    return reproduced


@pytest.fixture(scope="module")
def reproduced(project: Path) -> Path:
    call(project, sys.executable, "-m", "dvc", "repro", audit=True)
    return project


def weights(folder: Path, name: str) -> str:
    return json.loads((folder / "models" / name / "config.json").read_text())["weights_sha256"]


@pytest.mark.timeout(600)
def test_repro_ends_with_tables_pictures_and_a_registered_version(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (finished / "reports" / "report" / "nll-digits.md").read_text()
    assert "Gated PixelCNN, unconditional" in table
    assert (finished / "reports" / "report" / "index.html").stat().st_size > 10_000
    assert (finished / "reports" / "sample" / f"{RUN}.png").read_bytes().startswith(b"\x89PNG")
    receipt = json.loads((finished / "reports" / "register" / f"{RUN}.json").read_text())
    assert receipt["uri"] == "models:/digits@champion"
    assert receipt["weights_sha256"] == weights(finished, RUN)
    monkeypatch.chdir(finished)
    cli.main(["results"])
    assert "Gated PixelCNN, unconditional" in capsys.readouterr().out


@pytest.mark.timeout(600)
def test_a_whole_run_looks_up_nobody_outside(finished: Path) -> None:
    log = finished / "looked-up"
    outside = set(log.read_text().split()) - {"localhost", "127.0.0.1", "::1"} if log.exists() else set()
    assert not outside
    again = "import socket; socket.getaddrinfo('example.invalid', 80)"  # the watch itself works
    call(finished, sys.executable, "-c", again, code=1, audit=True)
    assert "example.invalid" in log.read_text()


@pytest.mark.timeout(600)
def test_a_second_repro_has_nothing_to_do(finished: Path) -> None:
    assert "up to date" in dvc(finished, "repro")


@pytest.mark.timeout(600)
def test_metrics_and_plots_are_what_dvc_users_expect(finished: Path) -> None:
    metrics = json.loads(dvc(finished, "metrics", "show", "--json").splitlines()[0])[""]["data"]
    data = metrics[f"reports/evaluate/{RUN}.json"]["data"]
    assert set(metrics) == {f"reports/evaluate/{RUN}.json"}
    assert list(data) == ["test", "±", "validation", "train"]
    assert 1 < data["test"] < 4.09
    assert f'"run": "{RUN}"' in dvc(finished, "plots", "show", "--json")


@pytest.mark.timeout(600)
def test_registering_again_adds_no_version_and_an_empty_registry_adopts_the_model(finished: Path) -> None:
    register = [
        "pixelcnn.stages.register", RUN, "--model", f"models/{RUN}", "--reports", "reports", "--out", "again.json",
    ]  # fmt: skip
    python(finished, *register)
    assert json.loads((finished / "again.json").read_text())["version"] == 1
    kept = finished / "mlflow.kept"
    (finished / "mlflow.db").rename(kept)  # as after a clone and `dvc pull`
    try:
        python(finished, *register)
        assert json.loads((finished / "again.json").read_text())["version"] == 1
    finally:
        for stale in finished.glob("mlflow.db*"):
            stale.unlink()
        kept.rename(finished / "mlflow.db")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_goes_on_in_its_mlflow_run_and_ends_with_the_same_weights(
    finished: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(finished, {"steps": 200, "seed": 1})  # long enough to be interrupted
    checkpoints = finished / "checkpoints"
    if not (finished / "models" / "whole").exists():
        train_here(finished, monkeypatch, "whole")
    assert not list(checkpoints.glob("*.pt"))

    child = subprocess.Popen(train_command("resumed"), cwd=finished, env=environment(), stdout=subprocess.DEVNULL)
    wait_for(lambda: bool(list(checkpoints.glob("*.pt"))))
    child.send_signal(number)
    code = child.wait()
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    capsys.readouterr()
    train_here(finished, monkeypatch, "resumed")
    said = capsys.readouterr().out
    assert "resuming after step" in said
    assert "resuming after step 200" not in said
    assert weights(finished, "resumed") == weights(finished, "whole")
    curves = [(finished / "reports" / "train" / f"{name}.csv").read_text() for name in ("whole", "resumed")]
    steps = [[line.split(",")[0] for line in curve.splitlines()] for curve in curves]
    assert set(steps[0]) <= set(steps[1])
    assert len(steps[1]) == len(set(steps[1]))
    assert not list(checkpoints.glob("*.pt"))
    assert not {"KILLED", "RUNNING"} & set(statuses(finished))


def statuses(folder: Path) -> list[str]:
    """Of all runs in a project's store."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [status for (status,) in database.execute("select status from runs")]


@pytest.mark.timeout(600)
def test_a_loss_that_is_not_finite_ends_the_stage_and_names_the_step(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(finished, {"learning_rate": 1e30, "gradient_clip": 1e30})
    with pytest.raises(FloatingPointError, match="step 2: the loss is nan"):
        train_here(finished, monkeypatch, "x")


def test_measuring_a_budget_trains_no_model_and_leaves_nothing_behind(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    monkeypatch.setattr("pixelcnn.training.loop.SECONDS_MEASURED", 0.1)
    monkeypatch.setattr("pixelcnn.data.loader.OF_MEMORY", 0.0)  # so that the images are read from a file
    monkeypatch.setattr(sys, "argv", [*train_command("measured")[2:], "--measure", "1"])
    before = sorted(finished.rglob("*"))
    importlib.import_module("pixelcnn.stages.train").main()
    assert " steps fit into 1 minutes here" in capsys.readouterr().out
    assert sorted(finished.rglob("*")) == before


def train_here(project: Path, monkeypatch: pytest.MonkeyPatch, out: str, by_dvc: bool = False) -> None:
    """Train in this process, which is faster."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", train_command(out)[2:])
    if by_dvc:
        monkeypatch.setenv("DVC_STAGE", f"train@{RUN}")
    importlib.import_module("pixelcnn.stages.train").main()


def test_until_dvc_has_committed_a_finished_training_writes_its_outs_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(finished, {"seed": 7})
    train_here(finished, monkeypatch, "kept", by_dvc=True)
    outs = [finished / "models/kept/config.json", *(finished / f"reports/train/kept.{end}" for end in ("json", "csv"))]
    (end,) = (finished / "checkpoints").glob("*.finished")
    report = json.loads(outs[1].read_text())
    files.write_json(outs[1], report | {"finished": "2001-09-09T01:46:40Z"})
    os.utime(end, (10**9, 10**9))  # the end of the training, which the report states however late it is written
    before = [path.read_bytes() for path in outs]
    for path in outs:
        path.unlink()  # as DVC does before a stage
    train_here(finished, monkeypatch, "kept", by_dvc=True)
    assert "trained already" in capsys.readouterr().out
    assert [path.read_bytes() for path in outs] == before

    lock = finished / "dvc.lock"
    committed, md5 = lock.read_text(), hashlib.md5(before[-1]).hexdigest()
    lock.write_text(f"{committed}# {md5}\n")
    train_here(finished, monkeypatch, "kept", by_dvc=True)  # `dvc repro -f`
    lock.write_text(committed)
    said = capsys.readouterr().out
    assert "trained already" not in said
    assert "step 30 of 30" in said
    assert outs[0].read_bytes() == before[0]

    write_params(finished, {"seed": 8})
    monkeypatch.delenv("DVC_STAGE")
    embedder = finished / "data/prepared/digits/embedder"  # as of a data set with embeddings
    files.write_text(embedder / "config.json", "{}")
    train_here(finished, monkeypatch, "other")
    shutil.rmtree(embedder)
    assert (finished / "models/other/embedder/config.json").read_text() == "{}", "what makes conditions comes along"
    assert not list((finished / "checkpoints").glob("*.finished")), "the next training of the run removes it"


def test_a_picture_that_fails_is_a_line_and_ends_no_training(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("pixelcnn.stages.train.sample_grid", fail)
    train_here(finished, monkeypatch, "unpictured")
    assert "step 20: no sample grid (RuntimeError: no room); continuing" in capsys.readouterr().out
    assert weights(finished, "unpictured") == weights(finished, RUN)


def end_by_a_full_disk(finished: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> int:
    """Train until the second checkpoint cannot be written; the step of the first."""
    saved, save = [], checkpoint.save_state

    def save_once(path: Path, state: dict[str, Any]) -> None:
        if saved:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(path, state)
        saved.append(state["training"]["step"])

    with pytest.MonkeyPatch.context() as full:
        full.setattr(checkpoint, "save_state", save_once)
        with pytest.raises(OSError, match=r"No space left on device: 'checkpoints/.*the last checkpoint is intact"):
            train_here(finished, monkeypatch, out)
    return int(saved[0])


def test_a_training_that_a_full_disk_ended_goes_on_from_its_last_checkpoint(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = end_by_a_full_disk(finished, monkeypatch, "continued")
    capsys.readouterr()
    train_here(finished, monkeypatch, "continued")
    assert f"resuming after step {step} " in capsys.readouterr().out
    assert weights(finished, "continued") == weights(finished, RUN)


def test_a_second_process_waits_for_the_one_that_trains_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = importlib.import_module("pixelcnn.stages.train")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "LOCK_POLL", 0.01)
    entered = threading.Event()

    def second() -> None:
        with train._only_one(RUN, World(0, 1)):
            entered.set()

    with train._only_one(RUN, World(0, 1)):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.3)
    waiting.join()
    said = capsys.readouterr().out
    assert said.startswith(f"{RUN}: process {os.getpid()} is training this run; waiting for its end")
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_repro_beside_an_orphaned_training_waits_and_takes_its_result(finished: Path) -> None:
    """`kill -9` of `dvc repro` leaves its training alive."""
    write_params(finished, {"steps": 2000, "seed": 3})
    target = [sys.executable, "-m", "dvc", "repro", f"train@{RUN}"]
    first = subprocess.Popen(target, cwd=finished, env=environment(), stdout=subprocess.DEVNULL)
    wait_for(lambda: bool(list((finished / "checkpoints").glob("*.pt"))))
    first.kill()
    first.wait()
    said = call(finished, *target)
    assert "is training this run; waiting" in said
    assert "trained already" in said
    assert "up to date" in call(finished, *target)


# What a user does in a project that was moved, in one process
ELSEWHERE = """
import importlib, json, sys
import mlflow, numpy as np
import pixelcnn
model = pixelcnn.load("models:/digits@champion")
mlflow.set_tracking_uri("sqlite:///mlflow.db")
served = mlflow.pyfunc.load_model("models:/digits@champion")
print(served.predict(np.zeros((3, 1, 8, 8), np.uint8)).shape, model.given, served.metadata.signature.inputs)
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    importlib.import_module(f"pixelcnn.stages.{name}").main()
"""


@pytest.mark.timeout(600)
def test_a_copied_and_a_renamed_project_serve_their_models_draw_and_train_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = end_by_a_full_disk(finished, monkeypatch, "moved")
    train = ["train", *train_command("moved")[3:]]
    sample = ["sample", RUN, "--model", f"models/{RUN}", "--data", "data/prepared/digits", "--out", "moved.png"]
    copy, renamed = tmp_path / "copy", finished.with_name("renamed")
    shutil.copytree(finished, copy)
    finished.rename(renamed)
    try:
        for folder, stages_there in ((copy, [train, sample]), (renamed, [])):
            said = call(folder, sys.executable, "-c", ELSEWHERE, json.dumps(stages_there))
            assert "(3,) none None" in said
            assert (f"resuming after step {step} " in said) == (folder == copy)
        assert (copy / "models" / "moved" / "model.safetensors").exists()
        assert len(statuses(copy)) == len(statuses(renamed)), "in the run in which it began"
        assert statuses(copy).count("FAILED") == statuses(renamed).count("FAILED") - 1
        arrived = {path for path in (copy / "mlruns").rglob("moved.png") if "records" not in path.parts}
        assert [path.parent.name for path in arrived] == ["samples"]
        assert not finished.exists()
    finally:
        renamed.rename(finished)
        for left in (finished / "checkpoints").glob("*.pt"):
            left.unlink()


def broken_weights(folder: Path) -> None:
    shutil.copytree(folder / "models" / RUN, folder / "models" / "broken")
    path = folder / "models" / "broken" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


MISTAKES: list[tuple[str, list[str], Callable[[Path], None], str]] = [
    ("train", ["nobody", *train_command("x")[4:]], lambda _: None, "runs.nobody: missing; its runs are"),
    (
        "train",
        [RUN, "--data", "data/nowhere", "--out", "x", "--report", "y"],
        lambda _: None,
        "card.json: no such file; the stage preprocess makes it",
    ),
    (
        "train",
        train_command("x")[3:],
        lambda folder: write_params(folder, {"steps": -1}),
        f"params.yaml: runs.{RUN}.train.steps: -1 is refused",
    ),
    (
        "evaluate",
        [RUN, "--model", "models/broken", "--data", "data/prepared/digits", "--out", "x"],
        broken_weights,
        "model.safetensors: sha256 is",
    ),
    (
        "report",
        ["--reports", "nowhere", "--out", "x"],
        lambda _: None,
        "dvc repro preprocess@digits",
    ),
]


@pytest.mark.parametrize(("stage", "arguments", "prepare", "message"), MISTAKES)
def test_a_user_s_mistake_is_one_clear_message_and_exit_code_2(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    stage: str, arguments: list[str], prepare: Callable[[Path], None], message: str,
) -> None:  # fmt: skip
    prepare(finished)
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "argv", [stage, *arguments])
    with pytest.raises(SystemExit) as end:
        stages.run(importlib.import_module(f"pixelcnn.stages.{stage}").main)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
