"""A training from start to end: checkpoints, the curve, logging, signals, and the files it writes.

Everything is continued when a training resumes: the curve, the clock, and what the caller's logger needs to find its
run again (`logger_state`).
"""

import csv
import io
import math
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import pixelcnn
from pixelcnn import checkpoint, files
from pixelcnn.data.dataset import Split
from pixelcnn.data.loader import Images
from pixelcnn.device import peak
from pixelcnn.generation.grids import save_grid
from pixelcnn.model import Model
from pixelcnn.nn.masked_conv import num_parameters
from pixelcnn.params import TrainProcess
from pixelcnn.schemas import Initial, TrainReport
from pixelcnn.training.distributed import LostRank, World
from pixelcnn.training.loop import Step, finite_mean, train
from pixelcnn.training.state import Training

COLUMNS = ["step", "images_seen", "seconds", "learning_rate", "train_bits_per_dim", "validation_bits_per_dim"]
FINISHED = ".finished"  # the ending of the file of a training that is done; that of its checkpoint is .pt
TRUNK = ".trunk"  # that of the checkpoint at the end of the trunk of a schedule
# A log has a line where none was for so many seconds, or so much of the time trained: soon at first, then more rarely
SILENCE, SILENT_SHARE = 5.0, 0.1
PACKAGE = Path(pixelcnn.__file__).parent


@dataclass(frozen=True)
class Logger:
    """Where rank 0 reports to while it trains: points of the curves by name, and pictures, at a step."""

    metrics: Callable[[Mapping[str, float], int], None]
    picture: Callable[[str, Path, int], None]


class Fit:
    """One training: `restore`, then `run`, then `write`."""

    def __init__(
        self,
        training: Training,
        settings: TrainProcess,
        path: Path,
        name: str,
        world: World,
        draw: Callable[[Model], Tensor],
        is_committed: Callable[[bytes], bool],
        trunk_path: Path | None = None,
        initial: Initial | None = None,
    ):
        """path: of the checkpoint. trunk_path: of that at the end of a schedule's trunk. draw: a sample grid (rows,
        columns, C, H, W) of a model. is_committed: whether an out of this content is safe from being deleted before it
        is made again. initial: the model that `training` starts from.
        """
        self.training, self.settings, self.path, self.name, self.world = training, settings, path, name, world
        self.finished = path.with_suffix(FINISHED)
        self.draw, self.is_committed, self.initial = draw, is_committed, initial
        self.trunk_path, self.continues_trunk = trunk_path, False
        self.logger_state: str | None = None
        self.rows: list[dict[str, float]] = []
        self.losses: list[Tensor] = []
        self.seconds, self.started, self.saved, self.said = 0.0, *3 * [time.monotonic()]
        self.stop_signal, self.micro_batch = 0, training.micro_batch

    def restore(self) -> None:
        """Continue from the checkpoint, or from the end where the training is done and its outs are not yet committed.

        ValueError where the ranks found different checkpoints.
        """
        if done := self._uncommitted():
            self.training.step = self.training.settings.steps
            self.training.best_step, self.training.best_bits_per_dim, self.training.best_weights = done["best"]
            self._take_over(done)
            self.say(f"trained already ({self.finished}) and not committed; writing the model and reports again")
        elif (state := checkpoint.load_state(self.path)) is not None:
            self.training.load_state_dict(state["training"])
            self._take_over(state)
            self.say(f"resuming after step {self.training.step} ({self.path})")
        elif (state := self._trunk()) is not None:
            self.training.load_state_dict(state["training"])
            self._take_over(state | {"logger_state": None})  # a run of its own
            self.continues_trunk = True
            self.say(f"continuing the trunk of an earlier training after step {self.training.step} ({self.trunk_path})")
        steps = self.world.all_gather(self.training.step)
        if len(set(steps)) > 1:
            raise ValueError(
                f"{self.path}: the processes found checkpoints of different steps ({', '.join(map(str, steps))}); "
                "all machines must share this folder"
            )
        if self.world.is_rank0:
            self._tidy(keep=self.finished if done else None)

    def _trunk(self) -> dict[str, Any] | None:
        """The state at the end of the trunk of another training, which has other `steps` or another cool-down.

        An uninterrupted training would have the same state there. None where that trunk is longer than this one, and
        where it is this training's own: that is to be trained anew, as by other code.
        """
        state = None if self.trunk_path is None else checkpoint.load_state(self.trunk_path)
        if state is None or state["of"] == self.path.name:
            return None
        return state if state["training"]["step"] <= self.training.settings.trunk_steps else None

    def _uncommitted(self) -> dict[str, Any] | None:
        """The end of this training by the same code, unless its outs are committed: then it is to be trained anew.

        The curve identifies a training, since it has the seconds.
        """
        done = checkpoint.load_state(self.finished)
        if done is None or done["code"] != files.sha256_of_folder(PACKAGE, "*.py"):
            return None
        return None if self.is_committed(_csv(done["rows"]).encode()) else done

    def _take_over(self, state: dict[str, Any]) -> None:
        self.rows, self.seconds, self.logger_state = state["rows"], state["seconds"], state["logger_state"]

    def _tidy(self, keep: Path | None) -> None:
        """Remove the finished weights of earlier trainings of this run, and files that a killed process has left half
        written; name interrupted trainings, which stay.
        """
        for part in self.path.parent.glob(f".{self.name}-{'[0-9a-f]' * 12}.*.part"):
            part.unlink()
        for other in self.path.parent.glob(f"{self.name}-{'[0-9a-f]' * 12}.*"):
            if other.suffix == FINISHED and other != keep:
                other.unlink()
            if other.suffix in (self.path.suffix, TRUNK) and other not in (self.path, self.trunk_path):
                self.say(f"{other} belongs to other params or data and is not resumed")

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save_state(self.path, self._state() | {"training": self.training.state_dict()})
        self.saved = time.monotonic()

    def save_trunk(self, path: Path) -> None:
        """Write the checkpoint at the end of the trunk, which stays when the training is done."""
        state = self._state() | {"training": self.training.state_dict(), "of": self.path.name}
        checkpoint.save_state(path, state)

    def save_finished(self) -> None:
        """Write what `write` needs in place of the checkpoint: a quarter of its size or less."""
        training, code = self.training, files.sha256_of_folder(PACKAGE, "*.py")
        best = (training.best_step, training.best_bits_per_dim, training.best_weights)
        if not self.finished.exists():
            checkpoint.save_state(self.finished, self._state() | {"best": best, "code": code})
        self.path.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.clock(), "logger_state": self.logger_state}

    def forget(self) -> None:
        """Remove the checkpoint and the finished weights."""
        self.path.unlink(missing_ok=True)
        self.finished.unlink(missing_ok=True)

    def say(self, what: str) -> None:
        """Print a line, on rank 0; above the bar where there is one."""
        if self.world.is_rank0:
            tqdm.write(f"{self.name}: {what}")
            sys.stdout.flush()
            self.said = time.monotonic()

    def clock(self) -> float:
        """Seconds of training, over all its starts."""
        return self.seconds + time.monotonic() - self.started

    def run(self, images: Images, conditions: Tensor | None, validation: Split, logger: Logger | None) -> None:
        """Train to the end: log and save periodically; save and exit upon SIGINT, SIGTERM or the loss of a rank.

        logger: of rank 0.
        """
        total, quiet = self.training.settings.steps, None if self.world.is_rank0 else True
        if logger and self.continues_trunk:
            for before, row in zip([None, *self.rows[:-1]], self.rows, strict=True):
                logger.metrics(_metrics(row, before), int(row["step"]))
        bar = tqdm(total=total, initial=self.training.step, desc=self.name, unit="step", disable=quiet)
        left, size, device = total - self.training.step, self.training.settings.batch_size, self.training.model.device
        self.say(f"{left:,} steps of batch size {size} on {len(images):,} images, {hardware(device)}")
        self.started = time.monotonic()
        with bar, _signals(self):
            try:
                for step in train(self.training, images, conditions, validation, self.world):
                    self.after(step, bar, logger)
            except LostRank as error:
                raise LostRank(f"{error}; {self.save_after_loss()}") from error
            except OSError as error:  # a full disk, or one that is gone
                if not self.path.exists():
                    raise
                raise OSError(f"{error}; the last checkpoint is intact; the same command resumes from it") from error

    def after(self, step: Step, bar: "tqdm[Any]", logger: Logger | None) -> None:
        """After a step: log, save, stop and draw, where it is time to."""
        self.losses.append(step.loss)
        bar.update()
        self.stop_signal = self.world.all_reduce_max(self.stop_signal)
        if step.validation is not None or step.step % self.settings.log_every == 0 or self.stop_signal:
            self.log(step, bar, logger)
            if self.world.is_rank0 and self.trunk_path and step.step == self.training.settings.trunk_steps:
                self.save_trunk(self.trunk_path)
            overdue = time.monotonic() - self.saved > self.settings.checkpoint_every
            if self.world.is_rank0 and (self.stop_signal or overdue):
                self.save()
        if self.stop_signal:
            self.exit()
        if logger and step.step % self.settings.pictures_every == 0 and self.training.ema.network.incremental:
            try:
                self.show(step.step, logger)
            except Exception as error:  # no room in the device's memory, or on the disk, or a bug: worth no training
                self.say(f"step {step.step}: no sample grid ({type(error).__name__}: {error}); continuing")

    def show(self, step: int, logger: Logger) -> None:
        """Log a sample grid of the EMA."""
        grid = self.draw(self.training.ema)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{step}.png"
            save_grid(path, grid.flatten(0, 1), grid.shape[1], self.training.model.data.levels)
            logger.picture("samples", path, step)

    def log(self, step: Step, bar: "tqdm[Any]", logger: Logger | None) -> None:
        """Add a row to the curve; rank 0 also logs it, and shows it in the bar or, without a terminal, as a line."""
        loss = finite_mean(self.losses, step.step)
        self.losses.clear()
        seen, seconds = step.step * self.training.settings.batch_size, self.clock()
        row = dict(zip(COLUMNS, (step.step, seen, round(seconds, 2), step.learning_rate, loss), strict=False))
        if step.validation is not None:
            row[COLUMNS[-1]] = step.validation
        before = self.rows[-1] if self.rows else None
        self.rows.append(row)
        if logger is None:
            return
        metrics = _metrics(row, before)
        logger.metrics(metrics, step.step)
        self.mention_micro_batch()
        best = self.training.best_bits_per_dim
        validated = "" if math.isinf(best) else f", validation {best:.3f}"
        bar.set_postfix_str(f"train {loss:.3f}{validated} bits/dim", refresh=False)
        is_silent = time.monotonic() - self.said > max(SILENCE, SILENT_SHARE * self.clock())
        if bar.disable and (step.validation is not None or is_silent):
            validated = "" if step.validation is None else f", validation {step.validation:.4f}"
            self.say(
                f"step {step.step} of {self.training.settings.steps}: train {loss:.4f}{validated} bits/dim, "
                f"{metrics['images_per_second']:.0f} images/s"
            )

    def mention_micro_batch(self) -> None:
        """Once per halving: say that the device ran out of memory."""
        if self.training.micro_batch < self.micro_batch:
            self.micro_batch = self.training.micro_batch
            self.say(f"out of device memory: continuing with micro-batches of {self.micro_batch}")

    def save_after_loss(self) -> str:
        """Save if that is still possible after the loss of a rank, and say where the next start continues.

        A GPU may wait for the lost rank for ever, so what lies there is not read again.
        """
        if self.training.model.device.type != "cpu":
            return "the same command resumes from the last checkpoint"
        if self.losses:
            finite_mean(self.losses, self.training.step)
        self.save()
        return f"saved step {self.training.step}; the same command resumes from there"

    def exit(self) -> None:
        """End the process as the signal asks; the checkpoint is written."""
        name = signal.Signals(self.stop_signal).name
        self.say(f"{name}: saved step {self.training.step}; the same command resumes from there")
        sys.exit(128 + self.stop_signal)

    def report(self, device: torch.device) -> TrainReport:
        """The numbers of the finished training; `device` is what it ran on."""
        training, last, name = self.training, self.rows[-1], hardware(device)
        at_best = next(row for row in self.rows if row["step"] == training.best_step)
        flops, images = flops_per_image(training.ema), int(last["images_seen"])
        rate, best = images / last["seconds"], peak(name, training.settings.precision)
        return TrainReport(
            step=training.best_step,
            steps=training.settings.steps,
            validation_bits_per_dim=training.best_bits_per_dim,
            train_bits_per_dim=at_best["train_bits_per_dim"],
            num_parameters=num_parameters(training.model.network),
            flops_per_image=flops,
            images_seen=images,
            seconds=last["seconds"],
            images_per_second=rate,
            flops_per_second=rate * flops,
            share_of_peak=None if best is None else rate * flops / (best * self.world.size),
            hardware=f"{self.world.size} x {name}" if self.world.size > 1 else name,
            exact=training.model.network.exact,
            initial=self.initial,
        )

    def write(self, out: Path, report: Path, device: torch.device) -> TrainReport:
        """Write the model, the report and the curve; `report` is the path of both without their endings."""
        assert self.training.best_weights is not None
        checkpoint.save(out, self.training.model, self.training.best_weights)
        written = self.report(device)
        written.trained.write(out / checkpoint.TRAINING)
        written.write(report.with_suffix(".json"))
        files.write_text(report.with_suffix(".csv"), _csv(self.rows))
        return written


@contextmanager
def _signals(fit: Fit) -> Iterator[None]:
    """SIGINT and SIGTERM take effect after the current step; a second one ends the process at once.

    Not so under torchrun, which repeats its signals, sends SIGTERM when a rank is lost, and kills after 30 seconds what
    has not ended: a rank that reports the loss must not be ended by that signal.
    """

    def note(number: int, _frame: FrameType | None) -> None:
        fit.stop_signal = number
        if fit.world.size == 1:
            signal.signal(number, before[number])

    before = {int(number): signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if fit.world.size == 1:
            for number, handler in before.items():
                signal.signal(number, handler)


def flops_per_image(model: Model) -> float:
    """Floating point operations of one training step per image: three times a forward pass (2 per multiply-add)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.nll(*model.example())
    return 3.0 * counter.get_total_flops()


def hardware(device: torch.device) -> str:
    """What the training ran on, for the cost column of the tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    num = torch.get_num_threads()
    return f"{num} CPU {'core' if num == 1 else 'cores'} ({platform.machine()})"


def _metrics(row: Mapping[str, float], before: Mapping[str, float] | None) -> dict[str, float]:
    """A row of the curve as points of the logger's curves; images/s since the row before it."""
    points = {name: value for name, value in row.items() if name in COLUMNS[3:]}
    images, seconds = (row[name] - (before[name] if before else 0) for name in ("images_seen", "seconds"))
    return points | {"images_per_second": images / max(seconds, 0.01)}


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
