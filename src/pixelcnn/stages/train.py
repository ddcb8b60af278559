"""Train one run of params.yaml. Killed at any moment, the next start continues from the last checkpoint.

    python -m pixelcnn.stages.train RUN --data data/prepared/DATASET --out models/RUN --report reports/train/RUN

DVC deletes a stage's outs before it runs, so what a killed training needs lies in checkpoints/, under a name that holds
a hash of the run's params and data: other params never resume it.
"""

import argparse
import csv
import hashlib
import io
import json
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from pixelcnn import checkpoint, config, tracking
from pixelcnn.data.datasets import Card, Split, read_card, read_split
from pixelcnn.model import Data, Model, build
from pixelcnn.nn.masked_conv import num_parameters
from pixelcnn.stages import run
from pixelcnn.training import Step, Training, finite_mean, has_bfloat16, train

CHECKPOINTS = Path("checkpoints")
COLUMNS = ["step", "images_seen", "seconds", "learning_rate", "train_bits_per_dim", "validation_bits_per_dim"]


def main() -> None:
    args = _arguments()
    params = config.load(Path("params.yaml"))
    if args.run not in params.runs:
        raise ValueError(f"params.yaml: runs.{args.run}: missing; its runs are {', '.join(params.runs)}")
    section = params.runs[args.run]
    card = read_card(args.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(section.train.seed)
    splits = read_split(args.data, "train"), read_split(args.data, "validation")
    model = build(section.model, Data.of(card))
    model.standardise(splits[0])
    model.network.to(device)
    if section.train.precision == "bfloat16" and not has_bfloat16(device):
        print("train.precision: this hardware computes no bfloat16; going on in float32")

    path = CHECKPOINTS / f"{args.run}-{_key(section, card)}.pt"
    journal = Journal(Training.begin(model, section.train), params.train, path, args.run)
    with tracking.training_run(
        args.run, section.description, _searchable(section), card, journal.restore()
    ) as journal.run_id:
        journal.keep(*splits)
        files = journal.write(args.out, args.report, hardware(device))
        tracking.finish(journal.summary(), checkpoint.read_config(args.out)["weights_sha256"], files)
    path.unlink(missing_ok=True)


class Journal:
    """A training's course: the curve, the clock and the checkpoint, all continued when it resumes."""

    def __init__(self, training: Training, settings: config.TrainProcess, path: Path, name: str):
        self.training, self.settings, self.path, self.name = training, settings, path, name
        self.run_id: str | None = None
        self.rows: list[dict[str, float]] = []
        self.losses: list[torch.Tensor] = []
        self.seconds, self.started, self.saved = 0.0, time.monotonic(), time.monotonic()
        self.stop_signal = 0

    def restore(self) -> str | None:
        """Take up the checkpoint, if there is one; the MLflow run that it belongs to."""
        state = checkpoint.load_state(self.path)
        if state is None:
            return None
        self.training.load_state_dict(state["training"])
        self.rows, self.seconds = state["rows"], state["seconds"]
        print(f"{self.name}: resuming after step {self.training.step} ({self.path})", flush=True)
        return state["run_id"]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {"training": self.training.state_dict(), "rows": self.rows, "seconds": self.clock()}
        checkpoint.save_state(self.path, state | {"run_id": self.run_id})
        self.saved = time.monotonic()

    def clock(self) -> float:
        """Seconds of training, over all its starts."""
        return self.seconds + time.monotonic() - self.started

    def keep(self, data: Split, validation: Split) -> None:
        """Train to the end: log, save now and then, and save and exit upon SIGINT or SIGTERM."""
        settings = self.training.settings
        bar = tqdm(total=settings.steps, initial=self.training.step, desc=self.name, unit="step", disable=None)
        self.started = time.monotonic()
        with bar, _signals(self):
            for step in train(self.training, data, validation):
                self.losses.append(step.loss)
                bar.update()
                if step.validation is not None or step.step % self.settings.log_every == 0 or self.stop_signal:
                    self.log(step, bar)
                    if self.stop_signal or time.monotonic() - self.saved > self.settings.checkpoint_every:
                        self.save()
                if self.stop_signal:
                    self.leave()

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
        tracking.log(metrics, step.step)
        best = self.training.best_bits_per_dim
        bar.set_postfix_str(f"train {loss:.3f}, validation {best:.3f} bits/dim", refresh=False)
        if bar.disable and step.validation is not None:
            print(
                f"{self.name}: step {step.step} of {self.training.settings.steps}: train {loss:.4f}, "
                f"validation {step.validation:.4f} bits/dim, {seen / seconds:.0f} images/s",
                flush=True,
            )

    def leave(self) -> None:
        """End the process as the signal asks; the checkpoint is written."""
        name = signal.Signals(self.stop_signal).name
        print(f"{self.name}: {name}: saved step {self.training.step}; the same command goes on from there", flush=True)
        sys.exit(128 + self.stop_signal)

    def summary(self) -> dict[str, float]:
        """The numbers of the finished training."""
        training, last = self.training, self.rows[-1]
        at_best = next(row for row in self.rows if row["step"] == training.best_step)
        return {
            "step": training.best_step,
            "steps": training.settings.steps,
            "validation_bits_per_dim": training.best_bits_per_dim,
            "train_bits_per_dim": at_best["train_bits_per_dim"],
            "num_parameters": num_parameters(training.model.network),
            "flops_per_image": flops_per_image(training.average),
            "images_seen": int(last["images_seen"]),
            "seconds": last["seconds"],
        }

    def write(self, out: Path, report: Path, machine: str) -> dict[str, Path]:
        """The model, the summary and the curve, as DVC's outs; what MLflow gets of them, by artifact folder."""
        assert self.training.best_weights is not None
        checkpoint.save(out, self.training.model, self.training.best_weights)
        summary, curve = report.with_suffix(".json"), report.with_suffix(".csv")
        text = json.dumps(self.summary() | {"hardware": machine}, indent=2) + "\n"
        checkpoint.write_atomically(summary, text.encode())
        checkpoint.write_atomically(curve, _csv(self.rows).encode())
        return {"curve": curve, "model": out / checkpoint.CONFIG}


@contextmanager
def _signals(journal: Journal) -> Iterator[None]:
    """SIGINT and SIGTERM are noted, and obeyed after the step in work; a second one ends the process at once."""

    def note(number: int, _frame: FrameType | None) -> None:
        journal.stop_signal = number
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


def _searchable(section: config.Run) -> dict[str, Any]:
    return section.model_dump(include={"dataset", "model", "train"})


def _key(section: config.Run, card: Card) -> str:
    """A hash of all that the weights follow from: the run's params, the pixels and their embeddings."""
    content = _searchable(section) | {"fingerprints": [card.splits[s].fingerprint for s in ("train", "validation")]}
    content["embeddings"] = card.embeddings.sha256 if card.embeddings else ""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.train", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="an entry of params.yaml's runs")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--report", type=Path, required=True, help="the summary's and the curve's path, without ending")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
