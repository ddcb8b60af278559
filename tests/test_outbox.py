"""The outbox delivers every event in order, also when a process or the server ends in between."""

import json
import threading
from pathlib import Path

import pytest

from pixelcnn.tracking import outbox
from pixelcnn.tracking.outbox import DeliveryThread, Event, Outbox, abandoned


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DELIVERY_INTERVAL", 0.01)


def make(folder: Path, name: str, *events: Event) -> Outbox:
    box = Outbox.create(folder / name, {"about": name})
    for event in events:
        box.put(event)
    return box


def take(box: Outbox, batch_size: int = 200) -> list[Event]:
    return [event for batch in box.undelivered(batch_size) for event in batch]


class Receiver:
    """Fails so many times before it accepts a delivery."""

    def __init__(self, failures: int = 0):
        self.failures, self.taken = failures, list[Event]()

    def __call__(self, box: Outbox) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("nobody is there")
        self.taken += take(box)


def test_events_are_delivered_once_and_in_order(tmp_path: Path) -> None:
    events = [{"n": n} for n in range(7)]
    box = make(tmp_path, "a", *events)
    assert take(box, batch_size=3) == events
    assert take(box) == []
    box.put({"n": 7})
    assert take(box) == [{"n": 7}]


def test_after_a_failure_events_are_delivered_from_the_batch_that_failed(tmp_path: Path) -> None:
    box = make(tmp_path, "a", *[{"n": n} for n in range(5)])
    batches = box.undelivered(batch_size=2)
    next(batches), next(batches)  # the second batch is read, but not delivered
    assert [event["n"] for event in take(Outbox(box.folder))] == [2, 3, 4]


def test_an_incomplete_line_is_not_delivered_until_it_is_complete(tmp_path: Path) -> None:
    box = make(tmp_path, "a", {"n": 0})
    line = json.dumps({"n": 1}) + "\n"
    with (box.folder / outbox.EVENTS).open("a") as handle:
        handle.write(line[:4])
        handle.flush()
        assert take(box) == [{"n": 0}]
        handle.write(line[4:])
    assert take(box) == [{"n": 1}]


def test_an_attached_file_is_a_copy_of_that_moment(tmp_path: Path) -> None:
    box = make(tmp_path, "a")
    path = tmp_path / "curve.csv"
    path.write_text("early")
    attached = [box.attach(path)]
    path.write_text("late")
    attached.append(box.attach(path))
    path.unlink()
    assert [(box.folder / place).read_text() for place in attached] == ["early", "late"]
    assert {Path(place).name for place in attached} == {"curve.csv"}


def test_only_outboxes_without_a_process_are_abandoned(tmp_path: Path) -> None:
    late, early = make(tmp_path, "2"), make(tmp_path, "1")
    assert not list(abandoned(tmp_path))
    late.release()
    early.release()
    assert [box.about["about"] for box in abandoned(tmp_path)] == ["1", "2"]
    for box in abandoned(tmp_path):
        box.remove()
    assert not list(tmp_path.iterdir())


def test_delivery_is_retried_after_failures_and_each_change_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = Receiver(failures=3)
    box = make(tmp_path, "a", {"n": 0})
    thread = DeliveryThread(box, receiver, "The server")
    thread.start()
    while not receiver.taken:
        threading.Event().wait(0.01)
    box.put({"n": 1})
    thread.close()
    assert receiver.taken == [{"n": 0}, {"n": 1}]
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert said.count("does not answer (nobody is there)") == 1
    assert said.count("answers again") == 1


def test_undelivered_events_stay_on_disk_and_a_message_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = DeliveryThread(make(tmp_path, "a", {"n": 0}), Receiver(failures=10**9), "The server")
    thread.start()
    thread.close()
    assert f"the rest waits in {tmp_path / 'a'}" in capsys.readouterr().err
    assert [take(box) for box in abandoned(tmp_path)] == [[{"n": 0}]]


def test_a_server_that_hangs_does_not_delay_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "CLOSE_TIMEOUT", 0.05)
    stuck = threading.Event()
    thread = DeliveryThread(make(tmp_path, "a", {"n": 0}), lambda _: stuck.wait() and None, "The server")
    thread.start()
    thread.close()
    assert "waits in" in capsys.readouterr().err
    stuck.set()
    thread.join()
