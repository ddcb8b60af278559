"""Run a stage as a process group of its own, which saves its checkpoint and ends also when the flow is killed.

    flow process --- lifeline ---> this module's main --- dvc repro --single-item STAGE --- the stage's command

The flow holds the only writing end of a pipe, the lifeline. When the flow closes it, or is killed by any signal, the
reading end reaches end of file, and the supervisor sends the whole group SIGINT, as Ctrl-C in a terminal does: a
training saves its checkpoint and ends, and DVC releases its locks. After GRACE seconds the group is killed.
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
GRACE = 120.0  # seconds from SIGINT to SIGKILL: for a step, perhaps a validation, and a checkpoint
BUG, STOPPED, TIME_LIMIT = (
    1,
    130,
    124,
)  # exit codes: Python's after a traceback, and the shell's of SIGINT and `timeout`
COMMAND_FAILED = re.compile(
    r"failed to run: .*, exited with (-?\d+)$"
)  # DVC's message; its own exit code is always 255

# What DVC advises after each stage, for somebody at a terminal; and lines without a word
ADVICE = re.compile(
    r"|To track the changes with git, run:|\tgit add .*|To enable auto staging, run:|\tdvc config core\.autostage true"
    r"|Use `dvc push` to send your updates to remote storage\."
)


class StageError(RuntimeError):
    """A stage failed; has its name and the exit code of its command."""

    def __init__(self, stage: str, code: int):
        self.stage, self.code = stage, code
        meaning = {
            BUG: "exit code 1: a bug; its traceback is above",
            STOPPED: "was stopped; the next run resumes from its checkpoint",
            TIME_LIMIT: "was stopped after the minutes that dvc.yaml allows; the next run resumes from its checkpoint",
        }
        super().__init__(f"{stage}: {meaning.get(code, f'exit code {code}, see above')}")

    @property
    def may_pass(self) -> bool:
        """Whether a retry may succeed: not after a bug, an interruption, or the time limit."""
        return self.code not in (BUG, STOPPED, TIME_LIMIT)


@contextlib.contextmanager
def lifeline() -> Iterator[int]:
    """The reading end of a pipe that reaches end of file when this process leaves the context, or ends."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def run(stage: "Stage", folder: Path, inherited: tuple[int, ...], log: Callable[[str], object]) -> None:
    """Run a stage in `folder` and `log` each line of its output but ADVICE. Raises StageError when it fails.

    inherited: file descriptors for the stage's processes, the lifeline first.
    """
    command = [sys.executable, "-m", "pipelines.child", stage.name, "--folder", str(folder.resolve())]
    command += ["--lifeline", str(inherited[0])]
    command += ["--slot"] if stage.policy.slot else []
    command += ["--minutes", str(stage.policy.minutes)] if stage.policy.minutes else []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=inherited,
        start_new_session=True,  # signals to the flow's group or terminal do not reach the stage
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not ADVICE.fullmatch(line.rstrip()):
                log(line.rstrip())
    if process.returncode < 0:  # the supervisor was killed: end the rest of its group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    if process.returncode:
        raise StageError(stage.name, process.returncode)


class Supervisor:
    """Runs one stage; ends it on SIGTERM, when the lifeline closes, or after its time limit."""

    def __init__(self, minutes: float | None):
        self.minutes = minutes
        self.started, self.code = False, 0  # code: the reason for ending the stage, 0 for none

    def watch(self, lifeline_end: int) -> None:
        """End the stage on SIGTERM, and when the lifeline closes."""
        signal.signal(signal.SIGTERM, lambda *_: self.end(STOPPED))
        # SIGINT is for the rest of the group; a handler, unlike SIG_IGN, is not inherited by children
        signal.signal(signal.SIGINT, lambda *_: None)
        threading.Thread(target=self._wait_for_close, args=(lifeline_end,), daemon=True).start()

    def supervise(self, command: list[str], folder: Path, env: dict[str, str], inherited: tuple[int, ...]) -> int:
        """Run the command and relay its output; returns the exit code of the stage's command, or why it was ended."""
        self.started = True
        with self._time_limit():
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=inherited
            )
            if self.code:  # `end` was called between the two statements above
                os.killpg(0, signal.SIGINT)
            failure = self._relay(process)
        return self.code or (process.wait() and failure)

    def end(self, code: int) -> None:
        """Send the group SIGINT, and SIGKILL after GRACE; before the command runs, exit."""
        if not self.started:
            os._exit(code)
        if not self.code:
            self.code = code
            threading.Timer(GRACE, os.killpg, (0, signal.SIGKILL)).start()
            os.killpg(0, signal.SIGINT)

    def _relay(self, process: "subprocess.Popen[bytes]") -> int:
        """Copy the output, so that a stage can print after the flow has ended; returns the exit code that DVC names."""
        code = 255
        assert process.stdout is not None
        for line in process.stdout:
            found = COMMAND_FAILED.search(line.decode(errors="replace").rstrip())
            code = int(found[1]) if found else code
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), line)
        return code if code >= 0 else 128 - code  # of a signal, as in a shell

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        timer = threading.Timer(60 * (self.minutes or 0), self.end, (TIME_LIMIT,))
        timer.daemon = True
        if self.minutes is not None:
            timer.start()
        yield
        timer.cancel()

    def _wait_for_close(self, lifeline_end: int) -> None:
        os.read(lifeline_end, 1)  # returns when no process holds the writing end
        self.end(STOPPED)


def main() -> None:
    """The supervisor: acquire a slot if the stage needs one, then run `dvc repro --single-item STAGE`."""
    args = _arguments()
    supervisor = Supervisor(args.minutes)
    supervisor.watch(args.lifeline)
    # --wait-for-lock: without it DVC discards a finished stage when another process holds its lock for 3 seconds
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", args.stage]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    env = {**os.environ, "PATH": programs, "PYTHONUNBUFFERED": "1"}  # `python` in dvc.yaml is this interpreter
    if args.slot:
        with locks.slot() as (lock, gpu):
            code = supervisor.supervise(command, args.folder, env | gpu, (lock,))
    else:
        code = supervisor.supervise(command, args.folder, env, ())
    os._exit(code)  # does not wait for a timer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pipelines.child", description=__doc__)
    parser.add_argument("stage", help="as `dvc stage list` names it")
    parser.add_argument("--folder", type=Path, required=True, help="of dvc.yaml")
    parser.add_argument("--lifeline", type=int, required=True, help="file descriptor; the stage ends when it closes")
    parser.add_argument("--minutes", type=float, help="time limit")
    parser.add_argument("--slot", action="store_true", help="run in one of the machine's slots")
    return parser.parse_args()


if __name__ == "__main__":
    main()
