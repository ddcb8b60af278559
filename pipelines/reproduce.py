"""The flow `reproduce`: run the stale stages, as `dvc repro` does, each as a Prefect task run.

python -m pipelines.reproduce [TARGET ...]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from pipelines import graph, servers, work
from pixelcnn.files import message

NOTHING = "nothing to do: DVC finds every stage up to date"


def _run_name() -> str:
    return work.run_name("reproduce", flow_run.parameters["targets"] or ["what is stale"])


@flow(name="reproduce", flow_run_name=_run_name)
def reproduce(targets: list[str] = []) -> None:  # noqa: B006 (Prefect makes a form of the signature)
    """Run the stale stages of DVC's graph.

    Args:
        targets: stages, or groups of stages (train), with all that they depend on; all stages if empty
    """
    with work.started() as inherited:
        stages = graph.stale(targets, Path())
        if not stages:
            get_run_logger().info(NOTHING)
        work.finish(work.submit(stages, Path(), inherited))


def run(call: Callable[[], Any]) -> None:
    """Call a flow from the command line. Exit code 0 when it completed, 1 when it failed, 2 for invalid input."""
    servers.guard()
    try:
        state = call()
    except (ValueError, OSError) as error:  # OSError: no permission, a full disk, a store that does not answer
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if state is None or state.is_completed() else 1)


def main() -> None:
    """Start the flow, unless nothing is stale."""
    parser = argparse.ArgumentParser(prog="pipelines.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="stages, as `dvc repro` takes them (default: all)")
    targets = parser.parse_args().targets

    def call() -> Any:
        if not graph.stale(targets, Path()):
            print(NOTHING)
            return None
        return reproduce(targets, return_state=True)

    run(call)


if __name__ == "__main__":
    main()
