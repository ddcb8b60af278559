"""Where a file cannot be written whole, nothing lies under its name, nothing takes space, and a retry works."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelcnn import checkpoint, files
from pixelcnn.cli import main, output, score
from pixelcnn.data import image_files
from pixelcnn.generation.grids import save_grid
from pixelcnn.tracking.records import Record
from tests.conftest import images
from tests.test_architectures import model_of


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """What a full disk does, by the operating system itself: writing beyond so many bytes of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = model_of("gated_pixelcnn", 1)
    model.network.eval()
    checkpoint.save(Path("m"), model, model.network.state_dict())
    for n, image in enumerate(images(model, 40)):
        image_files.write(Path(f"given/{n:02d}.png"), image, 8)
    return tmp_path


def there(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "line",
    [
        "score m given -o scores.csv", "score m given -o scores.parquet", "compress m given -o a.pxc",
        "sample m --num 2 -o a.png", "complete m given/00.png --keep top-half -o a.png",
        "complete m given/00.png --keep top-half -o done", "suite demo",
    ],
)  # fmt: skip
def test_a_verb_that_cannot_write_leaves_nothing_and_may_be_repeated(
    line: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").write_text("mine: 1")
    before = there(model_folder)
    with no_file_above(30), pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "error: [Errno 27] File too large" in said
    assert "Traceback" not in said
    assert [path for path in there(model_folder) if "params.yaml.bak" not in path] == before
    assert Path("params.yaml").read_text() == "mine: 1"
    main(line.split())


def test_decompress_may_be_repeated_after_the_disk_was_full(model_folder: Path) -> None:
    main(["compress", "m", "given", "-o", "a.pxc"])
    written, write = [], image_files.write

    def failing(path: Path, image: torch.Tensor, levels: int) -> None:
        with no_file_above(10 if len(written) == 7 else 10**9):
            write(path, image, levels)
        written.append(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.image_files, "write", failing)
        with pytest.raises(SystemExit):
            main(["decompress", "m", "a.pxc", "-o", "back"])
    assert there(model_folder / "back") == []
    main(["decompress", "m", "a.pxc", "-o", "back"])
    assert len(there(model_folder / "back")) == 40


def test_maps_may_be_drawn_again_after_the_disk_was_full(model_folder: Path) -> None:
    drawn, draw = [], score.save_grid

    def failing(path: Path, *given: Any) -> None:
        with no_file_above(10 if len(drawn) == 7 else 10**9):
            draw(path, *given)
        drawn.append(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "save_grid", failing)
        with pytest.raises(SystemExit):
            main(["score", "m", "given", "--map", "maps"])
    assert there(model_folder / "maps") == []
    main(["score", "m", "given", "--map", "maps"])
    assert len(there(model_folder / "maps")) == 40


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save_state(path, {"a": torch.ones(3)})
    with no_file_above(10_000), pytest.raises(OSError, match=r"File too large|cannot be written"):
        checkpoint.save_state(path, {"a": torch.zeros(10**6)})
    state = checkpoint.load_state(path)
    assert state is not None
    assert state["a"].tolist() == [1, 1, 1]
    assert there(tmp_path) == ["a.pt"]


def test_an_event_that_cannot_be_written_whole_is_an_error_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = Record.create({"experiment": "noise"})
    record.put({"step": 1})
    with no_file_above(record.size + 7), pytest.raises(OSError, match=r"File too large: 'mlruns/records/.*events"):
        record.put({"step": 2, "metrics": {"a": 1.0}})
    record.put({"step": 3})
    assert [event["step"] for event in record.events()] == [1, 3]


def test_a_grid_and_a_new_folder_are_whole_or_not_there(tmp_path: Path) -> None:
    with no_file_above(30), pytest.raises(OSError, match="File too large"):
        save_grid(tmp_path / "a.png", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), 2, 2)

    def fill(folder: Path) -> None:
        with files.new_folder(folder) as part:
            (part / "a").write_bytes(bytes(100))

    with no_file_above(30), pytest.raises(OSError, match="File too large"):
        fill(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path / "new")
    assert there(tmp_path) == ["new/a"]
    with pytest.raises(ValueError, match="new already exists"):
        fill(tmp_path / "new")


def test_a_folder_that_may_not_be_written_is_an_error_in_a_line(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model_folder / "file").write_bytes(b"")
    for line in ("score m given -o file/a.csv", "sample m --num 1 -o file/a.png", "sample m --num 1 -o file"):
        with pytest.raises(SystemExit) as end:
            main(line.split())
        assert end.value.code == 2
        assert "error: " in capsys.readouterr().err


def test_what_a_killed_process_left_is_overwritten_and_two_at_once_write_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(bytes(10**6))
    inside, both = threading.Event(), []

    def second() -> None:
        inside.wait()
        with files.atomic(tmp_path / "a") as file:
            both.append((tmp_path / "a").read_bytes())
            file.write(b"second")

    thread = threading.Thread(target=second)
    thread.start()
    with files.atomic(tmp_path / "a") as file:
        inside.set()
        time.sleep(0.2)
        file.write(b"first")
    thread.join()
    assert both == [b"first"]
    assert there(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"second"
