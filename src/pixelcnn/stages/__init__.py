"""The DVC stages: one verb, one file, one stage each.

A stage reads its values from params.yaml in the current folder and its paths from the command line (dvc.yaml writes
it), and calls the package that does the work.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pixelcnn.params import Params, load

PARAMS = Path("params.yaml")


def parser(doc: str, entry: str | None, **paths: str) -> argparse.ArgumentParser:
    """The argument parser that all stages share.

    doc: the stage's docstring. entry: what the positional argument `name` is ("an entry of `runs`"), None for a stage
    that runs once. paths: the help of each required path option, by its name.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if entry is not None:
        made.add_argument("name", help=f"{entry} in params.yaml")
    for name, line in paths.items():
        made.add_argument(f"--{name}", type=Path, required=True, help=line)
    return made


def read_params() -> Params:
    """params.yaml of the current folder, checked."""
    return load(PARAMS)


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`. What a user can mend is one message on stderr and exit code 2, without a traceback."""
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
