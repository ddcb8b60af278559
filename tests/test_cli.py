"""The command `pixelcnn`: switching suites loses no file, help imports nothing heavy, errors name their cause."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pixelcnn
from pixelcnn import cli, console, params
from pixelcnn.cli import VERBS, completion, main, suite
from tests.conftest import Refused

ROOT = Path(__file__).parent.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_suite_replaces_params_yaml_of_which_no_line_of_the_user_is_lost(here: Path, refused: Refused) -> None:
    mine, backup = here / "params.yaml", here / "params.yaml.bak"
    mine.write_text("mine\n")
    main(["suite", "cifar10-small"])
    assert list(params.load(mine).datasets) == ["cifar10"]
    assert backup.read_text() == "mine\n"
    main(["suite", "cifar10"])
    main(["suite", "texture", "--verify", "any"])
    main(["suite", "texture"])
    assert sorted(path.name for path in here.iterdir()) == ["params.yaml", "params.yaml.bak"]
    mine.write_text("mine too\n")
    refused("params.yaml has been edited and would be kept as params.yaml.bak", "suite", "cifar10")
    assert (mine.read_text(), backup.read_text()) == ("mine too\n", "mine\n")


def test_a_suite_is_added_to_params_yaml_whose_lines_stay(
    here: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = here / "params.yaml"
    main(["suite", "demo"])
    before = mine.read_text()
    for _ in range(2):
        main(["suite", "cifar10-scaling", "--add"])
    added = mine.read_text()
    rest = iter(added.splitlines())
    assert all(line in rest for line in before.splitlines()), "its lines, in their order"
    assert "has all of the suite cifar10-scaling already" in capsys.readouterr().out
    merged, suites = params.load(mine), [params.load(suite.SUITES / f"{n}.yaml") for n in ("demo", "cifar10-scaling")]
    assert merged.runs == suites[0].runs | suites[1].runs
    assert merged.datasets == suites[0].datasets | suites[1].datasets
    refused("runs: digits-gated, digits-gated-label, digits-auto", "suite", "digits", "--add")
    assert mine.read_text() == added
    (here / "photos").mkdir()
    main(["suite", "images", "--add", "--origin", "photos"])
    assert params.load(mine).images["photographs"].path == str(here / "photos")
    refused("images: photographs: already here with other values", "suite", "images", "--add")


def test_a_suite_whose_runs_cannot_take_over_what_is_shared_is_not_added(here: Path, refused: Refused) -> None:
    main(["suite", "cifar10-scaling"])
    before = (here / "params.yaml").read_text()
    refused("start with the suite: `pixelcnn suite demo`", "suite", "demo", "--add")
    assert (here / "params.yaml").read_text() == before


@pytest.mark.parametrize("origin", ["archives", "it's \\here: # odd", "https://mirror.example/data"])
def test_a_suite_takes_its_archives_from_a_folder_or_a_mirror(here: Path, origin: str, refused: Refused) -> None:
    if "://" not in origin:
        refused("no such folder", "suite", "cifar10-small", "--origin", origin)
        (here / origin).mkdir()
    main(["suite", "cifar10-small", "--origin", origin, "--verify", "any"])
    download = params.load(here / "params.yaml").datasets["cifar10"].download
    assert download.origin == (origin if "://" in origin else str(here / origin))
    assert download.verify == "any"


def test_an_unknown_suite_is_refused_with_the_known_ones(here: Path, refused: Refused) -> None:
    refused("suite: 'cifar10-smal' is not one of cifar10, cifar10-cpu", "suite", "cifar10-smal")
    refused("did you mean 'cifar10-small'?", "suite", "cifar10-smal")
    assert not list(here.iterdir())


def test_the_list_says_of_each_suite_what_it_is_for_in_whole_sentences(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["suite"])
    assert not list(here.iterdir())
    listed, _, _ = capsys.readouterr().out.partition("\n\n")
    entries = re.split(r"\n  (?=\S)", listed)
    assert [entry.split()[0] for entry in entries] == suite.names()
    assert all(entry.endswith(".") for entry in entries)
    assert max(map(len, listed.splitlines())) <= 100


def test_every_verb_is_a_module_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit) as end:
            main([verb, "--help"])
        assert end.value.code == 0
        assert f"usage: pixelcnn {verb}" in capsys.readouterr().out
    modules = {path.stem for path in Path(cli.__path__[0]).glob("*.py")}
    assert modules == {*VERBS, "__init__", "__main__", "arguments", "leftovers", "operands", "output", "places"}


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_alone_it_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments)
    listed = capsys.readouterr().out
    assert all(f"  {verb:12} {line}\n" in listed for verb, line in VERBS.items())
    main(["--version"])
    assert capsys.readouterr().out.startswith(f"pixelcnn {pixelcnn.__version__} (torch ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smaple"], "error: pixelcnn smaple: no such command; did you mean 'sample'?"),
        (["xyz"], "error: pixelcnn xyz: no such command; `pixelcnn` lists its commands"),
        (["sample", "cifar10", "-o", "a.png", "--sede=3"], "unrecognized arguments: --sede=3; did you mean '--seed'?"),
        (["sample", "cifar", "-o", "a.png"], "cifar: neither a folder nor a bundled model (cifar10, "),
        (["sample", "cifar", "-o", "a.png"], "did you mean 'cifar10'?"),
        (["score", "cifar10", "x.png", "--device", "gpu"], "'gpu' is none of cpu, cuda, cuda:0"),
        (["score", "cifar10", "x.png", "--device", "cuda:99"], "--device: 'cuda:99': PyTorch finds"),
        (["sample", "cifar10", "-o", "file/a.png"], "file/a.png cannot be written: "),
        (["sample", "cifar10", "-o", "file"], "file is a file; give the path of a folder"),
        (["compress", "cifar10", "x.png", "-o", "folder"], "folder is a folder; give the path of a file"),
        (["compress", "cifar10", "x.png", "-o", "file"], "--out: file already exists and is not an archive"),
        (["train", "digits-gated", "--measure", "nan"], "'nan' is not a number of minutes"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_any_work(
    here: Path, refused: Refused, arguments: list[str], message: str
) -> None:
    (here / "file").write_text("")
    (here / "folder").mkdir()
    refused(message, *arguments)


def test_what_only_informs_imports_nothing_heavy() -> None:
    lines = [[], ["--version"], ["suite", "--list"], *[[verb, "--help"] for verb in VERBS]]
    script = (
        "import contextlib, sys\nfrom pixelcnn.cli import main\n"
        f"for line in {lines}:\n with contextlib.suppress(SystemExit): main(line)\n"
        "sys.exit(', '.join({'torch', 'mlflow', 'pandas', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_and_ctrl_c_end_in_silence_with_the_codes_that_shells_expect() -> None:
    pixelcnn_cli = f"{sys.executable} -m pixelcnn.cli"
    done = subprocess.run(
        ["bash", "-c", f"{pixelcnn_cli} suite --list | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("141\n", "")
    script = (
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "  # not a shell's
        "from pixelcnn import console; console.run(lambda: (print(1, flush=True), time.sleep(60)))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -signal.SIGINT  # 130 in a shell


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_an_error_of_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        console.run(main)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory; fewer images, or smaller batches, need less: ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pixelcnn comp", ["complete", "completion", "compress"]),
        ("pixelcnn sample cifar10-l", ["cifar10-large"]),
        ("pixelcnn sample models/", ["models/mine"]),
        (
            "pixelcnn score --map a.png models/mine data/prepared/digits:t",
            [f"data/prepared/digits:{s}" for s in ("test", "train")],
        ),
        ("pixelcnn complete cifar10 a.png --keep t", ["top-half"]),
        ("pixelcnn train digits-gated", ["digits-gated", "digits-gated-label"]),
        ("pixelcnn suite imagenet32", ["imagenet32-box2017", "imagenet32-vdo2016"]),
        ("pixelcnn models s", ["show"]),
        ("pixelcnn models download x --o", ["--out"]),
        ("pixelcnn nothing ", []),
        ("pixelcnn sample 'open", []),
    ],
)
def test_a_shell_completes_what_is_known_here(here: Path, line: str, words: list[str]) -> None:
    for file in ("models/mine/config.json", "data/prepared/digits/card.json"):
        (here / file).parent.mkdir(parents=True)
        (here / file).touch()
    main(["suite", "demo"])
    assert completion.completions(line) == words


def test_bash_completes_behind_a_colon(here: Path) -> None:
    (here / "data/prepared/digits").mkdir(parents=True)
    (here / "data/prepared/digits/card.json").touch()
    script = (
        'eval "$(python -m pixelcnn.cli completion bash)"; pixelcnn() { python -m pixelcnn.cli "$@"; }; '
        'COMP_LINE="pixelcnn score cifar10 data/prepared/digits:te"; COMP_POINT=${#COMP_LINE}; _pixelcnn; '
        "echo ${COMPREPLY[@]}"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"PATH": path}
    )
    assert done.stdout == "test\n"


def test_train_becomes_the_command_of_the_stage(here: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    main(["suite", "demo"])
    shutil.copy(ROOT / "dvc.yaml", here)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    refused("data/prepared/digits: no such data set; `dvc repro preprocess@digits`", "train", "digits-gated")
    refused("runs.digits-gatd: missing; its runs are", "train", "digits-gatd")
    (here / "data/prepared/digits").mkdir(parents=True)
    (here / "data/prepared/digits/card.json").touch()
    begun: list[str] = []
    monkeypatch.setattr(os, "execv", lambda _, words: begun.extend(words))
    main(["train", "digits-gated", "--device", "cpu", "--measure", "2"])
    line = "-m pixelcnn.stages.train --data data/prepared/digits --out models/digits-gated"
    assert begun == [sys.executable, *f"{line} --report reports/train/digits-gated --measure 2.0 digits-gated".split()]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
