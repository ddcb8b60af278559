"""`dvc exp run -S`: values for all runs or for one, through the `params` that dvc.yaml's stage train watches."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pixelcnn.config import read_yaml
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
WATCHED = read_yaml(ROOT / "dvc.yaml")["stages"]["train"]["do"]["params"]
PLAIN, LABEL = "digits-gated", "digits-gated-label"
# In place of a training: the values that one would have had
RECORD = """
import json, os
from pathlib import Path
from pixelcnn import params
name = os.environ["DVC_STAGE"].partition("@")[2]
train = params.load(Path("params.yaml")).run(name).train.model_dump()
Path(f"{name}.json").write_text(json.dumps(train | {"experiment": os.environ.get("DVC_EXP_NAME")}))
"""

LOG = """
from pathlib import Path
from pixelcnn import stages
from pixelcnn.tracking import runs
def main():
    with runs.run_of_weights("noise", "cafe", "a-run") as log:
        log.log_files({"logs": Path("log.py")})
stages.run(main)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository with the demo's two Gated PixelCNNs, "trained" and committed."""
    folder = tmp_path_factory.mktemp("experiments")
    params = YAML(typ="safe").load(DEMO)
    params["runs"] = {name: params["runs"][name] for name in (PLAIN, LABEL)}
    stage = {"cmd": "python record.py", "params": WATCHED, "outs": [{"${key}.json": {"cache": False}}]}
    write_yaml(folder / "params.yaml", params)
    write_yaml(folder / "dvc.yaml", {"stages": {"train": {"foreach": "${runs}", "do": stage}}})
    (folder / "record.py").write_text(RECORD)
    call(folder, "git", "init", "-q")
    dvc(folder, "init", "-q")
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    dvc(folder, "repro", "-q")
    call(folder, "git", "add", ".")
    call(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-qm", "first")
    return folder


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    with path.open("w") as file:
        YAML().dump(content, file)


def call(folder: Path, *command: str) -> None:
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.example"}
    names |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in names.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | names | {"PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def dvc(folder: Path, *arguments: str) -> None:
    call(folder, sys.executable, "-m", "dvc", *arguments)


def trained(folder: Path, key: str) -> dict[str, Any]:
    """A value of each run's training, by run."""
    return {name: json.loads((folder / f"{name}.json").read_text())[key] for name in (PLAIN, LABEL)}


def test_an_experiment_in_a_temporary_copy_logs_to_the_project_s_own_store(project: Path) -> None:
    (project / "log.py").write_text(LOG)
    dvc(project, "stage", "add", "-q", "-n", "log", "-d", "log.py", "python log.py")
    call(project, "git", "add", ".")
    call(project, "git", "commit", "-qm", "a stage that logs")
    dvc(project, "exp", "run", "--temp", "log")
    assert [path.name for path in project.glob("mlruns/noise/*/artifacts/logs/*")] == ["log.py"]
    assert len(list(project.glob("mlruns/records/*/about.json"))) == 1
    assert (project / "mlflow.db").is_file()


def test_an_experiment_sets_a_shared_value_for_all_runs_and_a_run_s_own_for_one(project: Path) -> None:
    assert trained(project, "learning_rate") == {PLAIN: 0.003, LABEL: 0.003}
    dvc(project, "exp", "run", "-n", "all-slow", "-S", "shared.train.learning_rate=0.001")
    assert trained(project, "learning_rate") == {PLAIN: 0.001, LABEL: 0.001}
    assert trained(project, "experiment") == {PLAIN: "all-slow", LABEL: "all-slow"}
    dvc(project, "exp", "run", "-n", "one-fast", "-S", f"+runs.{PLAIN}.train.learning_rate=0.01")
    assert trained(project, "learning_rate") == {PLAIN: 0.01, LABEL: 0.001}
    assert trained(project, "experiment") == {PLAIN: "one-fast", LABEL: "all-slow"}
