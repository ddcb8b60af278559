"""dvc.yaml: stages, modules and headings are one word, and a stage depends on every module that decides its result."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixelcnn import config, stages
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
STAGES = config.read_yaml(ROOT / "dvc.yaml")["stages"]
# Imported without deciding a stage's result: schemas and parsing, files, progress bars, messages, tracking
PLUMBING = {
    "pixelcnn.config", "pixelcnn.params", "pixelcnn.schemas", "pixelcnn.files", "pixelcnn.progress",
    "pixelcnn.console", "pixelcnn.spelling",
    "pixelcnn.pretrained", "pixelcnn.migrations", "pixelcnn.stages", "pixelcnn.tracking", "pixelcnn.data.config",
    "pixelcnn.data.images", "pixelcnn.api",
}  # fmt: skip
# Found by name: a stage depends on the one that its params name, by a template in dvc.yaml
BY_NAME = {"pixelcnn.architectures": "item.model.name", "pixelcnn.likelihoods": "item.likelihood.name"}
BY_NAME |= {"pixelcnn.data.sources": "item.download.source"}
# train draws sample grids, from which it learns nothing, and writes its model by checkpoint; register passes on a
# finished model, so how it is built and read changes nothing of its version
PASSED_ON = {
    "train": (
        "pixelcnn.generation", "pixelcnn.checkpoint", "pixelcnn.data.image_files", "pixelcnn.data.decoding",
    ),
    "baseline-images": ("pixelcnn.data.sources",),  # the true NLL of a source that draws its images
    "sample": ("pixelcnn.data.decoding",),  # of images that come from outside; those of a data set are decoded already
    "register": (
        "pixelcnn.model", "pixelcnn.nn", "pixelcnn.likelihoods", "pixelcnn.architectures", "pixelcnn.data",
        "pixelcnn.checkpoint", "pixelcnn.generation", "pixelcnn.device", "pixelcnn.evaluation.nll",
    ),
    "report": ("pixelcnn.data", "pixelcnn.checkpoint", "pixelcnn.model", "pixelcnn.nn", "pixelcnn.likelihoods",
               "pixelcnn.architectures"),
}  # fmt: skip


def module_of(stage: str) -> str:
    """The module of a stage: its name, or what comes before the heading where it has a second `foreach`."""
    return stage.removesuffix("-images")


def imported(module: str) -> set[str]:
    """The modules of this package that a module imports, directly or not, but for plumbing and what that imports."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in seen and (name == module or not _is_plumbing(name)):
            seen.add(name)
            todo += _direct(name)
    return seen


def _is_plumbing(module: str) -> bool:
    return module == "pixelcnn" or any(f"{module}.".startswith(f"{name}.") for name in PLUMBING)


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


def definition(stage: str) -> dict[str, Any]:
    made: dict[str, Any] = STAGES[stage].get("do", STAGES[stage])
    return made


def code(stage: str) -> list[str]:
    """The deps of a stage that are source files or folders."""
    return [dep for dep in definition(stage)["deps"] if dep.startswith("src/")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_module_a_command_and_a_reports_folder(stage: str) -> None:
    assert (SOURCE / "pixelcnn" / "stages" / f"{module_of(stage)}.py").exists()
    assert definition(stage)["cmd"].startswith(f"python -m pixelcnn.stages.{module_of(stage)} ")


@pytest.mark.parametrize("stage", STAGES)
def test_no_value_of_params_reaches_a_shell(stage: str) -> None:
    assert "${" not in definition(stage)["cmd"]


@pytest.mark.parametrize(("name", "dataset"), [("a-run", "digits"), ("faces", "portraits")])
def test_a_stage_run_by_dvc_reads_its_entry_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, dataset: str
) -> None:
    known = SimpleNamespace(
        embeddings={"faces": SimpleNamespace(dataset="portraits")}, run=lambda _: SimpleNamespace(dataset="digits")
    )
    monkeypatch.setattr(stages, "read_params", lambda: known)
    monkeypatch.setenv("DVC_STAGE", f"train@{name}")
    monkeypatch.setattr(sys, "argv", ["train", "--data", "prepared/DATASET", "--out", "reports/NAME.json"])
    args = stages.parse(stages.parser("", "an entry", data="", out=""))
    assert (args.name, args.data, args.out) == (name, Path("prepared", dataset), Path("reports", f"{name}.json"))


def test_a_stage_run_by_hand_takes_name_and_paths_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@another")
    monkeypatch.setattr(sys, "argv", ["train", "mine", "--out", "reports/NAME.json"])
    args = stages.parse(stages.parser("", "an entry", out=""))
    assert (args.name, args.out) == ("mine", Path("reports/NAME.json"))


def test_a_stage_without_name_or_dvc_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(sys, "argv", ["train", "--out", "x"])
    with pytest.raises(SystemExit):
        stages.parse(stages.parser("", "an entry", out=""))
    assert "the argument name is missing, and there is no DVC_STAGE" in capsys.readouterr().err


def test_there_is_no_stage_module_that_dvc_does_not_run() -> None:
    modules = {path.stem for path in (SOURCE / "pixelcnn" / "stages").glob("*.py")} - {"__init__"}
    assert modules == set(map(module_of, STAGES))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_it_imports(stage: str) -> None:
    deps = [ROOT / dep for dep in code(stage) if "${" not in dep]
    assert all(dep.exists() for dep in deps)
    passed_on = PASSED_ON.get(stage, ())
    for module in sorted(imported(f"pixelcnn.stages.{module_of(stage)}")):
        path = SOURCE.joinpath(*module.split("."))
        path = path if path.is_dir() else path.with_suffix(".py")
        covered = any(path == dep or dep in path.parents or path in dep.parents for dep in deps)
        by_name = any("${" in dep and dep.startswith(str(path.relative_to(ROOT))) for dep in code(stage))
        assert covered or by_name or (passed_on and module.startswith(passed_on)), (
            f"{stage} imports {module}: list it among its deps in dvc.yaml"
        )


@pytest.mark.parametrize("package", BY_NAME)
def test_what_is_found_by_name_is_a_dependency_by_name(package: str) -> None:
    """The stages that use one architecture, likelihood or source depend on that one and on no other."""
    folder = "src/" + package.replace(".", "/")
    users = {stage for stage in STAGES if any(dep.startswith(f"{folder}/${{") for dep in code(stage))}
    assert users == (
        {"download", "preprocess", "baseline"} if "sources" in package else {"train", "evaluate", "sample"}
    )
    for stage in set(STAGES) - {"check"}:  # which looks at the names of all, and makes nothing stale
        assert folder not in code(stage)
        assert all(BY_NAME[package] in dep for dep in code(stage) if dep.startswith(f"{folder}/${{"))


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dvc_reads_the_pipeline(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(DEMO, tmp_path / "params.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    listed = dvc(tmp_path, "stage", "list", "--all", "--name-only").split()
    without_entries = {"embed", "import", "baseline-images"}  # the demo has no `embeddings` and no `images`
    assert {name.split("@")[0] for name in listed} == set(STAGES) - without_entries
    assert "train@digits-gated" in listed


def test_git_keeps_the_outs_that_dvc_does_not(tmp_path: Path) -> None:
    """Or a clone after `dvc pull` lacks some, and stages that nobody has changed are stale there."""
    outs = [out for stage in STAGES for kind in ("outs", "metrics") for out in definition(stage).get(kind, [])]
    cached = {
        (next(iter(out)) if isinstance(out, dict) else out).replace("${key}", "a-name"): not isinstance(out, dict)
        or next(iter(out.values())).get("cache", True)
        for out in outs
    }
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    command = [
        "git",
        "-C",
        tmp_path,
        "check-ignore",
        *(f"{out}/file" if not Path(out).suffix else out for out in cached),
    ]
    ignored = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {path.removesuffix("/file") for path in ignored} == {out for out, is_cached in cached.items() if is_cached}
    assert all(is_cached or Path(out).suffix for out, is_cached in cached.items())  # files, of which git sees each


def test_dvc_and_its_tools_report_home_to_nobody() -> None:
    settings = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in settings
    assert "check_update = false" in settings
