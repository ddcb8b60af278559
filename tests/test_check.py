"""The stage check: a mistake in params.yaml is the project's own message, before anything else is run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines import graph
from tests.conftest import DEMO

# DVC 3.67 uses a deprecated function of pygtrie
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")
KEY = "x; touch PWNED #"


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def repro(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of `dvc repro`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )
    return done.returncode, done.stdout + done.stderr


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    content = YAML(typ="safe").load(DEMO)
    edit(content)
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(content, file)


def misspell(content: Any) -> None:
    content["runs"]["digits-gated"]["model"]["name"] = "gated_pixelcn"


def classes_of_a_texture(content: Any) -> None:
    content["datasets"]["digits"]["download"]["source"] = "texture"
    content["runs"] = {"digits-gated": content["runs"]["digits-gated"]}
    content["runs"]["digits-gated"]["model"]["condition"] = "label"


def add_key(section: str) -> Callable[[Any], None]:
    def edit(content: Any) -> None:
        content[section][KEY] = next(iter(content[section].values()))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (misspell, "error: params.yaml: runs.digits-gated.model.name: 'gated_pixelcn' is not one of "),
        (
            classes_of_a_texture,
            "error: params.yaml: runs.digits-gated.model.condition: 'label' needs labels, but digits has none; change",
        ),
        (add_key("datasets"), f"error: params.yaml: datasets.{KEY}: '{KEY}' is refused: "),
        (add_key("runs"), f"error: params.yaml: runs.{KEY}: '{KEY}' is refused: "),
    ],
)
def test_a_wrong_name_is_one_message_before_any_work(project: Path, edit: Callable[[Any], None], message: str) -> None:
    change(project, edit)
    code, said = repro(project)
    assert code
    assert message in said
    assert said.count("Running stage") == 1
    assert "Errno" not in said
    assert not list(project.rglob("PWNED*"))


def test_the_flows_run_the_check_first_and_do_not_run_for_it_what_is_not_stale(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(content: Any) -> None:
        content["runs"]["digits-gated"]["train"]["steps"] = 500

    change(project, edit)
    monkeypatch.chdir(project)
    of_the_run = {f"{stage}@digits-gated" for stage in ("train", "evaluate", "sample", "register")}
    stages = {stage.name: stage for stage in graph.stale([], Path())}
    assert set(stages) == {"check", "report"} | of_the_run
    assert stages["check"].needs == ()
    assert stages["train@digits-gated"].needs == ("check",)
    assert stages["register@digits-gated"].why.startswith("after ")
    assert repro(project, "--single-item", "check")[0] == 0
    assert {stage.name for stage in graph.stale([], Path())} == {"report"} | of_the_run
