"""dvc.yaml: stages, modules and headings are one word, and a stage depends on every module that decides its result."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixelcnn import config
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
STAGES = config.read_yaml(ROOT / "dvc.yaml")["stages"]
# what a stage imports without its result following from it: plumbing, bars and the doors to MLflow
PLUMBING = {
    "pixelcnn",
    "pixelcnn.config",
    "pixelcnn.progress",
    "pixelcnn.stages",
    "pixelcnn.tracking.runs",
    "pixelcnn.tracking.outbox",
    "pixelcnn.tracking.store",
    "pixelcnn.checkpoint",
    "pixelcnn.tracking.pyfunc",
}
# register hands on a finished model: how it is built and read changes nothing of its version; train draws pictures of
# what it has learnt, and learns nothing from them
HANDED_ON = {
    "train": (
        "pixelcnn.generation.sample_grids",
        "pixelcnn.generation.sampling",
        "pixelcnn.generation.interpolation",
        "pixelcnn.generation.grids",
    ),
    "register": (
        "pixelcnn.model",
        "pixelcnn.nn",
        "pixelcnn.likelihoods.categorical",
        "pixelcnn.likelihoods.logistic_mixture",
        "pixelcnn.data",
    ),
}


def imported(module: str) -> set[str]:
    """The modules of this package that a module imports, directly or not."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += _direct(name)
    return seen


def _direct(module: str) -> list[str]:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    names = []
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pixelcnn"):
            assert node.module is not None
            names += [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("pixelcnn")]
    return [name for name in names if _is_module(name)]


def _is_module(name: str) -> bool:
    path = SOURCE.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_module_a_command_and_a_reports_folder(stage: str) -> None:
    assert (SOURCE / "pixelcnn" / "stages" / f"{stage}.py").exists()
    assert definition(stage)["cmd"].startswith(f"python -m pixelcnn.stages.{stage}")


def test_there_is_no_stage_module_that_dvc_does_not_run() -> None:
    modules = {path.stem for path in (SOURCE / "pixelcnn" / "stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_it_imports(stage: str) -> None:
    deps = [ROOT / dep for dep in definition(stage)["deps"] if dep.startswith("src/")]
    assert all(dep.exists() for dep in deps)
    handed_on = HANDED_ON.get(stage, ())
    for module in sorted(imported(f"pixelcnn.stages.{stage}") - PLUMBING):
        path = SOURCE.joinpath(*module.split("."))
        path = path if path.is_dir() else path.with_suffix(".py")
        covered = any(path == dep or dep in path.parents or path in dep.parents for dep in deps)
        assert covered or (handed_on and module.startswith(handed_on)), (
            f"{stage} imports {module}: list it among its deps in dvc.yaml"
        )


def test_dvc_reads_the_pipeline(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(DEMO, tmp_path / "params.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    without_entries = {"embed"}  # a stage per entry of `embeddings`, of which the demo has none
    assert {name.split("@")[0] for name in listed} == set(STAGES) - without_entries
    assert "train@digits-gated" in listed


def test_dvc_and_its_tools_report_home_to_nobody() -> None:
    settings = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in settings
    assert "check_update = false" in settings
