"""Files of users are refused a place where DVC would delete them, at every door."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pixelcnn import params
from pixelcnn.cli import main
from pixelcnn.files import EMPTIED, check_kept, check_writable
from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
WRONG = [
    "data/raw/cifar10",
    "data/raw",
    "data",
    ".",
    "..",
    "data/partial/x",
    "data/prepared",
    "./x/../data/raw/a",
    "models/mine",
    "reports/my.png",
    "link",
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of its own, with a link into data/raw."""
    folder = tmp_path / "home" / "project"
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "dvc.yaml").write_text("stages: {}")
    (folder / "link").symlink_to("data/raw")
    monkeypatch.chdir(folder)
    return folder


def test_the_folders_are_those_of_the_stages_outs() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for stage in stages.values():
        stage = stage.get("do", stage)
        for out in [each for key in ("outs", "metrics", "plots") for each in stage.get(key, [])]:
            path = out if isinstance(out, str) else next(iter(out))
            assert any(path.startswith(f"{folder}/") for folder in EMPTIED), path


@pytest.mark.parametrize("place", WRONG)
def test_a_place_that_dvc_empties_is_refused_at_every_door(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        f"suite cifar10-small --origin {place}",
        f"sample cifar10 -o {place}",
        f"score cifar10 x.png -o {place}",
        f"compress cifar10 x.png -o {place}",
        f"decompress cifar10 x.pxc -o {place}",
        f"complete cifar10 x.png --keep top-half -o {place}",
        f"models download x -o {place}",
        f"models pack x -o {place}",
    ):
        with pytest.raises(SystemExit) as end:
            main(line.split())
        assert end.value.code == 2
        assert "which DVC deletes before it runs a stage" in capsys.readouterr().err, line
    for absolute in (False, True):
        content = YAML(typ="safe").load(DEMO)
        content["datasets"]["digits"]["download"]["origin"] = str(Path(place).absolute()) if absolute else place
        with pytest.raises(ValueError, match=r"p: datasets\.digits\.download\.origin: .* is not safe for your files"):
            params.parse(content, "p")
    content = YAML(typ="safe").load(DEMO)
    content["embeddings"] = {"mine": {"source": "file", "dataset": "digits", "path": place, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match=r"p: embeddings\.mine\.path: "):
        params.parse(content, "p")
    assert sorted(path.name for path in Path().iterdir()) == ["data", "dvc.yaml", "link"]


def test_a_place_in_a_project_is_known_from_other_folders_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (project.parent, project / "data", Path("/")):
        monkeypatch.chdir(folder)
        with pytest.raises(ValueError, match="which DVC deletes"):
            check_kept(project / "data" / "raw" / "cifar10")


@pytest.mark.parametrize("place", ["samples", "a.png", "../archives", "data.png", "modelsx/a", "docs/data/raw"])
def test_other_places_are_accepted(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_kept(Path(place)) == Path(place)
    Path(place).mkdir(parents=True)
    main(["suite", "cifar10-small", "--origin", place])
    assert params.load(Path("params.yaml")).datasets["cifar10"].download.origin == str(Path(place).resolve())
    capsys.readouterr()
    for origin in ("publisher", "https://mirror/data/raw"):
        content = YAML(typ="safe").load(DEMO)
        content["datasets"]["digits"]["download"]["origin"] = origin
        params.parse(content, "p")


def test_a_folder_that_takes_no_files_is_refused_before_the_work() -> None:
    with pytest.raises(OSError, match=r"'/proc/x\.csv'"):
        check_writable(Path("/proc/x.csv"))
