"""The command `pixelcnn`: switching suites loses no file, help imports nothing heavy, errors name their cause."""

import subprocess
import sys
from pathlib import Path

import pytest

from pixelcnn import cli, params
from pixelcnn.cli import VERBS, main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_suite_replaces_params_yaml_and_the_old_file_is_renamed(here: Path) -> None:
    (here / "params.yaml").write_text("mine\n")
    main(["suite", "cifar10-small"])
    assert list(params.load(here / "params.yaml").datasets) == ["cifar10"]
    assert (here / "params.yaml.bak").read_text() == "mine\n"
    main(["suite", "cifar10"])
    assert (here / "params.yaml.bak").read_text() == "mine\n"
    assert (here / "params.yaml.bak2").exists()


def test_the_same_suite_again_makes_no_backup(here: Path) -> None:
    for _ in range(2):
        main(["suite", "cifar10-small"])
    assert [path.name for path in here.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("origin", ["archives", "it's \\here: # odd", "https://mirror.example/data"])
def test_a_suite_takes_its_archives_from_a_folder_or_a_mirror(here: Path, origin: str) -> None:
    main(["suite", "cifar10-small", "--origin", origin, "--verify", "any"])
    download = params.load(here / "params.yaml").datasets["cifar10"].download
    assert download.origin == (origin if "://" in origin else str(here / origin))
    assert download.verify == "any"


def test_an_unknown_suite_is_refused_with_the_known_ones(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["suite", "mnist"])
    assert end.value.code == 2
    assert "suite: 'mnist' is not one of cifar10-cpu" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_the_list_has_the_suites(capsys: pytest.CaptureFixture[str]) -> None:
    main(["suite", "--list"])
    listed = capsys.readouterr().out
    assert "cifar10-small" in listed
    assert "imagenet64-box2017" in listed


def test_every_verb_is_a_module_with_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit) as end:
            main([verb, "--help"])
        assert end.value.code == 0
        assert f"usage: pixelcnn {verb}" in capsys.readouterr().out
    modules = {path.stem for path in Path(cli.__path__[0]).glob("*.py")}
    assert modules == {*VERBS, "__init__", "__main__", "operands", "output", "places"}


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(verb in listed and line[:30] in listed for verb, line in VERBS.items())


@pytest.mark.parametrize("arguments", [["--help"], ["suite", "--list"]])
def test_verbs_without_a_model_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom pixelcnn.cli import main\n"
        f"try: main({arguments})\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'mlflow', 'pandas', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
