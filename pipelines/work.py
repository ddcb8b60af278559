"""Stages as Prefect task runs: named after the stage, waiting for what it needs, treated as dvc.yaml says."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings
from prefect.tasks import Task, exponential_backoff

from pipelines import artifacts, child, graph, locks

CHECKOUT_LOCK = Path(".dvc/tmp/pipelines.lock")
Futures = dict[str, PrefectFuture[None]]


@contextmanager
def begun() -> Iterator[tuple[int, ...]]:
    """One flow at a time in this checkout; yields what each stage is to inherit: the flow's lifeline, and that lock.

    So a stage that is still saving after its flow was killed holds up the next flow, which resumes what it saved.
    """
    if not Path("dvc.yaml").exists():
        raise ValueError("dvc.yaml: no such file; the pipelines run where it lies")
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # started by a worker or by `serve`, not by hand
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    try:
        with locks.held(CHECKOUT_LOCK) as (number, _), child.lifeline() as cord:
            yield cord, number
    except KeyboardInterrupt:
        with locks.held(CHECKOUT_LOCK):  # stages hold it until they have saved
            _leave_without_server()
        raise


def submit(stages: Sequence[graph.Stage], folder: Path, inherited: tuple[int, ...]) -> Futures:
    """Start each stage as soon as those it needs are done."""
    futures: Futures = {}
    for stage in stages:
        get_run_logger().info("%s: %s", stage.name, stage.why)
        prepared = run_stage.with_options(
            name=stage.name,
            retries=stage.treatment.retries,
            retry_delay_seconds=exponential_backoff(stage.treatment.retry_after),
            retry_condition_fn=may_pass,
        )
        needs = [futures[name] for name in stage.needs]
        futures[stage.name] = prepared.submit(stage, folder, inherited, wait_for=needs, return_state=False)
    return futures


def finish(futures: Futures) -> None:
    """Wait for all of them; one that fails stops those that need it and no other. Raises RuntimeError that names it."""
    for future in futures.values():
        future.wait()
    failed = [name for name, future in futures.items() if future.state.is_failed() or future.state.is_crashed()]
    if failed:
        kept = [name for name, future in futures.items() if future.state.is_pending()]
        after = f"; not begun for that reason: {', '.join(kept)}" if kept else ""
        raise RuntimeError(f"failed: {', '.join(failed)}{after}")


@task(cache_policy=NO_CACHE, task_run_name="{stage.name}")
def run_stage(stage: graph.Stage, folder: Path, inherited: tuple[int, ...]) -> None:
    """One stage, its output in the run's log, its tables and pictures as artifacts."""
    child.run(stage, folder, inherited, get_run_logger().info)
    artifacts.publish(stage)


def _leave_without_server() -> None:
    """End this process if Ctrl-C has also ended the server that Prefect started for it: it would try to report long."""
    alive = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    if get_current_settings().api.url is None and not alive:
        os._exit(child.STOPPED)


def _follow(parent: int) -> None:
    """End this process as a cancellation would when the process that started it is gone: a dead worker cannot."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def may_pass(_task: "Task[..., Any]", _run: TaskRun, state: State[Any]) -> bool:
    """Whether Prefect should try a failed stage again, if dvc.yaml gives it a retry."""
    return isinstance(state.data, child.StageError) and state.data.may_pass
