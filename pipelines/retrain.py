"""The flow `retrain`: train what is stale, or with another seed what is not; the registry promotes better models.

    python -m pipelines.retrain [RUN ...] [--force]

DVC decides by data, code and params what is stale. The stage `register` compares a challenger with the champion
(pixelcnn.tracking.registry), so the same rule holds for `dvc repro`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from pipelines import artifacts, challenger, graph, work
from pipelines.reproduce import NOTHING, run
from pixelcnn import params
from pixelcnn.schemas import RegisterReport
from pixelcnn.tracking import registry

REGISTER = "register"  # the stage that registers a run's model and writes a RegisterReport


def _run_name() -> str:
    given = flow_run.parameters
    return work.run_name("retrain", given["runs"] or ["all runs"]) + (", with a new seed" if given["force"] else "")


@flow(name="retrain", flow_run_name=_run_name)
def retrain(runs: list[str] = [], force: bool = False) -> State[None] | None:  # noqa: B006 (makes a form)
    """Train the runs that are stale, and compare each new model with its champion. Ends as Promoted if one is better.

    Args:
        runs: entries of params.yaml's `runs`; all if empty
        force: train also what is not stale, with a new seed, in a folder of its own
    """
    with work.started() as inherited:
        places = _challengers(runs) if force else [(Path(), _stale(runs))]
        futures: work.Futures = {}
        for folder, stages in places:
            futures |= work.submit(stages, folder, inherited)
        if not futures:
            get_run_logger().info(NOTHING)
        try:
            work.finish(futures)
        finally:
            promoted = [line for _, stages in places for line in _show_decisions(stages)]
        if force:
            challenger.remove([folder for folder, _ in places])
    return Completed(name="Promoted", message="; ".join(promoted)) if promoted else None


def _stale(runs: Sequence[str]) -> list[graph.Stage]:
    _sections(runs)  # refuses unknown runs
    return graph.stale([_target(name) for name in runs], Path())


def _challengers(runs: Sequence[str]) -> list[tuple[Path, list[graph.Stage]]]:
    """A folder for each run, and its stale stages."""
    places = []
    for name, section in _sections(runs).items():
        seed = challenger.new_seed(section)
        folder = challenger.prepare(name, seed, _target(name))
        get_run_logger().info("%s: a challenger with seed %d in %s", name, seed, folder)
        places.append((folder, graph.stale([_target(name)], folder)))
    return places


def _sections(runs: Sequence[str]) -> dict[str, params.Run]:
    """These entries of params.yaml's `runs`, all if empty. ValueError for an unknown one."""
    known = params.load(Path("params.yaml"))
    return {name: known.run(name) for name in runs or known.runs}


def _target(name: str) -> str:
    return f"{REGISTER}@{name}"


def _show_decisions(stages: Sequence[graph.Stage]) -> list[str]:
    """An artifact for each report that these stages have written: decision, scores and samples of both models.

    Returns a line for each model that was promoted.
    """
    promoted = []
    for stage in stages:
        name = stage.entry
        for path in [out for out in stage.outs if stage.kind == REGISTER and out.exists()]:
            report = RegisterReport.read(path, f"run `dvc repro --force {stage.name}`")
            if not report.registered:
                get_run_logger().info("%s: not registered: %s", name, report.reason)
                continue
            text = decision(report, name)
            create_markdown_artifact(text, key=f"decision-{name}", description=f"whether {name} became champion")
            get_run_logger().info("%s: %s: %s", name, report.decision, report.reason)
            if report.decision == "promoted":
                promoted.append(f"{report.name}: champion is version {report.version}, {name}: {report.reason}")
    return promoted


def decision(report: RegisterReport, run_name: str) -> str:
    """A decision of the registry as a page: the reason, and scores and samples of the versions compared."""
    name, number = report.name, report.version
    lines = [f"# {name}: version {number}, {report.decision}", "", report.reason + ".", ""]
    lines += [f"Trained as `{run_name}`. {registry.advice(report)}".rstrip(), ""]
    entries = registry.entries(name, [n for n in (number, report.compared_with) if n is not None])
    lines += ["| version | run | seed | test, bits/dim | ± |", "|---:|---|---:|---:|---:|"]
    lines += [f"| {e.version} | {e.run} | {e.seed} | {e.test:.4f} | {e.error:.4f} |" for e in entries]
    for entry in entries:
        lines += ["", f"Version {entry.version}", ""]
        lines += [artifacts.picture(path, f"Samples of version {entry.version}") for path in entry.samples]
    return "\n".join(lines)


def main() -> None:
    """Start the flow, unless nothing is stale and --force is not given."""
    parser = argparse.ArgumentParser(prog="pipelines.retrain", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="entries of params.yaml's runs (default: all)")
    parser.add_argument("--force", action="store_true", help="train also what is not stale, with a new seed")
    args = parser.parse_args()

    def call() -> Any:
        if not args.force and not _stale(args.runs):
            print(NOTHING)
            return None
        return retrain(args.runs, args.force, return_state=True)

    run(call)


if __name__ == "__main__":
    main()
