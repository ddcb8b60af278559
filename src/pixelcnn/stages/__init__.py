"""One verb, one file, one DVC stage: download, preprocess, baseline, train, evaluate, report, register.

A stage reads its values from params.yaml in the current folder, its paths from the command line (dvc.yaml writes it),
and calls one room of the package.
"""

import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; what a user can mend is a clear message on stderr and exit code 2, without a traceback."""
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
