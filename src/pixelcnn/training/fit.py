"""A training's course: its curve, its clock, its checkpoint and its signals, all continued when it resumes."""

import csv
import io
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from pixelcnn import checkpoint, config
from pixelcnn.data.dataset import Split
from pixelcnn.data.loader import Images
from pixelcnn.device import peak
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.sampling import is_incremental
from pixelcnn.model import Model
from pixelcnn.nn.masked_conv import num_parameters
from pixelcnn.tracking import runs as tracking
from pixelcnn.training.distributed import LostProcess, Team
from pixelcnn.training.loop import Step, Training, finite_mean, train

COLUMNS = ["step", "images_seen", "seconds", "learning_rate", "train_bits_per_dim", "validation_bits_per_dim"]


class Journal:
    """A training's course: the curve, the clock and the checkpoint, all continued when it resumes."""

    def __init__(
        self,
        training: Training,
        settings: config.TrainProcess,
        path: Path,
        name: str,
        team: Team,
        draw: Callable[[Model], Tensor],
    ):
        self.draw = draw
        self.training, self.settings, self.path, self.name, self.team = training, settings, path, name, team
        self.run_id: str | None = None
        self.rows: list[dict[str, float]] = []
        self.losses: list[torch.Tensor] = []
        self.seconds, self.started, self.saved = 0.0, time.monotonic(), time.monotonic()
        self.stop_signal, self.micro_batch = 0, training.micro_batch

    def restore(self) -> str | None:
        """Take up the checkpoint, if there is one; the MLflow run that it belongs to."""
        state = checkpoint.load_state(self.path)
        if state is None:
            return None
        self.training.load_state_dict(state["training"])
        self.rows, self.seconds = state["rows"], state["seconds"]
        self.say(f"resuming after step {self.training.step} ({self.path})")
        return state["run_id"]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {"training": self.training.state_dict(), "rows": self.rows, "seconds": self.clock()}
        checkpoint.save_state(self.path, state | {"run_id": self.run_id})
        self.saved = time.monotonic()

    def forget(self) -> None:
        """Remove the checkpoint, and what a process killed while it saved has left beside it."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.part")):
            path.unlink(missing_ok=True)

    def say(self, what: str) -> None:
        """A line, from one process."""
        if self.team.first:
            print(f"{self.name}: {what}", flush=True)

    def clock(self) -> float:
        """Seconds of training, over all its starts."""
        return self.seconds + time.monotonic() - self.started

    def keep(self, images: Images, conditions: Tensor | None, validation: Split) -> None:
        """Train to the end: log, save now and then, and save and exit upon SIGINT, SIGTERM or the loss of a process."""
        total, quiet = self.training.settings.steps, None if self.team.first else True
        bar = tqdm(total=total, initial=self.training.step, desc=self.name, unit="step", disable=quiet)
        self.started = time.monotonic()
        with bar, _signals(self):
            try:
                for step in train(self.training, images, conditions, validation, self.team):
                    self.note(step, bar)
            except LostProcess as error:
                raise LostProcess(f"{error}; {self.last_words()}") from error

    def note(self, step: Step, bar: "tqdm[Any]") -> None:
        """After a step: what is to be logged, saved or obeyed now."""
        self.losses.append(step.loss)
        bar.update()
        self.stop_signal = self.team.highest(self.stop_signal)
        if step.validation is not None or step.step % self.settings.log_every == 0 or self.stop_signal:
            self.log(step, bar)
            overdue = time.monotonic() - self.saved > self.settings.checkpoint_every
            if self.team.first and (self.stop_signal or overdue):
                self.save()
        if self.stop_signal:
            self.leave()
        if self.team.first and step.step % self.settings.pictures_every == 0 and is_incremental(self.training.average):
            self.show(step.step)

    def show(self, step: int) -> None:
        """A picture of what the averaged weights draw, to MLflow."""
        grid = self.draw(self.training.average)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{step}.png"
            save_grid(path, grid.flatten(0, 1), grid.shape[1], self.training.model.data.levels)
            tracking.log_picture("samples", path, step)

    def log(self, step: Step, bar: "tqdm[Any]") -> None:
        """A row of the curve, to MLflow, and to the bar or, where nobody watches a bar, as a line per validation."""
        loss = finite_mean(self.losses, step.step)
        self.losses.clear()
        seen, seconds = step.step * self.training.settings.batch_size, self.clock()
        row = dict(zip(COLUMNS, (step.step, seen, round(seconds, 2), step.learning_rate, loss), strict=False))
        metrics = {"train_bits_per_dim": loss, "learning_rate": step.learning_rate, "images_per_second": seen / seconds}
        if step.validation is not None:
            row[COLUMNS[-1]] = metrics[COLUMNS[-1]] = step.validation
        self.rows.append(row)
        if not self.team.first:
            return
        tracking.log(metrics, step.step)
        self.mention_micro_batch()
        best = self.training.best_bits_per_dim
        bar.set_postfix_str(f"train {loss:.3f}, validation {best:.3f} bits/dim", refresh=False)
        if bar.disable and step.validation is not None:
            self.say(
                f"step {step.step} of {self.training.settings.steps}: train {loss:.4f}, "
                f"validation {step.validation:.4f} bits/dim, {seen / seconds:.0f} images/s"
            )

    def mention_micro_batch(self) -> None:
        """Once per halving: what the device's memory has led to."""
        if self.training.micro_batch < self.micro_batch:
            self.micro_batch = self.training.micro_batch
            self.say(f"the device's memory does not suffice for more than {self.micro_batch} images at a time")

    def last_words(self) -> str:
        """Save if that can still be done, and say what the next start continues from.

        After the loss of a process a GPU may wait for it for ever, so what lies there is not read again.
        """
        if self.training.model.device.type != "cpu":
            return "the same command goes on from the last checkpoint"
        if self.losses:
            finite_mean(self.losses, self.training.step)
        self.save()
        return f"saved step {self.training.step}; the same command goes on from there"

    def leave(self) -> None:
        """End the process as the signal asks; the checkpoint is written."""
        name = signal.Signals(self.stop_signal).name
        self.say(f"{name}: saved step {self.training.step}; the same command goes on from there")
        sys.exit(128 + self.stop_signal)

    def summary(self, device: torch.device) -> dict[str, Any]:
        """The numbers of the finished training; `device` is what it ran on."""
        training, last = self.training, self.rows[-1]
        at_best = next(row for row in self.rows if row["step"] == training.best_step)
        return {
            "step": training.best_step,
            "steps": training.settings.steps,
            "validation_bits_per_dim": training.best_bits_per_dim,
            "train_bits_per_dim": at_best["train_bits_per_dim"],
            "num_parameters": num_parameters(training.model.network),
            **self.cost(int(last["images_seen"]), last["seconds"], device),
        }

    def cost(self, images: int, seconds: float, device: torch.device) -> dict[str, float]:
        """What the training took; the share of the devices' peak only where that is known."""
        flops = flops_per_image(self.training.average)
        best = peak(hardware(device), self.training.settings.precision)
        rate = images / seconds
        return {
            "flops_per_image": flops,
            "images_seen": images,
            "seconds": seconds,
            "images_per_second": rate,
            "flops_per_second": rate * flops,
        } | ({} if best is None else {"share_of_peak": rate * flops / (best * self.team.size)})

    def write(self, out: Path, report: Path, device: torch.device) -> dict[str, Path]:
        """The model, the summary and the curve, as DVC's outs; what MLflow gets of them, by artifact folder."""
        assert self.training.best_weights is not None
        checkpoint.save(out, self.training.model, self.training.best_weights)
        summary, curve = report.with_suffix(".json"), report.with_suffix(".csv")
        several = f"{self.team.size} x " if self.team.size > 1 else ""
        text = json.dumps(self.summary(device) | {"hardware": several + hardware(device)}, indent=2) + "\n"
        checkpoint.write_atomically(summary, text.encode())
        checkpoint.write_atomically(curve, _csv(self.rows).encode())
        return {"curve": curve, "model": out / checkpoint.CONFIG}


@contextmanager
def _signals(journal: Journal) -> Iterator[None]:
    """SIGINT and SIGTERM are noted, and obeyed after the step in work; a second one ends the process at once.

    Not so under torchrun, which repeats its signals, and ends by force after 30 seconds what does not end.
    """

    def note(number: int, _frame: FrameType | None) -> None:
        journal.stop_signal = number
        if journal.team.size == 1:
            signal.signal(number, before[number])

    before = {int(number): signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def flops_per_image(model: Model) -> float:
    """Floating point operations of one training step per image: three times a forward pass (2 per multiply-add)."""
    x = torch.zeros(1, *model.shape, dtype=torch.uint8, device=model.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.network(x, model.some_condition())
    return 3.0 * counter.get_total_flops()


def hardware(device: torch.device) -> str:
    """What the training ran on, for the cost column of the tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU cores ({platform.machine()})"


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
