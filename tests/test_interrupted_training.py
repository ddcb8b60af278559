"""Trainings that are ended from outside, by the stage's own command: nothing is lost, and the weights are the same."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
RUN = "digits-gated"
KILLS = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the digits, prepared, and params.yaml."""
    write_params(tmp_path, processes=1)
    python(tmp_path, "pixelcnn.stages.download", "digits", "--out", "raw")
    prepare = ["--archives", "raw", "--out", "data", "--report", "preprocess.json"]
    python(tmp_path, "pixelcnn.stages.preprocess", "digits", *prepare)
    return tmp_path


def write_params(folder: Path, processes: int, **train: Any) -> None:
    """One tiny network that is saved at every step."""
    params = YAML(typ="safe").load(DEMO)
    run = params["runs"][RUN]
    run["model"] |= {"num_layers": 2, "hidden_channels": 8, "head_channels": 8}
    run["train"] |= {"steps": 500, "batch_size": 16, "warmup_steps": 2, "validate_every": 100} | train
    params["runs"] = {RUN: run}
    params["train"] = {"log_every": 1, "checkpoint_every": 1e-6, "pictures_every": 1000, "processes": processes}
    with (folder / "params.yaml").open("w") as handle:
        YAML().dump(params, handle)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(out: str) -> list[str]:
    return ["pixelcnn.stages.train", RUN, "--data", "data", "--out", out, "--report", f"{out}-report"]


def begin(folder: Path, out: str) -> subprocess.Popen[str]:
    whole = [sys.executable, "-m", *command(out)]
    return subprocess.Popen(
        whole, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def weights(folder: Path, name: str) -> str:
    return str(json.loads((folder / name / "config.json").read_text())["weights_sha256"])


def score(folder: Path, name: str) -> float:
    return float(json.loads((folder / f"{name}-report.json").read_text())["validation_bits_per_dim"])


def saved(folder: Path) -> int:
    """When the checkpoint was written, in nanoseconds; 0 where there is none."""
    return max((path.stat().st_mtime_ns for path in (folder / "checkpoints").glob("*.pt")), default=0)


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            process.terminate()
            raise AssertionError(f"it did not happen in time: {process.communicate()[0]}")
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def test_killed_at_random_moments_a_training_ends_with_the_same_weights(project: Path) -> None:
    python(project, *command("whole"))
    seconds = random.Random(0)
    in_saving = 0
    for number in range(KILLS):
        before = saved(project)
        process = begin(project, "killed")
        if number:  # the first is killed before its first checkpoint
            wait_for(lambda before=before: saved(project) > before, process)
        else:
            wait_for(lambda: len(list((project / "mlruns/records").iterdir())) == 2, process)
        time.sleep(seconds.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        in_saving += len(list((project / "checkpoints").glob(".*.part")))
    assert in_saving, "no kill hit the writing of a checkpoint"
    print(f"{in_saving} of {KILLS} kills hit the writing of a checkpoint")
    assert "resuming after step" in python(project, *command("killed"))
    assert weights(project, "killed") == weights(project, "whole")
    assert [path.name for path in (project / "checkpoints").iterdir()] == [f"{RUN}.lock"]
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)] * 2
        steps = (
            "select count(*), count(distinct step) from metrics where key = 'training/learning_rate' group by run_uuid"
        )
        assert store.execute(steps).fetchall() == [(500, 500)] * 2


def ranks(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes that torchrun has started, by rank."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {rank: child for child in children if (rank := child.environ().get("RANK"))}


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_dead_process_ends_the_training_with_a_checkpoint_that_one_process_continues(
    project: Path, rank: str
) -> None:
    write_params(project, processes=2)
    process = begin(project, "shared")
    wait_for(lambda: saved(project), process)
    ranks(process)[rank].kill()
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "error: lost another process of this training" in said, said
    assert "the same command resumes from there" in said
    continue_alone(project)


def test_sigterm_to_torchrun_saves_in_its_first_process_and_ends_all(project: Path) -> None:
    write_params(project, processes=2)
    process = begin(project, "shared")
    wait_for(lambda: saved(project), process)
    children = ranks(process)
    process.terminate()
    said = process.communicate(timeout=120)[0]
    assert "SIGTERM: saved step" in said
    assert not any(child.is_running() for child in children.values())
    continue_alone(project)


def continue_alone(project: Path) -> None:
    """One process goes on, and the result is that of a training shared to the end, but for what dropout draws."""
    write_params(project, processes=1)
    assert "resuming after step" in python(project, *command("shared"))
    shutil.rmtree(project / "checkpoints")
    python(project, *command("whole"))
    assert score(project, "shared") == pytest.approx(score(project, "whole"), abs=0.03)
