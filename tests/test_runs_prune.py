"""`pixelcnn runs prune`: what renamed and removed runs and data sets have left is listed, and removed on demand."""

import fcntl
import shutil
from pathlib import Path

import pytest

from pixelcnn.cli import main
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
KEPT = [
    "models/digits-gated/model.safetensors", "models/README.md", "data/prepared/digits/card.json",
    "data/raw/added/a.tar", "data/raw/added.dvc", "reports/train/digits-gated.json", "reports/report/index.html",
    "reports/check/params.txt", "checkpoints/digits-gated-0123456789ab.pt", "checkpoints/digits-gated.lock",
    "mlruns/records/old/about.json", "mlflow.db", "models/_mine/a", "reports/sample/notes.txt",
]  # fmt: skip
LEFT = [
    "models/old/model.safetensors", "data/raw/shapes/a.tar", "data/prepared/shapes/card.json",
    "data/prepared/shapes-embedded/card.json", "data/partial/shapes/a.tar.part", "reports/preprocess/shapes.json",
    "reports/train/old.json", "reports/train/old.csv", "reports/train/.old.csv.part", "reports/evaluate/old.parquet",
    "reports/sample/old.png", "reports/register/old.json", "checkpoints/old-0123456789ab.pt", "checkpoints/old.lock",
    "checkpoints/old-0123456789ab.finished", "checkpoints/old-0123456789ab.trunk",
    "checkpoints/.old-0123456789ab.pixels.part",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's files, beside those of a run `old` and of data sets `shapes` and `shapes-embedded`."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(DEMO, tmp_path / "params.yaml")
    for path in map(Path, KEPT + LEFT):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    return tmp_path


def there() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()} - {"dvc.yaml", "params.yaml"}


@pytest.mark.usefixtures("project")
def test_what_belongs_to_no_entry_is_listed_with_sizes_and_removed_on_demand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["runs", "prune"])
    said = capsys.readouterr().out
    assert all(any(line.split()[0] in (path, str(Path(path).parent)) for line in said.splitlines() if line)
               for path in LEFT), said  # fmt: skip
    assert "17.0 kB of entries that params.yaml no longer has" in said
    assert there() == {*KEPT, *LEFT}
    main(["runs", "prune", "--remove"])
    assert there() == set(KEPT)
    capsys.readouterr()
    main(["runs", "prune"])
    assert capsys.readouterr().out == "nothing to prune: all files belong to entries of params.yaml\n"


@pytest.mark.usefixtures("project")
def test_a_removed_run_that_still_trains_keeps_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    lock = Path("checkpoints/old.lock")
    lock.write_text("4711")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        main(["runs", "prune", "--remove"])
    assert "models/old: kept, since process 4711 is still training this run" in capsys.readouterr().out
    assert there() == set(KEPT) | {path for path in LEFT if "shapes" not in path}


def test_the_outs_of_stages_that_a_user_has_added_are_not_left_over(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (project / "dvc.yaml").open("a") as file:
        file.write("  average: {cmd: average, outs: [models/old]}\n")
        file.write("  grids: {foreach: [a, b], do: {cmd: draw, outs: ['reports/sample/${item}.png']}}\n")
    main(["runs", "prune"])
    said = capsys.readouterr().out
    assert "models/old" not in said
    assert "reports/sample" not in said
    assert "reports/train/old.json" in said
