"""Serve both flows in one process: `retrain` on a schedule, `reproduce` on demand; without a worker.

python -m pipelines.serve --cron "0 3 * * *"
"""

import argparse

from prefect import serve
from prefect.deployments.runner import RunnerDeployment

from pipelines.reproduce import reproduce
from pipelines.retrain import retrain


def deployments(cron: str) -> list[RunnerDeployment]:
    """`retrain` on the schedule, `reproduce` on demand."""
    # to_deployment refers to the file; a pickled flow would get copies of its module's globals
    nightly = retrain.to_deployment("scheduled", description="On schedule: what is stale", cron=cron)
    by_hand = reproduce.to_deployment("on-demand", description="What is stale, now")
    assert isinstance(nightly, RunnerDeployment)  # a coroutine only where an event loop runs
    assert isinstance(by_hand, RunnerDeployment)
    return [nightly, by_hand]


def main() -> None:
    """Serve until a signal; the running stage then saves and ends."""
    parser = argparse.ArgumentParser(prog="pipelines.serve", description=__doc__.splitlines()[0])
    parser.add_argument("--cron", required=True, help='when to retrain, such as "0 3 * * *"')
    args = parser.parse_args()
    # Not paused on shutdown: the next start would not resume the schedule, and SIGTERM would hang (Prefect 3.8)
    serve(*deployments(args.cron), limit=1, pause_on_shutdown=False)


if __name__ == "__main__":
    main()
