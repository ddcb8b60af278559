"""Train one run of params.yaml. Killed at any moment, the next start continues from the last checkpoint.

    python -m pixelcnn.stages.train RUN --data data/prepared/DATASET --out models/RUN --report reports/train/RUN

With train.processes, or under torchrun, several processes share every batch (docs/training.md).

DVC deletes a stage's outs before it runs, so what a killed training needs lies in checkpoints/, under a name that holds
a hash of the run's params and data: other params never resume it.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelcnn import checkpoint, config
from pixelcnn.data import loader as stream
from pixelcnn.data.dataset import Card, Split, read_card, read_split
from pixelcnn.device import arrange, has_bfloat16, prepare
from pixelcnn.generation.sample_grids import draw_pictures
from pixelcnn.model import Data, Model, build
from pixelcnn.stages import run
from pixelcnn.tracking import runs as tracking
from pixelcnn.training import distributed
from pixelcnn.training.distributed import Team
from pixelcnn.training.fit import Journal
from pixelcnn.training.loop import Training, steps_within

CHECKPOINTS = Path("checkpoints")


def main() -> None:
    args = _arguments()
    params = config.load(Path("params.yaml"))
    if args.run not in params.runs:
        raise ValueError(f"params.yaml: runs.{args.run}: missing; its runs are {', '.join(params.runs)}")
    if params.train.processes > 1 and not distributed.started_by_torchrun():
        _become_torchrun(params.train.processes)
    device = distributed.device()
    with distributed.team(device) as team:
        _train(args, params, device, team)


def _become_torchrun(num: int) -> None:
    """Put torchrun, which starts `num` processes of this very command, in the place of this process."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num)]
    os.execv(sys.executable, [sys.executable, *launch, "-m", "pixelcnn.stages.train", *sys.argv[1:]])


def _train(args: argparse.Namespace, params: config.Params, device: torch.device, team: Team) -> None:
    section, card = params.runs[args.run], read_card(args.data)
    if section.train.batch_size < team.size:
        raise ValueError(
            f"runs.{args.run}.train.batch_size: {section.train.batch_size} is less than the {team.size} processes"
        )
    pixels = CHECKPOINTS / f"{args.run}-{card.splits['train'].fingerprint[:12]}.pixels"
    images, rest = _images(args.data, pixels, team)
    model = _model(section, card, device, rest)
    if section.train.precision == "bfloat16" and not has_bfloat16(device) and team.first:
        print("train.precision: this hardware computes no bfloat16; going on in float32")

    path = CHECKPOINTS / f"{args.run}-{_key(section, card)}.pt"
    validation = read_split(args.data, "validation")

    def draw(average: Model) -> Tensor:
        return draw_pictures(average, validation, params.evaluate, args.run)

    training, conditions = Training.begin(model, section.train), model.conditions(rest)
    if args.measure is not None:
        num = steps_within(60 * args.measure, training, images, conditions, validation, team)
        if team.first:
            print(f"{args.run}: {args.measure:g} minutes here hold {num} steps; runs.{args.run}.train.steps says which")
    else:
        journal = Journal(training, params.train, path, args.run, team, draw)
        run_id = journal.restore()
        _check_steps(journal, team)
        with _tracked(args.run, section, card, run_id, team) as journal.run_id:
            journal.keep(images, conditions, validation)
            if team.first:
                files = journal.write(args.out, args.report, device)
                tracking.finish(journal.summary(device), checkpoint.read_config(args.out)["weights_sha256"], files)
                journal.forget()
    team.once_per_machine(lambda: pixels.unlink(missing_ok=True))


def _images(data: Path, pixels: Path, team: Team) -> tuple[stream.Images, Split]:
    """The train split; its images on disk, in the file `pixels`, where they are too many for the memory."""
    limit = stream.OF_MEMORY * stream.memory()

    def prepare_file() -> None:
        if stream.is_large(data, "train", limit):
            stream.flatten(data, "train", pixels)

    team.once_per_machine(prepare_file)
    return stream.read(data, "train", pixels, limit)


def _model(section: config.Run, card: Card, device: torch.device, data: Split) -> Model:
    """The model before its first step, the same in every process."""
    torch.manual_seed(section.train.seed)
    model = build(section.model, Data.of(card))
    model.standardise(data)
    prepare(device)
    arrange(model.network, math.prod(model.shape[1:]), device)
    return model


def _check_steps(journal: Journal, team: Team) -> None:
    """All processes continue the same checkpoint."""
    steps = team.gather(journal.training.step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"{journal.path}: the processes found checkpoints of different steps ({', '.join(map(str, steps))}); "
            "the folder is to be the same on all machines"
        )


@contextmanager
def _tracked(name: str, section: config.Run, card: Card, run_id: str | None, team: Team) -> Iterator[str]:
    """The MLflow run of a training, whose first process alone tells MLflow of it; all know its id."""
    if not team.first:
        yield team.gather("")[0]
        return
    with tracking.training_run(name, section.description, _searchable(section), card, run_id) as known:
        yield team.gather(known)[0]


def _searchable(section: config.Run) -> dict[str, Any]:
    return section.model_dump(include={"dataset", "model", "train"})


def _key(section: config.Run, card: Card) -> str:
    """A hash of all that the weights follow from: the run's params, the pixels and their embeddings."""
    content = _searchable(section) | {"fingerprints": [card.splits[s].fingerprint for s in ("train", "validation")]}
    content["embeddings"] = card.embeddings.sha256 if card.embeddings else ""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.train", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="an entry of params.yaml's runs")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--report", type=Path, required=True, help="the summary's and the curve's path, without ending")
    parser.add_argument(
        "--measure", type=float, metavar="MINUTES", help="only say how many steps these would hold here"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
