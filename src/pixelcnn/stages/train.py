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

from pixelcnn import checkpoint, stages
from pixelcnn.data import loader
from pixelcnn.data.dataset import DatasetInfo, Split, read_info, read_split
from pixelcnn.device import arrange, has_bfloat16, prepare
from pixelcnn.generation.sample_grids import sample_grid
from pixelcnn.model import Data, Model, build
from pixelcnn.params import Params, Run
from pixelcnn.tracking import runs
from pixelcnn.training import distributed
from pixelcnn.training.distributed import World
from pixelcnn.training.fit import Fit, Logger
from pixelcnn.training.loop import steps_within
from pixelcnn.training.state import Training

CHECKPOINTS = Path("checkpoints")


def main() -> None:
    """Train, or with --measure only say how many steps a budget of time holds."""
    args = _arguments()
    params = stages.read_params()
    params.run(args.name)
    if params.train.processes > 1 and not distributed.started_by_torchrun():
        _become_torchrun(params.train.processes)
    device = distributed.device()
    with distributed.world(device) as world:
        _train(args, params, device, world)


def _become_torchrun(num: int) -> None:
    """Replace this process by torchrun, which starts `num` processes of this very command."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num)]
    os.execv(sys.executable, [sys.executable, *launch, "-m", "pixelcnn.stages.train", *sys.argv[1:]])


def _train(args: argparse.Namespace, params: Params, device: torch.device, world: World) -> None:
    run, info = params.run(args.name), read_info(args.data)
    if run.train.batch_size < world.size:
        raise ValueError(
            f"runs.{args.name}.train.batch_size: {run.train.batch_size} is less than the {world.size} processes"
        )
    pixels = CHECKPOINTS / f"{args.name}-{info.splits['train'].fingerprint[:12]}.pixels"
    images, rest = _images(args.data, pixels, world)
    model = _model(run, info, device, rest)
    if run.train.precision == "bfloat16" and not has_bfloat16(device) and world.is_rank0:
        print("train.precision: this hardware computes no bfloat16; going on in float32")
    validation = read_split(args.data, "validation")
    training, conditions = Training.begin(model, run.train), model.conditions(rest)
    if args.measure is not None:
        num = steps_within(60 * args.measure, training, images, conditions, validation, world)
        if world.is_rank0:
            print(
                f"{args.name}: {args.measure:g} minutes here hold {num} steps; runs.{args.name}.train.steps says which"
            )
    else:

        def draw(ema: Model) -> Tensor:
            return sample_grid(ema, validation, params.evaluate, args.name)

        path = CHECKPOINTS / f"{args.name}-{_key(run, info)}.pt"
        fit = Fit(training, params.train, path, args.name, world, draw)
        fit.restore()
        _mention_others(fit)
        _check_steps(fit)
        with _tracked(args.name, run, info, fit) as logger:
            fit.run(images, conditions, validation, logger)
            if world.is_rank0:
                _finish(fit, args, device)
    world.once_per_machine(lambda: pixels.unlink(missing_ok=True))


def _finish(fit: Fit, args: argparse.Namespace, device: torch.device) -> None:
    """Write the model and what is reported of it; then the checkpoint is not needed any more."""
    report = fit.write(args.out, args.report, device)
    curve, sha256 = args.report.with_suffix(".csv"), checkpoint.read_config(args.out).weights_sha256
    numbers = report.model_dump(exclude_none=True, exclude={"hardware", "exact"})
    runs.finish(numbers, sha256, {"curve": curve, "model": args.out / checkpoint.CONFIG})
    fit.forget()


def _images(data: Path, pixels: Path, world: World) -> tuple[loader.Images, Split]:
    """The train split; its images on disk, in the file `pixels`, where they are too many for the memory."""
    limit = loader.OF_MEMORY * loader.memory()

    def prepare_file() -> None:
        if loader.is_large(data, "train", limit):
            loader.flatten(data, "train", pixels)

    world.once_per_machine(prepare_file)
    return loader.read(data, "train", pixels, limit)


def _model(run: Run, info: DatasetInfo, device: torch.device, data: Split) -> Model:
    """The model before its first step, the same in every process."""
    torch.manual_seed(run.train.seed)
    model = build(run.model, run.likelihood, Data.of(info))
    model.standardise(data)
    prepare(device)
    arrange(model.network, model.network.memory_format, math.prod(model.shape[1:]), device)
    return model


def _mention_others(fit: Fit) -> None:
    """Say which checkpoints of the same run there are that this training does not continue."""
    for other in CHECKPOINTS.glob(f"{fit.name}-{'[0-9a-f]' * 12}.pt"):
        if other != fit.path:
            fit.say(f"{other} is of other params or data, so it is not continued")


def _check_steps(fit: Fit) -> None:
    """All ranks continue the same checkpoint."""
    steps = fit.world.all_gather(fit.training.step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"{fit.path}: the processes found checkpoints of different steps ({', '.join(map(str, steps))}); "
            "the folder is to be the same on all machines"
        )


@contextmanager
def _tracked(name: str, run: Run, info: DatasetInfo, fit: Fit) -> Iterator[Logger]:
    """The MLflow run of a training, which rank 0 alone logs to; its id is part of every checkpoint."""
    logger = Logger(runs.log, runs.log_picture)
    if not fit.world.is_rank0:
        fit.logger_state = fit.world.all_gather("")[0]
        yield logger
        return
    with runs.training_run(name, run.description, _searchable(run), info, fit.logger_state) as run_id:
        fit.logger_state = fit.world.all_gather(run_id)[0]
        yield logger


def _searchable(run: Run) -> dict[str, Any]:
    return run.model_dump(include={"dataset", "model", "likelihood", "train"})


def _key(run: Run, info: DatasetInfo) -> str:
    """A hash of all that the weights follow from: the run's params, the pixels and their embeddings."""
    content = _searchable(run) | {"fingerprints": [info.splits[s].fingerprint for s in ("train", "validation")]}
    content["embeddings"] = info.embeddings.sha256 if info.embeddings else ""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _arguments() -> argparse.Namespace:
    parser = stages.parser(
        __doc__,
        "an entry of `runs`",
        data="the prepared data set",
        out="folder for the model",
        report="path of the report and of the curve, without ending",
    )
    parser.add_argument("--measure", type=float, metavar="MINUTES", help="only say how many steps these hold here")
    return stages.parse(parser)


if __name__ == "__main__":
    stages.run(main)
