"""How a process of the command line ends: errors, Ctrl-C and closed pipes, as a shell expects them."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from pixelcnn.files import message

NO_MEMORY = "DefaultCPUAllocator: "  # of PyTorch, in a plain RuntimeError


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
    except (ValueError, OSError, FloatingPointError) as error:
        _fail(message(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        _fail(f"out of memory; fewer images, or smaller batches, need less: {message(error)}")


def _fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def _is_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or PyTorch got no memory, on a GPU or for the CPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or NO_MEMORY in str(error)


def _end_by(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
