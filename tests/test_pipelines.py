"""The pipelines without Prefect: the stale stages of DVC's graph, running and ending a stage, slots."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipelines import artifacts, challenger, child, graph, locks, servers
from pixelcnn import params
from tests.conftest import DEMO

# Four stages without requirements; `a` and `b` are independent, `join` depends on both
DVC_YAML = """
stages:
  a: {cmd: "python a.py", deps: [a.py], outs: [a.txt], meta: {retries: 2, retry_after: 0.5, minutes: 3, slot: true}}
  b:
    foreach: [x, "y"]
    do: {cmd: "echo ${item} > b-${item}.txt", deps: [source], outs: ["b-${item}.txt"]}
  join: {cmd: "cat a.txt b-x.txt > join.md", deps: [a.txt, b-x.txt], params: [n], outs: [join.md: {cache: false}]}
"""


# DVC 3.67 uses a deprecated function of pygtrie
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty DVC repository."""
    folder = tmp_path_factory.mktemp("repository")
    dvc(folder, "init", "--no-scm")
    return folder


@pytest.fixture
def project(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository with those stages, the working folder."""
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text("n: 1\n")
    (tmp_path / "source").write_text("1")
    write(tmp_path, "open('a.txt', 'w').write('made')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "slots"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return tmp_path


def write(folder: Path, program: str) -> None:
    (folder / "a.py").write_text(textwrap.dedent(program))


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | {"PATH": path})


def stage(minutes: float | None = None, slot: bool = False) -> graph.Stage:
    return graph.Stage("a", (), "", graph.Policy(minutes=minutes, slot=slot), ())


def run(folder: Path, what: graph.Stage) -> tuple[list[str], int]:
    """The lines of a stage's output, and the exit code of its StageError, 0 without one."""
    lines: list[str] = []
    with child.lifeline() as lifeline:
        try:
            child.run(what, folder, (lifeline,), lines.append)
        except child.StageError as error:
            return lines, error.code
    return lines, 0


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "not within the time limit"
        time.sleep(0.05)


def test_stale_stages_have_an_order_dependencies_a_reason_and_a_policy(project: Path) -> None:
    stages = graph.stale([], Path())
    assert [s.name for s in stages][-1] == "join"
    assert {s.name for s in stages} == {"a", "b@x", "b@y", "join"}
    assert stages[-1].needs == ("a", "b@x")
    by_name = {s.name: s for s in stages}
    assert by_name["a"].policy == graph.Policy(retries=2, retry_after=0.5, minutes=3, slot=True)
    assert by_name["b@x"].policy == graph.Policy()
    assert by_name["join"].outs == (project / "join.md",)
    dvc(project, "repro")
    assert graph.stale([], Path()) == []
    (project / "params.yaml").write_text("n: 2\n")
    assert [(s.name, s.needs, s.why) for s in graph.stale([], Path())] == [
        ("join", (), "changed deps: params.yaml (n)")
    ]
    write(project, "open('a.txt', 'w').write('otherwise')")
    assert [(s.name, s.needs) for s in graph.stale(["join"], Path())] == [("a", ()), ("join", ("a",))]


@pytest.mark.usefixtures("project")
def test_targets_are_stages_or_groups_and_include_what_they_depend_on() -> None:
    assert [s.name for s in graph.stale(["b"], Path())] == ["b@x", "b@y"]
    assert {s.name for s in graph.stale(["join"], Path())} == {"a", "b@x", "join"}
    with pytest.raises(ValueError, match=r"'c' is no stage of dvc\.yaml, which has a, b@x, b@y, join"):
        graph.stale(["c"], Path())


def test_a_new_stage_of_dvc_yaml_is_found(project: Path) -> None:
    with (project / "dvc.yaml").open("a") as file:
        file.write("  after: {cmd: cp join.md after.md, deps: [join.md], outs: [after.md]}\n")
    last = graph.stale([], Path())[-1]
    assert (last.name, last.needs) == ("after", ("join",))


def test_a_misspelt_key_of_meta_is_refused(project: Path) -> None:
    (project / "dvc.yaml").write_text(DVC_YAML.replace("retries: 2", "retires: 2"))
    with pytest.raises(ValueError, match=r"dvc\.yaml: a: meta: retires: unknown key"):
        graph.stale([], Path())


def test_an_invalid_dvc_yaml_is_reported_in_one_line(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {a: {cmd: 3, whom: 4}}")
    with pytest.raises(ValueError, match=r"^dvc: .*dvc\.yaml"):
        graph.stale([], Path())


@pytest.mark.parametrize("path", ["inside", "../outside", "{parent}/outside"])
def test_a_challenger_has_the_images_wherever_they_lie(project: Path, path: str) -> None:
    path = path.format(parent=project.parent)
    Path(path).mkdir(exist_ok=True)
    Path(path, "image").write_text("pixels")
    params = {"images": {"own": {"path": path, "class_names": None}}, "runs": {"run": {"train": {"seed": 0}}}}
    (project / "params.yaml").write_text(json.dumps(params))
    stage = {"cmd": "cp ${item.path}/image ${key}", "deps": ["${item.path}"], "outs": ["${key}"]}
    (project / "dvc.yaml").write_text(json.dumps({"stages": {"import": {"foreach": "${images}", "do": stage}}}))
    dvc(project, "repro")
    folder = challenger.prepare("run", 1, "import@own")
    dvc(folder, "repro", "--force")
    assert (folder / "own").read_text() == "pixels"
    assert json.loads((folder / "params.yaml").read_text())["runs"]["run"]["train"]["seed"] == 1


def test_the_output_of_a_stage_is_logged_line_by_line_and_dvc_records_its_outs(project: Path) -> None:
    write(project, "print('one'); print('two'); open('a.txt', 'w').write('made')")
    lines, code = run(project, stage(slot=True))
    assert code == 0
    assert lines.index("one") + 1 == lines.index("two")
    assert "a" not in [s.name for s in graph.stale([], Path())]


def test_what_dvc_advises_a_person_at_a_terminal_is_not_logged(project: Path) -> None:
    (project / ".dvc/config").unlink()  # no_scm
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    lines, code = run(project, stage())
    assert code == 0
    assert "Generating lock file 'dvc.lock'" in lines
    assert not [line for line in lines if "git" in line or "dvc config" in line or not line]


@pytest.mark.parametrize(
    ("program", "code", "may_pass"),
    [("1 / 0", 1, False), ("raise SystemExit(2)", 2, True), ("import os; os.kill(os.getpid(), 9)", 137, True)],
)
def test_the_exit_code_of_the_command_decides_whether_a_retry_may_succeed(
    project: Path, program: str, code: int, may_pass: bool
) -> None:
    write(project, program)
    lines, found = run(project, stage())
    assert found == code
    assert child.StageError("a", found).may_pass is may_pass
    assert ("ZeroDivisionError: division by zero" in lines) is (code == 1)


SAVES_WHEN_ASKED = """
    import os, signal, sys, time
    def save(*_):
        open("saved", "w").close()
        sys.exit(130)
    signal.signal(signal.SIGINT, save)
    open("begun", "w").write(str(os.getpgrp()))
    while True:
        print("working", flush=True)
        time.sleep(0.01)
"""


def test_a_stage_that_exceeds_its_time_limit_is_ended_after_saving(project: Path) -> None:
    write(project, SAVES_WHEN_ASKED)
    _, code = run(project, stage(minutes=0.1))
    assert code == child.TIME_LIMIT
    assert (project / "saved").exists()
    assert not child.StageError("a", code).may_pass


# A flow reduced to one stage, for a process that can be killed
FLOW = """
import signal, sys
from pathlib import Path
from pipelines import child, graph
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
stage = graph.Stage("a", (), "", graph.Policy(slot=True), ())
with child.lifeline() as lifeline:
    child.run(stage, Path(sys.argv[1]), (lifeline,), print)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stage_saves_and_leaves_no_process_when_its_flow_is_killed(project: Path, number: signal.Signals) -> None:
    write(project, SAVES_WHEN_ASKED)
    flow = subprocess.Popen(
        [sys.executable, "-c", FLOW, str(project)], cwd=child.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    begun = project / "begun"
    eventually(lambda: begun.exists() and begun.read_text() != "")
    group = int(begun.read_text())
    flow.send_signal(number)
    flow.wait()
    eventually(lambda: not alive(group))
    assert (project / "saved").exists()
    with locks.slot():  # it is free
        pass


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# A process that starts a server as Prefect does, with the argument by which it is known
STARTS_SERVER = """
import subprocess, sys, time
from pipelines import servers
servers.guard()
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", servers.APPLICATION])
time.sleep(600)
"""


def test_the_temporary_server_of_a_killed_flow_is_ended_at_the_next_start(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    env = os.environ | {"PYTHONPATH": str(child.ROOT)}
    flow = subprocess.Popen([sys.executable, "-c", STARTS_SERVER], cwd=project, env=env)
    eventually(lambda: bool(list(servers.RECORDS.glob("*.json"))))
    [path] = servers.RECORDS.glob("*.json")
    record = json.loads(path.read_text())
    number, started = record["server"]
    server = psutil.Process(number)
    servers.end_orphans()
    assert server.is_running()  # the flow goes on
    flow.kill()
    flow.wait()
    path.write_text(json.dumps(record | {"server": [number, started - 100]}))
    servers.end_orphans()
    assert server.is_running()  # another process that has been given the same pid
    path.write_text(json.dumps(record))
    servers.end_orphans()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert not path.exists()
    assert capfd.readouterr().out == f"ended process {number}, the temporary Prefect server of a flow that was killed\n"


@pytest.mark.usefixtures("project")
def test_each_gpu_is_a_slot_and_without_gpus_the_cpu_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL", 0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with locks.slot() as (_, first), locks.slot() as (_, second):
        assert [first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    third: list[dict[str, str]] = []

    def take() -> None:
        with locks.slot() as (_, shown):
            third.append(shown)

    with locks.slot():
        waiting = threading.Thread(target=take)
        waiting.start()
        time.sleep(0.2)
        assert not third
    waiting.join()
    assert third == [{}]


def test_tables_and_pictures_among_the_outs_become_artifacts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, str] = {}
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, key, description: made.update({key: text}))  # noqa: ARG005
    out = project / "out"
    out.mkdir()
    (out / "NLL_x.md").write_text("| a |")
    (out / "grid.png").write_bytes(b"\x89PNG")
    (out / "other.json").write_text(json.dumps({}))
    artifacts.publish(graph.Stage("report@x", (), "", graph.Policy(), (out, project / "missing.png")))
    assert made == {"report-nll-x": "| a |", "report-grid": "![grid](data:image/png;base64,iVBORw==)"}


@pytest.mark.parametrize(
    ("own", "registered", "seed"), [(3, [], 4), (0, [5, 2], 6), (2**31 - 1, [], 0), (1, [2**31 - 1, 0], 2)]
)
def test_a_challenger_has_a_seed_that_no_version_has(
    own: int, registered: list[int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = params.load(DEMO).run("digits-gated")
    run = run.model_copy(update={"train": run.train.model_copy(update={"seed": own})})
    monkeypatch.setattr(challenger.registry, "seeds", lambda _: registered)
    assert challenger.new_seed(run) == seed
