"""`pixelcnn ui`: the addresses of MLflow's pages, and a port that is taken."""

import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixelcnn.cli import main
from pixelcnn.tracking import pages


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")  # so that it is restored


def test_it_prints_where_runs_and_models_are_and_becomes_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [SimpleNamespace(name="Default", experiment_id="0"), SimpleNamespace(name="digits", experiment_id="7")]
    monkeypatch.setattr(pages, "existing", lambda: SimpleNamespace(search_experiments=lambda: found))
    started = list[Any]()
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append((path, arguments)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main(["ui", "--port", str(port)])
    assert capsys.readouterr().out.splitlines() == [
        f"runs of digits     http://127.0.0.1:{port}/#/experiments/7/runs?viewStateShareKey=results",
        f"registered models  http://127.0.0.1:{port}/#/models",
    ]
    ((_, arguments),) = started
    assert arguments[1:] == [
        "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1", "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_a_port_that_is_taken_is_refused_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as end:
            main(["ui", "--port", str(taken.getsockname()[1])])
    assert end.value.code == 2
    assert re.search(r"--port: \d+ cannot be used: another program .*`pixelcnn ui --port \d+`", capsys.readouterr().err)


def test_without_a_store_it_says_how_one_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ui", "--port", "59127"])
    assert "`dvc repro`" in capsys.readouterr().err
