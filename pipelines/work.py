"""Stages as Prefect task runs: named after the stage, in the order of DVC's graph, retried as their `meta` says."""

import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.tasks import Task, exponential_backoff

from pipelines import artifacts, child, graph, locks, servers

CHECKOUT_LOCK = Path(".dvc/tmp/pipelines.lock")
LONGEST_NAME = 120  # characters of a flow run's name
Futures = dict[str, PrefectFuture[None]]


def run_name(verb: str, what: Sequence[str]) -> str:
    """The name of a flow run: what is done to what, such as "retrain digits-gated, digits-autoencoder"."""
    return textwrap.shorten(f"{verb} {', '.join(what)}", LONGEST_NAME, placeholder=" ...")


@contextmanager
def started() -> Iterator[tuple[int, ...]]:
    """Lock this checkout for one flow; yields the file descriptors that stages inherit: the lifeline and the lock.

    A stage that is still saving after its flow was killed holds the lock, so the next flow waits and resumes from that.
    """
    if not Path("dvc.yaml").exists():
        raise ValueError("dvc.yaml: no such file; the pipelines run in its folder")
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # started by a worker or by `serve`
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        servers.guard()
    try:
        with locks.held(CHECKOUT_LOCK) as (lock, _), child.lifeline() as lifeline:
            yield lifeline, lock
    except KeyboardInterrupt:
        with locks.held(CHECKOUT_LOCK):  # wait for the stages: they hold it until they have saved
            _leave_without_server()
        raise


def submit(stages: Sequence[graph.Stage], folder: Path, inherited: tuple[int, ...]) -> Futures:
    """Submit the stages as Prefect tasks; each starts when those that it depends on have completed.

    Tags: of a task run its stage's kind and entry (train, digits-gated), of the flow run the entries.
    """
    futures: Futures = {}
    _tag_flow_run(stage.entry for stage in stages)
    for stage in stages:
        get_run_logger().info("%s: %s", stage.name, stage.why)
        prepared = run_stage.with_options(
            name=stage.name,
            tags=sorted(filter(None, {stage.kind, stage.entry})),
            retries=stage.policy.retries,
            retry_delay_seconds=exponential_backoff(stage.policy.retry_after),
            retry_condition_fn=may_pass,
        )
        needs = [futures[name] for name in stage.needs]
        futures[stage.name] = prepared.submit(stage, folder, inherited, wait_for=needs, return_state=False)
    return futures


def finish(futures: Futures) -> None:
    """Wait for all stages. A failed one stops only those that depend on it; RuntimeError then names both."""
    for future in futures.values():
        future.wait()
    failed = [name for name, future in futures.items() if future.state.is_failed() or future.state.is_crashed()]
    if failed:
        pending = [name for name, future in futures.items() if future.state.is_pending()]
        skipped = f"; not started for that reason: {', '.join(pending)}" if pending else ""
        raise RuntimeError(f"failed: {', '.join(failed)}{skipped}")


@task(cache_policy=NO_CACHE, task_run_name="{stage.name}")
def run_stage(stage: graph.Stage, folder: Path, inherited: tuple[int, ...]) -> None:
    """Run one stage; its output goes to the run's log, its tables and pictures become artifacts."""
    child.run(stage, folder, inherited, get_run_logger().info)
    artifacts.publish(stage)


def _tag_flow_run(entries: Iterable[str]) -> None:
    """Add tags to this flow run, by which Prefect's pages find the runs of an entry of params.yaml."""
    known = set(flow_run.tags)
    if added := {entry for entry in entries if entry} - known:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), tags=sorted(known | added))


def _leave_without_server() -> None:
    """Exit if Ctrl-C has also ended the temporary server of this process: Prefect would retry for long to reach it."""
    alive = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    if get_current_settings().api.url is None and not alive:
        os._exit(child.STOPPED)


def _end_with(parent: int) -> None:
    """Send this process SIGTERM, as a cancellation does, when the worker that started it has died."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def may_pass(_task: "Task[..., Any]", _run: TaskRun, state: State[Any]) -> bool:
    """Whether Prefect should retry a failed stage, if dvc.yaml allows retries."""
    return isinstance(state.data, child.StageError) and state.data.may_pass
