"""`pixelcnn train`: train a run of params.yaml as the stage `train` does, without DVC around it."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from pixelcnn import params
from pixelcnn.config import read_yaml
from pixelcnn.data.dataset import CARD


def run(args: argparse.Namespace) -> None:
    """Become the command that dvc.yaml has for this stage, so that its paths stand there alone."""
    known = params.load(Path("params.yaml"))
    name, dataset = args.run, known.run(args.run).dataset
    command = read_yaml(Path("dvc.yaml"))["stages"]["train"]["do"]["cmd"]
    _, *words = (word.replace("DATASET", dataset).replace("NAME", name) for word in shlex.split(command))
    data = Path(words[words.index("--data") + 1])
    if not (data / CARD).exists():
        stage = "embed" if dataset in known.embeddings else "preprocess"
        raise ValueError(f"{data}: no such data set; `dvc repro {stage}@{dataset}` makes it")
    if args.device:
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible(args.device)
    if args.measure is not None:
        words += ["--measure", str(args.measure)]
    else:
        print(f"note: afterwards `dvc commit -f train@{name}` records what this makes in DVC", file=sys.stderr)
    os.execv(sys.executable, [sys.executable, *words, name])


def _visible(device: str) -> str:
    """The GPUs that CUDA is to show to a process that computes on this device."""
    if device == "cpu":
        return ""
    from pixelcnn.cli import operands  # torch knows which GPUs there are

    operands.check_device(device)
    return device.partition(":")[2] or "0"
