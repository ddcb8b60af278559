"""A copy of the project whose stages all count as run: what DVC says of changes can be asked without training."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent


def make(folder: Path) -> None:
    """The demo with placeholders for all outputs but that of `check`, which `dvc commit -f` has accepted."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(DEMO, folder / "params.yaml")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Repo(".") as repo:
            for out in [out for stage in repo.index.stages for out in stage.outs]:
                _place_something(Path(out.fs_path))
            command = [sys.executable, "-m", "pixelcnn.stages.check", "--out", "reports/check/params.txt"]
            subprocess.run(command, check=True)
            repo.commit(force=True)


def _place_something(path: Path) -> None:
    """A file, or for a name without ending a folder with a file."""
    if not path.suffix:
        path.mkdir(parents=True)
        path = path / "content"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(path))
