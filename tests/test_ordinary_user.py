"""What a user without all rights is told: which path, whose it is, and before the work where that can be known."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from pipelines import reproduce
from pixelcnn import console, stages
from pixelcnn.cli import main
from pixelcnn.stages import register
from pixelcnn.tracking import records, store
from pixelcnn.tracking.records import Record


def capabilities(effective: int) -> None:
    """Give this thread these of root's capabilities (capset(2)); -1 for all that it may have."""
    libc, header, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for low in (0, 3):
        data[low] = data[low + 1] & effective & 0xFFFFFFFF
    assert libc.capset(header, data) == 0


@pytest.fixture(autouse=True)
def ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which permissions bind the tests even where root runs them."""
    monkeypatch.chdir(tmp_path)
    if os.geteuid() == 0:
        capabilities(0)
    yield tmp_path
    if os.geteuid() == 0:
        capabilities(-1)
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o755)  # noqa: PTH101


def error_of(call: object, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        console.run(call)  # type: ignore[arg-type]
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_an_error_of_permission_says_which_path_and_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir(mode=0o555)
    said = error_of(lambda: Path("mine/new").mkdir(), capsys)
    assert "Permission denied: 'mine/new'; " in said
    assert f"{Path('mine').absolute()} belongs to " in said
    assert "is dr-xr-xr-x, this process is of " in said


@pytest.mark.parametrize("option", ["out", "report"])
def test_a_stage_that_may_not_write_its_outs_says_so_before_the_work(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("outs").mkdir(mode=0o555)
    monkeypatch.setattr(sys, "argv", ["stage", f"--{option}", "outs/below/a.json"])
    said = error_of(lambda: stages.parse(stages.parser("", None, **{option: "x"})), capsys)
    assert "Permission denied: 'outs/below/a.json'" in said


def test_a_verb_that_may_not_write_its_output_says_so_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir(mode=0o555)
    for line in ("sample cifar10 -o mine/a.png", "score cifar10 x.png -o mine/b/c.csv", "sample cifar10 -o mine"):
        with pytest.raises(SystemExit) as end:
            main(line.split())
        assert end.value.code == 2
        assert "Permission denied: 'mine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db.lock"])
def test_a_local_store_of_another_user_is_one_that_does_not_answer(name: str) -> None:
    store.LOCAL_STORE.touch()
    Path(name).touch()
    Path(name).chmod(0)
    with pytest.raises(ConnectionError, match=r"MLflow cannot use sqlite:///mlflow\.db: .*(unable to open|denied)"):
        store.connect("noise")


def test_records_of_other_users_are_left_to_them() -> None:
    theirs, mine = (Record.create({"experiment": "a", "over": False, "time": n}) for n in range(2))
    theirs.folder.chmod(0o555)
    assert [record.folder for record in records.every()] == [mine.folder]


def test_a_store_whose_disk_is_full_is_an_error_of_the_stage_register(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database or disk is full", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(register.registry, "register", full)
    monkeypatch.setattr(register, "of_run", lambda *_: None)
    monkeypatch.setattr(
        stages, "read_params", lambda: SimpleNamespace(promotion=SimpleNamespace(min_gain=0, confidence=0))
    )
    monkeypatch.setattr(sys, "argv", ["register", "a", "--model", "m", "--reports", "r", "--out", "a.json"])
    assert "MLflow at sqlite:///mlflow.db does not answer: (sqlite3.Op" in error_of(register.main, capsys)


def test_a_pipeline_without_permission_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir(mode=0o555)
    with pytest.raises(SystemExit) as end:
        reproduce.run(lambda: Path("mine/new").mkdir())
    assert end.value.code == 2
    assert "Permission denied: 'mine/new'; " in capsys.readouterr().err
