"""The outbox: what is put arrives, in order, whatever dies in between."""

import json
import threading
from pathlib import Path

import pytest

from pixelcnn.tracking import outbox
from pixelcnn.tracking.outbox import Courier, Event, Outbox, abandoned


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SECONDS_BETWEEN_DELIVERIES", 0.01)


def make(folder: Path, name: str, *events: Event) -> Outbox:
    box = Outbox.create(folder / name, {"about": name})
    for event in events:
        box.put(event)
    return box


def take(box: Outbox, most: int = 200) -> list[Event]:
    return [event for part in box.waiting(most) for event in part]


class Receiver:
    """Fails so many times before it takes something."""

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
    assert take(box, most=3) == events
    assert take(box) == []
    box.put({"n": 7})
    assert take(box) == [{"n": 7}]


def test_a_failure_keeps_all_from_the_part_that_failed(tmp_path: Path) -> None:
    box = make(tmp_path, "a", *[{"n": n} for n in range(5)])
    parts = box.waiting(most=2)
    next(parts), next(parts)  # the second part is taken up, and never delivered
    assert [event["n"] for event in take(Outbox(box.folder))] == [2, 3, 4]


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    box = make(tmp_path, "a", {"n": 0})
    line = json.dumps({"n": 1}) + "\n"
    with (box.folder / outbox.EVENTS).open("a") as handle:
        handle.write(line[:4])
        handle.flush()
        assert take(box) == [{"n": 0}]
        handle.write(line[4:])
    assert take(box) == [{"n": 1}]


def test_a_kept_file_is_that_of_the_moment(tmp_path: Path) -> None:
    box = make(tmp_path, "a")
    path = tmp_path / "curve.csv"
    path.write_text("early")
    kept = [box.keep(path)]
    path.write_text("late")
    kept.append(box.keep(path))
    path.unlink()
    assert [(box.folder / place).read_text() for place in kept] == ["early", "late"]
    assert {Path(place).name for place in kept} == {"curve.csv"}


def test_only_what_no_process_holds_is_abandoned(tmp_path: Path) -> None:
    late, early = make(tmp_path, "2"), make(tmp_path, "1")
    assert not list(abandoned(tmp_path))
    late.release()
    early.release()
    assert [box.about["about"] for box in abandoned(tmp_path)] == ["1", "2"]
    for box in abandoned(tmp_path):
        box.remove()
    assert not list(tmp_path.iterdir())


def test_a_courier_goes_on_after_failures_and_says_each_turn_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = Receiver(failures=3)
    box = make(tmp_path, "a", {"n": 0})
    courier = Courier(box, receiver, "The server")
    courier.start()
    while not receiver.taken:
        threading.Event().wait(0.01)
    box.put({"n": 1})
    courier.close()
    assert receiver.taken == [{"n": 0}, {"n": 1}]
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert said.count("does not answer (nobody is there)") == 1
    assert said.count("answers again") == 1


def test_what_a_dead_server_did_not_take_stays_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    courier = Courier(make(tmp_path, "a", {"n": 0}), Receiver(failures=10**9), "The server")
    courier.start()
    courier.close()
    assert f"the rest waits in {tmp_path / 'a'}" in capsys.readouterr().err
    assert [take(box) for box in abandoned(tmp_path)] == [[{"n": 0}]]


def test_a_server_that_never_comes_back_to_us_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE", 0.05)
    stuck = threading.Event()
    courier = Courier(make(tmp_path, "a", {"n": 0}), lambda _: stuck.wait() and None, "The server")
    courier.start()
    courier.close()
    assert "waits in" in capsys.readouterr().err
    stuck.set()
    courier.join()
