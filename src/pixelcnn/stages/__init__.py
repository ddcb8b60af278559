"""The DVC stages: one verb, one file, one stage each.

A stage reads its values from params.yaml in the current folder and its paths from the command line (dvc.yaml writes
it), and calls the package that does the work.
"""

import argparse
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pixelcnn import console
from pixelcnn.files import check_writable
from pixelcnn.params import Params, load
from pixelcnn.tracking.records import share_parents

PARAMS = Path("params.yaml")
OUTPUTS = ("out", "report")  # options of stages: paths that they write


def parser(doc: str, entry: str | None, **paths: str) -> argparse.ArgumentParser:
    """The argument parser that all stages share.

    doc: the stage's docstring. entry: what the argument `name` is ("an entry of `runs`"), None for a stage that runs
    once. paths: the help of each required path option, by its name.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if entry is not None:
        made.add_argument("name", nargs="?", help=f"{entry} in params.yaml (default: that of DVC's stage, DVC_STAGE)")
    for name, line in paths.items():
        made.add_argument(f"--{name}", type=Path, required=True, help=line)
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of a stage, by hand or by DVC.

    In dvc.yaml a command names neither the entry nor anything else of params.yaml, since DVC hands commands to a shell:
    the name comes from the environment, and stands for NAME in paths, the name of the entry's data set for DATASET.
    """
    args = made.parse_args()
    if getattr(args, "name", "") is None:
        stage, _, args.name = os.environ.get("DVC_STAGE", "").rpartition("@")
        if not stage:
            made.error("the argument name is missing, and there is no DVC_STAGE")
        for option, value in vars(args).items():
            if isinstance(value, Path):
                setattr(args, option, _in_place_of_words(value, args.name))
    for option in OUTPUTS:
        if (path := getattr(args, option, None)) is not None:
            check_writable(path)
    return args


def _in_place_of_words(path: Path, name: str) -> Path:
    text = str(path).replace("NAME", name)
    if "DATASET" in text:
        params = read_params()
        entry = params.embeddings[name] if name in params.embeddings else params.run(name)
        text = text.replace("DATASET", entry.dataset)
    return Path(text)


def read_params() -> Params:
    """params.yaml of the current folder, checked."""
    return load(PARAMS)


def experiment() -> str:
    """The name of the experiment whose stage this is (`dvc exp run`); "" under `dvc repro` and by hand."""
    return os.environ.get("DVC_EXP_NAME", "")


def by_dvc() -> bool:
    """Whether DVC runs this stage, and so has yet to commit its outs when it ends."""
    return "DVC_STAGE" in os.environ


def committed(content: bytes) -> bool:
    """Whether dvc.lock has an out of this content, by its md5."""
    lock = Path("dvc.lock")
    return lock.exists() and hashlib.md5(content).hexdigest() in lock.read_text()


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`. What a user can mend is one message on stderr and exit code 2, without a traceback."""
    share_parents()
    console.run(main)
