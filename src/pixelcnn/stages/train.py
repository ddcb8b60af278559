"""Train one run of params.yaml. Killed at any moment, the next start continues from the last checkpoint.

    python -m pixelcnn.stages.train RUN --data data/prepared/DATASET --out models/RUN --report reports/train/RUN

With train.processes, or under torchrun, several processes share every batch (docs/training.md).

DVC deletes a stage's outs before it runs, so what a killed training needs lies in checkpoints/, under a name that holds
a hash of the run's params and data: other params never resume it. When it is done, the finished weights stay there, for
a start before DVC has committed the outs; the next training of the run removes them.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

import pixelcnn
from pixelcnn import checkpoint, files, stages
from pixelcnn.data.dataset import EMBEDDER, DatasetInfo, read_info, read_split
from pixelcnn.device import has_bfloat16
from pixelcnn.generation.sample_grids import sample_grid
from pixelcnn.model import Model
from pixelcnn.params import Params, Run
from pixelcnn.schemas import Initial
from pixelcnn.tracking import runs
from pixelcnn.tracking.runs import RunLog
from pixelcnn.training import distributed, setup
from pixelcnn.training.distributed import World
from pixelcnn.training.fit import TRUNK, Fit, Logger
from pixelcnn.training.loop import steps_within
from pixelcnn.training.state import Training

CHECKPOINTS, MODELS = Path("checkpoints"), Path("models")
LOCK_POLL = 1.0  # seconds


def main() -> None:
    """Train, or with --measure only say how many steps a budget of time holds."""
    args = _arguments()
    params = stages.read_params()
    params.run(args.name)
    if params.train.processes > 1 and not distributed.started_by_torchrun():
        _become_torchrun(params.train.processes)
    device = distributed.device()
    with distributed.world(device) as world, nullcontext() if args.measure else _only_one(args.name, world):
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
    images, rest = setup.training_images(args.data, pixels, world)
    model = setup.fresh_model(run, info, device, rest)
    if run.train.precision == "bfloat16" and not has_bfloat16(device) and world.is_rank0:
        print("train.precision: this hardware does not support bfloat16; using float32")
    validation = read_split(args.data, "validation")
    initial = _initial(run, args.name, model, world)
    training, conditions = Training.begin(model, run.train), model.conditions(rest)
    if args.measure is not None:
        num = steps_within(60 * args.measure, training, images, conditions, validation, world)
        if world.is_rank0:
            here = f"{num} steps fit into {args.measure:g} minutes here"
            print(f"{args.name}: {here}; runs.{args.name}.train.steps sets their number")
    else:

        def draw(ema: Model) -> Tensor:
            return sample_grid(ema, validation, params.sample, args.name)

        path = CHECKPOINTS / f"{args.name}-{setup.training_key(run, info)}.pt"
        trunk = CHECKPOINTS / f"{args.name}-{setup.trunk_key(run, info)}{TRUNK}" if run.train.trunk_steps else None
        fit = Fit(training, params.train, path, args.name, world, draw, stages.committed, trunk, initial)
        fit.restore()
        with _tracked(args.name, run, info, fit) as log:
            fit.run(images, conditions, validation, Logger(log.log, log.log_picture) if log else None)
            if log:
                _finish(fit, args, device, log)
    world.once_per_machine(lambda: pixels.unlink(missing_ok=True))


def _initial(run: Run, name: str, model: Model, world: World) -> Initial | None:
    """Give the model the weights that `train.initial` names, if it names some, and say where they are from.

    Raises ValueError for a model that is not there, has another hash, or other weights than the network.
    """
    if run.train.initial is None:
        return None
    source, expected, key = run.train.initial.model, run.train.initial.weights_sha256, f"runs.{name}.train.initial"
    try:
        is_run = (MODELS / source / checkpoint.CONFIG).exists()
        folder = pixelcnn.folder_of(MODELS / source if is_run else source)
        found = checkpoint.read_config(folder).weights_sha256
        if found != expected:
            raise ValueError(f"weights_sha256 is {expected}, but {source} has weights of sha256 {found}; write that")
        new = setup.start_from(model, checkpoint.load(folder))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if world.is_rank0:
        rest = f"; it lacks the {len(new)} weights of this condition" if new else ""
        print(f"{name}: starting from the weights of {source} ({found[:12]}){rest}", flush=True)
    spent = checkpoint.read_trained(folder)
    images_seen, flops = (spent.images_seen, spent.flops) if spent else (None, None)
    return Initial(model=source, weights_sha256=found, images_seen=images_seen, flops=flops)


def _finish(fit: Fit, args: argparse.Namespace, device: torch.device, log: RunLog) -> None:
    """Write the model and what is reported of it. DVC has yet to commit that; until then the checkpoint stays."""
    fit.save_finished()
    ended = datetime.fromtimestamp(fit.finished.stat().st_mtime, UTC)  # also where its outs are written once more
    made = {"finished": f"{ended:%Y-%m-%dT%H:%M:%SZ}", "commit": runs.commit() or None}
    report = fit.write(args.out, args.report, device).model_copy(update=made)
    report.write(args.report.with_suffix(".json"))
    if (args.data / EMBEDDER).is_dir():  # so that the model's folder has what makes conditions of new images
        shutil.copytree(args.data / EMBEDDER, args.out / EMBEDDER, dirs_exist_ok=True)
    curve, sha256 = args.report.with_suffix(".csv"), checkpoint.read_config(args.out).weights_sha256
    numbers = report.model_dump(exclude_none=True, exclude={"hardware", "exact", "initial", *made})
    log.finish(numbers, sha256, {"curve": curve, "model": args.out / checkpoint.CONFIG})
    if not stages.by_dvc():
        fit.forget()


@contextmanager
def _only_one(name: str, world: World) -> Iterator[None]:
    """Hold the lock of this run; wait where another process trains it, as when `dvc repro` alone was killed."""
    said = False
    with ExitStack() as stack:
        while holder := world.all_gather(_lock(name, stack) if world.is_rank0 else "")[0]:
            if world.is_rank0 and not said:
                print(
                    f"{name}: process {holder} is training this run; waiting for its end (`kill {holder}` asks it to "
                    "save a checkpoint and end)",
                    flush=True,
                )
            said = True
            time.sleep(LOCK_POLL)
        yield


def _lock(name: str, stack: ExitStack) -> str:
    """Lock the run, or else say which process has; "" for this one."""
    try:
        stack.enter_context(files.lock(CHECKPOINTS / f"{name}.lock"))
    except BlockingIOError as error:
        return str(error) or "?"
    return ""


@contextmanager
def _tracked(name: str, run: Run, info: DatasetInfo, fit: Fit) -> Iterator[RunLog | None]:
    """The MLflow run of a training, which rank 0 alone logs to; its id is part of every checkpoint."""
    if not fit.world.is_rank0:
        fit.logger_state = fit.world.all_gather("")[0]
        yield None
        return
    searchable, saved_as = setup.what_decides_the_weights(run), fit.path.stem
    with runs.training_run(
        name, run.description, searchable, info, fit.logger_state, saved_as, stages.experiment()
    ) as log:
        fit.logger_state = fit.world.all_gather(log.training)[0]
        yield log


def _arguments() -> argparse.Namespace:
    parser = stages.parser(
        __doc__,
        "an entry of `runs`",
        data="the prepared data set",
        out="folder for the model",
        report="path of the report and of the curve, without ending",
    )
    parser.add_argument("--measure", type=float, metavar="MINUTES", help="only measure how many steps fit here")
    return stages.parse(parser)


if __name__ == "__main__":
    stages.run(main)
