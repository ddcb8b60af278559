"""The flow `retrain`: train what is stale, or all anew with another seed; the registry promotes only what is better.

    python -m pipelines.retrain [RUN ...] [--force]

Data, code and params decide, by DVC's own comparison, whether there is anything to do. A challenger meets the champion
in the stage `register` (pixelcnn.tracking.registry), so `dvc repro` by hand follows the same rule.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from pipelines import artifacts, challenger, graph, work
from pipelines.reproduce import NOTHING, run
from pixelcnn import config
from pixelcnn.tracking import registry

JUDGED_BY = "register"  # the stage that puts a run's model into the registry and writes the receipt


@flow(name="retrain")
def retrain(runs: list[str] = [], force: bool = False) -> None:  # noqa: B006 (Prefect makes its form of it)
    """Train what data, code or params have made stale, and let each new model challenge its champion.

    Args:
        runs: entries of params.yaml's `runs`; all if empty
        force: train even what is not stale, with a new seed, in a folder of its own
    """
    with work.begun() as inherited:
        places = _challengers(runs) if force else [(Path(), _stale(runs))]
        futures: work.Futures = {}
        for folder, stages in places:
            futures |= work.submit(stages, folder, inherited)
        if not futures:
            get_run_logger().info(NOTHING)
        try:
            work.finish(futures)
        finally:
            for _, stages in places:
                _show_decisions(stages)
        if force:
            challenger.remove([folder for folder, _ in places])


def _stale(runs: Sequence[str]) -> list[graph.Stage]:
    _known(runs)
    return graph.stale([_judge(name) for name in runs], Path())


def _challengers(runs: Sequence[str]) -> list[tuple[Path, list[graph.Stage]]]:
    """A folder for each run, and what is to be done there."""
    places = []
    for name, section in _known(runs).items():
        seed = challenger.new_seed(section)
        folder = challenger.prepare(name, seed, _judge(name))
        get_run_logger().info("%s: a challenger with seed %d in %s", name, seed, folder)
        places.append((folder, graph.stale([_judge(name)], folder)))
    return places


def _known(runs: Sequence[str]) -> dict[str, config.Run]:
    known = config.load(Path("params.yaml")).runs
    for name in runs:
        if name not in known:
            raise ValueError(f"runs: {name!r} is not one of params.yaml's runs: {', '.join(known)}")
    return {name: section for name, section in known.items() if name in runs or not runs}


def _judge(name: str) -> str:
    return f"{JUDGED_BY}@{name}"


def _show_decisions(stages: Sequence[graph.Stage]) -> None:
    """An artifact for each receipt that these stages have written: decision, numbers and both models' samples."""
    for stage in stages:
        word, _, name = stage.name.partition("@")
        receipts = [out for out in stage.outs if word == JUDGED_BY and out.exists()]
        for path in receipts:
            receipt = json.loads(path.read_text())
            text = decision(receipt, name)
            create_markdown_artifact(text, key=f"decision-{name}", description=f"whether {name} became champion")
            get_run_logger().info("%s: %s: %s", name, receipt["decision"], receipt["reason"])


def decision(receipt: dict[str, Any], run_name: str) -> str:
    """A receipt as a page: what was decided, why, each side's number and samples."""
    name, number = receipt["name"], receipt["version"]
    lines = [f"# {name}: version {number}, {receipt['decision']}", "", receipt["reason"] + ".", ""]
    lines += [f"Trained as `{run_name}`. Back to the champion before: `python -m pipelines.rollback {name}`", ""]
    entries = registry.entries(name, [n for n in (number, receipt["compared_with"]) if n is not None])
    lines += ["| version | run | seed | test, bits/dim | ± |", "|---:|---|---:|---:|---:|"]
    lines += [f"| {e.version} | {e.run} | {e.seed} | {e.test:.4f} | {e.error:.4f} |" for e in entries]
    for entry in entries:
        lines += ["", f"Version {entry.version}", ""]
        lines += [artifacts.picture(path, f"Samples of version {entry.version}") for path in entry.samples]
    return "\n".join(lines)


def main() -> None:
    """Without anything stale and without --force no flow is started."""
    parser = argparse.ArgumentParser(prog="pipelines.retrain", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="entries of params.yaml's runs (default: all)")
    parser.add_argument("--force", action="store_true", help="also what is not stale, with a new seed")
    args = parser.parse_args()

    def call() -> Any:
        if not args.force and not _stale(args.runs):
            print(NOTHING)
            return None
        return retrain(args.runs, args.force, return_state=True)

    run(call)


if __name__ == "__main__":
    main()
