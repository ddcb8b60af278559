"""The environment: limits that a dependency's own metadata lacks, the lock, and nobody who reports home."""

import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pixelcnn import config

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()

# Prefect's server in this process: what fastapi >= 0.151 and sqlalchemy >= 2.1 break without a word
PREFECT_SCRIPT = """
import asyncio
from datetime import timedelta
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.actions import DeploymentScheduleCreate

@flow
def nightly() -> int:
    return 7

assert nightly() == 7

async def main():
    async with get_client() as client:
        answer = await client._client.post("/flows/filter", json={"limit": None})
        assert answer.status_code == 200, answer.text
        flow_id = await client.create_flow(nightly)
        schedule = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=1)), active=True)
        deployment = await client.create_deployment(flow_id, "every-hour", schedules=[schedule])
        await client._client.post(f"/deployments/{deployment}/schedule", json={"min_runs": 3})
        runs = await client.read_flow_runs()
        scheduled = [run for run in runs if run.deployment_id == deployment]
        assert len(scheduled) >= 3, runs
        print("scheduled", len(scheduled))

asyncio.run(main())
"""


@pytest.mark.timeout(300)
def test_prefect_runs_a_flow_accepts_null_and_schedules(tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    settings = {
        "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PREFECT_SCRIPT], cwd=tmp_path, env=kept | settings,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "scheduled" in done.stdout, done.stdout + done.stderr


def test_prefect_reports_home_to_nobody() -> None:
    settings = tomllib.loads((ROOT / "prefect.toml").read_text())
    assert settings["server"]["analytics_enabled"] is False
    assert settings["server"]["ui"]["show_promotional_content"] is False


def test_a_flow_needs_no_server_that_somebody_has_started() -> None:
    settings = tomllib.loads((ROOT / "prefect.toml").read_text())
    assert settings["server"]["ephemeral"]["enabled"] is True


def test_deployments_are_of_flows_that_exist_with_parameters_that_they_take() -> None:
    for deployment in config.read_yaml(ROOT / "prefect.yaml")["deployments"]:
        path, name = deployment["entrypoint"].split(":")
        flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
        assert deployment["parameters"].keys() == inspect.signature(flow.fn).parameters.keys()
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_every_requirement_is_locked_with_hashes_and_no_address() -> None:
    locked = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", LOCK, re.MULTILINE))
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    names = {re.split(r"[<>=\[; ]", requirement)[0].replace(".", "-") for requirement in wanted}
    assert names <= locked
    pins = re.split(r"\n(?=[a-z0-9])", LOCK[LOCK.index("\n", LOCK.index("make lock")) :].strip())
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", LOCK)


@pytest.mark.parametrize("name", ["fastapi", "sqlalchemy"])
def test_the_limits_are_in_the_project_and_in_the_lock(name: str) -> None:
    limit = next(r for r in PROJECT["dependencies"] if r.startswith(f"{name}<"))
    version = re.search(rf"^{name}==([0-9.]+)", LOCK, re.MULTILINE)
    assert version is not None
    bound = limit.removeprefix(f"{name}<").split(".")
    assert [int(n) for n in version[1].split(".")] < [int(n) for n in bound]
