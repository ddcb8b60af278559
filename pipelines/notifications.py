"""Notify a webhook of flows that fail, of drift and of promotions, by an automation of the Prefect server.

    PREFECT_API_URL=http://127.0.0.1:4200/api python -m pipelines.notifications https://hooks.example.com/services/...

The server posts {"text": ...}, which Slack, Mattermost and others take. The webhook is called once to try it. Another
call replaces the URL; --remove ends the notifications.
"""

import argparse
import sys
from collections.abc import Sequence
from uuid import UUID

import httpx
from prefect import get_client
from prefect.automations import Automation, EventTrigger, Posture, SendNotification
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import get_current_settings

from pixelcnn.files import excerpt

NAME = "pixelcnn"  # of the automation and of the block with the URL
EVENTS = ("Failed", "Crashed", "TimedOut", "Drift", "Promoted")  # states that a flow run enters; the last two: ours
MESSAGE = {"text": "{{subject}}\n{{body}}"}
SUBJECT = "{{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }}\n{{ (flow_run | ui_url) or '' }}"


def notify(url: str) -> None:
    """Post a first message to the URL, and set the automation up. ValueError where one of the two is not possible."""
    _check_server()
    block = CustomWebhookNotificationBlock(
        name=NAME,
        url="{{url}}",
        json_data=MESSAGE,
        headers=None,
        cookies=None,
        secrets={"url": url},  # type: ignore[arg-type]  # becomes a SecretDict
    )
    try:
        block.notify(f"Told of flow runs that become {', '.join(EVENTS)}", "pixelcnn: notifications are set up")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"{excerpt(url)}: is not a webhook that takes a message: {excerpt(str(error))}") from None
    block_id = block.save(NAME, overwrite=True)
    assert isinstance(block_id, UUID)  # a coroutine only where an event loop runs
    remove()
    _automation(block_id).create()


def remove() -> bool:
    """Remove the automation; returns whether there was one."""
    _check_server()
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(NAME)
        for automation in found:
            client.delete_automation(automation.id)
    return bool(found)


def _automation(block_id: UUID) -> Automation:
    return Automation(
        name=NAME,
        description="Post to the webhook in the block of the same name (python -m pipelines.notifications)",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in EVENTS},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block_id, subject=SUBJECT, body=BODY)],
    )


def _check_server() -> None:
    """ValueError unless a server answers that stays: a temporary one would end with this command."""
    url = get_current_settings().api.url
    if url is None:
        raise ValueError(
            "PREFECT_API_URL: not set, and notifications are sent by a server; start one with `prefect server start`, "
            "and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ValueError(f"PREFECT_API_URL: {url} does not answer: {excerpt(str(error))}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Set notifications up, or end them. Exit code 2 where that is not possible."""
    parser = argparse.ArgumentParser(prog="pipelines.notifications", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("url", nargs="?", metavar="URL", help="of the webhook, which takes a POST of JSON")
    what.add_argument("--remove", action="store_true", help="end the notifications")
    args = parser.parse_args(arguments)
    try:
        if args.remove:
            print("notifications are removed" if remove() else "there were no notifications")
        else:
            notify(args.url)
            print(f"a message was posted; from now on one for each flow run that becomes {', '.join(EVENTS)}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
