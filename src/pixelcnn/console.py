"""How a process of the command line ends: errors, Ctrl-C and closed pipes, as a shell expects them."""

import os
import signal
import sys
from collections.abc import Callable

from pixelcnn.files import message


def run(main: Callable[[], object]) -> None:
    """Call `main`. What a user can mend is one message on stderr and exit code 2, without a traceback.

    Ctrl-C, and output that nobody reads any more (`| head`), end the process in silence by SIGINT and SIGPIPE: 130 and
    141 in a shell, whose loops end with it as they would not after an exit code alone.
    """
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # here rather than at exit, where a closed pipe could not be caught
    except KeyboardInterrupt:
        _end_by(signal.SIGINT)
    except BrokenPipeError:
        _end_by(signal.SIGPIPE)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(2)


def _end_by(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
