"""What a change makes stale: DVC is asked in a copy of the project whose stages all count as run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from pixelcnn import params
from tests.conftest import DEMO

NEW = "a_new_one"

# DVC 3.67 uses a deprecated function of pygtrie
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stale() -> set[str]:
    """The stages that `dvc status` names."""
    with Repo(".") as repo:
        return set(repo.status())


def of_all_runs(stage: str) -> set[str]:
    return {f"{stage}@{run}" for run in params.load(DEMO).runs}


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def add_system() -> None:
    folder = Path("src/pixelcnn/architectures")
    shutil.copytree(folder / "pixelcnn", folder / NEW)


def add_likelihood() -> None:
    folder = Path("src/pixelcnn/likelihoods")
    shutil.copytree(folder / "categorical", folder / NEW)


def add_source() -> None:
    folder = Path("src/pixelcnn/data/sources")
    shutil.copy(folder / "digits.py", folder / f"{NEW}.py")


def change_margin() -> None:
    replace("src/pixelcnn/generation/grids.py", "margin = int(", "margin = 2 * int(")


def change_columns() -> None:
    replace("params.yaml", "sample: {per_class: 10", "sample: {per_class: 5")


def change_scored_images() -> None:
    replace("params.yaml", "num_train_images: 1000", "num_train_images: 500")


def change_shared_value() -> None:
    replace("params.yaml", "learning_rate: 0.003", "learning_rate: 0.002")


def override_in_a_run() -> None:
    replace(
        "params.yaml", "likelihood: {name: categorical}\n    train: {steps: 600}\n\n  digits-gated-label", OVERRIDDEN
    )


def change_description() -> None:
    replace("params.yaml", "Gated PixelCNN, class-conditional", "Gated PixelCNN given a class")


OVERRIDDEN = "likelihood: {name: categorical}\n    train: {steps: 600, learning_rate: 0.002}\n\n  digits-gated-label"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: None, set()),
        (add_system, {"check"}),
        (add_likelihood, {"check"}),
        (add_source, {"check"}),
        (change_margin, of_all_runs("sample")),
        (change_columns, {"check", "report"} | of_all_runs("sample")),
        (change_scored_images, {"check"} | of_all_runs("evaluate")),
        (change_shared_value, {"check", "report"} | of_all_runs("train")),
        (override_in_a_run, {"check", "report", "train@digits-gated"}),
        (change_description, {"check", "report"}),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_change_makes_stale_what_it_decides_and_nothing_else(change: Callable[[], None], expected: set[str]) -> None:
    change()
    assert stale() == expected
