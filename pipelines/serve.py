"""Serve the flows in one process, without a worker: `retrain` on a schedule, the others on demand.

    python -m pipelines.serve --cron "0 3 * * *" [--drift NAME FOLDER]

With --drift the images in a folder are tested on that schedule too, before what is stale is trained.
"""

import argparse

from prefect import serve
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from pydantic import ValidationError

from pipelines.drift import drift
from pipelines.reproduce import reproduce, run
from pipelines.retrain import retrain
from pixelcnn.files import excerpt


def deployments(cron: str, tested: tuple[str, str] | None = None) -> list[RunnerDeployment]:
    """`retrain` on the schedule, `drift` too where a name and a folder are given, `reproduce` on demand.

    Raises ValueError for what is not a cron expression.
    """
    try:
        CronSchedule(cron=cron)
    except ValidationError:
        raise ValueError(
            f"--cron: {excerpt(repr(cron))} is not a cron expression, which has five fields (minute, hour, day of the "
            "month, month, day of the week), such as '0 3 * * *' for three o'clock every night"
        ) from None
    # to_deployment refers to the file; a pickled flow would get copies of its module's globals
    nightly = retrain.to_deployment("scheduled", description="On schedule: what is stale", cron=cron)
    by_hand = reproduce.to_deployment("on-demand", description="What is stale, now")
    parameters = dict(zip(("name", "folder"), tested or (), strict=False))
    incoming = drift.to_deployment(
        "incoming",
        description="Whether new images come from what a champion was trained on",
        cron=cron if tested else None,
        parameters=parameters,
    )
    assert isinstance(nightly, RunnerDeployment)  # a coroutine only where an event loop runs
    assert isinstance(by_hand, RunnerDeployment)
    assert isinstance(incoming, RunnerDeployment)
    return [incoming, nightly, by_hand]


def main() -> None:
    """Serve until a signal; the running stage then saves and ends."""
    parser = argparse.ArgumentParser(prog="pipelines.serve", description=__doc__.splitlines()[0])
    parser.add_argument("--cron", required=True, help='when to retrain, such as "0 3 * * *"')
    parser.add_argument(
        "--drift", nargs=2, metavar=("NAME", "FOLDER"), help="a registered model, and the folder of the images to test"
    )
    args = parser.parse_args()
    # Not paused on shutdown: the next start would not resume the schedule, and SIGTERM would hang (Prefect 3.8)
    run(lambda: serve(*deployments(args.cron, args.drift), limit=1, pause_on_shutdown=False))


if __name__ == "__main__":
    main()
