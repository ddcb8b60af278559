"""The flow under Prefect with its temporary server: order, retries, bugs, and nothing to do."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DVC_YAML = """
stages:
  download: {cmd: python download.py, deps: [download.py], outs: [data.txt], meta: {retries: 3, retry_after: 0}}
  train: {cmd: python train.py, deps: [train.py, data.txt], outs: [model.txt], meta: {retries: 3, retry_after: 0}}
  evaluate: {cmd: cp model.txt score.txt, deps: [model.txt], outs: [score.txt]}
  table:
    foreach: [digits]
    do: {cmd: cp data.txt table.md, deps: [data.txt], outs: [table.md]}
"""
COUNTED = "import pathlib; tries = pathlib.Path('tries-{name}'); n = len(tries.read_text()) if tries.exists() else 0\n"
COUNTED += "tries.write_text('.' * (n + 1))\n"
DOWNLOAD = "if n < 2: raise SystemExit(2)\nopen('data.txt', 'w').write('data')\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository with a download that fails twice and a training with a bug; a Prefect home of its own."""
    folder = tmp_path_factory.mktemp("flow")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "download.py").write_text(COUNTED.format(name="download") + DOWNLOAD)
    (folder / "train.py").write_text(COUNTED.format(name="train") + "shape = (3, 4)[7]\n")
    shutil.copy(ROOT / "prefect.toml", folder)
    call(folder, "dvc", "init", "--no-scm")
    return folder


def call(folder: Path, *arguments: str, code: int = 0) -> str:
    """The output of `python -m ARGUMENTS` in the folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    env = kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def final(said: str, stage: str) -> str:
    found = re.findall(rf"Task run '{stage}' - Finished in state (\w+)", said)
    return found[-1] if found else "never started"


def begin(said: str, stage: str) -> int:
    return said.index(f"Running stage '{stage}'")


@pytest.mark.timeout(300)
def test_a_failure_is_retried_but_a_bug_is_not(project: Path) -> None:
    said = call(project, "pipelines.reproduce", code=1)
    assert final(said, "download") == "Completed"
    assert (project / "tries-download").read_text() == "..."
    assert final(said, "train") == "Failed"
    assert (project / "tries-train").read_text() == "."
    assert re.search(r"Task run 'train' - IndexError: tuple index out of range", said)
    assert "failed: train; not started for that reason: evaluate" in said
    assert final(said, "table@digits") == "Completed"  # does not depend on the failed stage
    with contextlib.closing(sqlite3.connect(project / ".prefect/prefect.db")) as database:
        [(name, tags)] = database.execute("select name, tags from flow_run").fetchall()
        tasks = dict(database.execute("select name, tags from task_run").fetchall())
    assert (name, json.loads(tags)) == ("reproduce what is stale", ["digits"])
    assert sorted(json.loads(tasks["table@digits"])) == ["digits", "table"]
    assert begin(said, "download") < begin(said, "train")
    assert begin(said, "download") < begin(said, "table@digits")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_corrected_stage_runs_and_then_nothing_is_stale(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".prefect", "cache"))
    (tmp_path / "train.py").write_text("open('model.txt', 'w').write('model')")
    said = call(tmp_path, "pipelines.reproduce", "evaluate")
    assert "train: changed deps: " in said
    assert (final(said, "train"), final(said, "evaluate")) == ("Completed", "Completed")
    assert call(tmp_path, "pipelines.reproduce", "evaluate").strip() == (
        "nothing to do: DVC finds every stage up to date"
    )


def test_an_unknown_target_is_reported_in_one_line_and_starts_no_flow(project: Path, tmp_path: Path) -> None:
    said = call(project, "pipelines.reproduce", "trian", code=2)
    assert said.strip() == "error: 'trian' is no stage of dvc.yaml, which has download, train, evaluate, table@digits"
    assert "error: " in call(tmp_path, "pipelines.reproduce", code=2)


def test_a_bad_cron_is_reported_in_one_line_before_a_server_starts(project: Path) -> None:
    said = call(project, "pipelines.serve", "--cron", "0 3 * *", code=2)
    assert said.strip().startswith("error: --cron: '0 3 * *' is not a cron expression, which has five fields (minute, ")
    assert len(said.strip().splitlines()) == 1
