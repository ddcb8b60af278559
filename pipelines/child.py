"""A stage as a process group of its own, which ends with its checkpoint whatever becomes of the flow.

    flow process --- lifeline ---> this module's main --- dvc repro --single-item STAGE --- the stage's command

The flow holds the only writing end of a pipe, the lifeline. When the flow lets go, or is killed by whatever signal, the
reading end says so, and the stage gets what Ctrl-C in a terminal would send: SIGINT to the whole group, upon which a
training saves and ends, and DVC leaves its locks. Who is not gone after GRACE seconds is killed.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import locks

if TYPE_CHECKING:
    from pipelines.graph import Stage  # imports DVC, which the supervisor only starts

ROOT = Path(__file__).parent.parent
GRACE = 120.0  # seconds from the wish to the end: a step, perhaps a validation, and a checkpoint
BUG, STOPPED, TIME_LIMIT = 1, 130, 124  # exit codes: Python's own after a traceback, and the shell's two
COMMAND_FAILED = re.compile(r"failed to run: .*, exited with (-?\d+)$")  # DVC's words; its own code is always 255


class StageError(RuntimeError):
    """A stage failed: its name and the exit code of its command."""

    def __init__(self, stage: str, code: int):
        self.stage, self.code = stage, code
        what = {
            BUG: "exit code 1: a bug, whose traceback stands above",
            STOPPED: "ended before its time; the next run goes on from its checkpoint",
            TIME_LIMIT: "ended after the minutes that dvc.yaml allows; the next run goes on from its checkpoint",
        }
        super().__init__(f"{stage}: {what.get(code, f'exit code {code}, see above')}")

    @property
    def may_pass(self) -> bool:
        """Whether trying again makes sense: not after a bug, nor when somebody or the clock has ended the stage."""
        return self.code not in (BUG, STOPPED, TIME_LIMIT)


@contextlib.contextmanager
def lifeline() -> Iterator[int]:
    """The reading end of a pipe that speaks when this process leaves the context, or dies."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def run(stage: "Stage", folder: Path, inherited: tuple[int, ...], say: Callable[[str], object]) -> None:
    """Run a stage in `folder` and `say` each line of its output. Raises StageError when it fails.

    inherited: open files that the stage is to hold, the lifeline first.
    """
    command = [sys.executable, "-m", "pipelines.child", stage.name, "--folder", str(folder.resolve())]
    command += ["--lifeline", str(inherited[0])]
    command += ["--slot"] if stage.treatment.slot else []
    command += ["--minutes", str(stage.treatment.minutes)] if stage.treatment.minutes else []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=inherited,
        start_new_session=True,  # no signal for the flow's group or terminal reaches the stage but by the lifeline
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip())
    if process.returncode < 0:  # the supervisor itself was killed: the rest of its group would stay
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    if process.returncode:
        raise StageError(stage.name, process.returncode)


class Supervisor:
    """Runs one stage, and ends it upon a signal, upon the lifeline's word or after its time."""

    def __init__(self, minutes: float | None):
        self.minutes = minutes
        self.started, self.code = False, 0  # `code`: why the stage is being ended, if it is

    def watch(self, lifeline_end: int) -> None:
        """Obey SIGTERM, and the lifeline."""
        signal.signal(signal.SIGTERM, lambda *_: self.end(STOPPED))
        signal.signal(
            signal.SIGINT, lambda *_: None
        )  # its own, to the group; unlike SIG_IGN, children do not inherit it
        threading.Thread(target=self._wait_for_word, args=(lifeline_end,), daemon=True).start()

    def supervise(self, command: list[str], folder: Path, env: dict[str, str], inherited: tuple[int, ...]) -> int:
        """Run the command and pass its output on; the exit code of what DVC ran, or why it was ended."""
        self.started = True
        with self._clock():
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=inherited
            )
            if self.code:  # asked between the two lines above
                os.killpg(0, signal.SIGINT)
            failure = self._relay(process)
        return self.code or (process.wait() and failure)

    def end(self, code: int) -> None:
        """Ask the group to end, and see to it; before the command runs there is nothing to ask."""
        if not self.started:
            os._exit(code)
        if not self.code:
            self.code = code
            threading.Timer(GRACE, os.killpg, (0, signal.SIGKILL)).start()
            os.killpg(0, signal.SIGINT)

    def _relay(self, process: "subprocess.Popen[bytes]") -> int:
        """Copy lines while there are any; a reader that is gone must not break the stage's own prints."""
        code = 255
        assert process.stdout is not None
        for line in process.stdout:
            found = COMMAND_FAILED.search(line.decode(errors="replace").rstrip())
            code = int(found[1]) if found else code
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), line)
        return code if code >= 0 else 128 - code  # as a shell says it

    @contextlib.contextmanager
    def _clock(self) -> Iterator[None]:
        timer = threading.Timer(60 * (self.minutes or 0), self.end, (TIME_LIMIT,))
        timer.daemon = True
        if self.minutes is not None:
            timer.start()
        yield
        timer.cancel()

    def _wait_for_word(self, lifeline_end: int) -> None:
        os.read(lifeline_end, 1)  # returns when no process holds the other end
        self.end(STOPPED)


def main() -> None:
    """The supervisor's process: a slot if the stage wants one, then `dvc repro --single-item STAGE`."""
    args = _arguments()
    supervisor = Supervisor(args.minutes)
    supervisor.watch(args.lifeline)
    # --wait-for-lock: without it DVC throws a finished stage away when another process holds its lock for 3 seconds
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", args.stage]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    env = {**os.environ, "PATH": programs, "PYTHONUNBUFFERED": "1"}  # dvc.yaml says `python`: this one
    if args.slot:
        with locks.slot() as (number, shown):
            code = supervisor.supervise(command, args.folder, env | shown, (number,))
    else:
        code = supervisor.supervise(command, args.folder, env, ())
    os._exit(code)  # a timer may still be waiting


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pipelines.child", description=__doc__)
    parser.add_argument("stage", help="as `dvc stage list` names it")
    parser.add_argument("--folder", type=Path, required=True, help="where dvc.yaml lies")
    parser.add_argument("--lifeline", type=int, required=True, help="the pipe whose end ends the stage")
    parser.add_argument("--minutes", type=float, help="how long it may run")
    parser.add_argument("--slot", action="store_true", help="hold one of the machine's slots meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    main()
