"""`pixelcnn results`: the NLL tables, what is missing, and where to look further."""

import argparse
from pathlib import Path

from pixelcnn import params
from pixelcnn.reporting.tables import summary

NEXT_STEPS = """
Next:
  make ui                              # compare the runs, see the registered models: http://127.0.0.1:5000
  dvc exp run -S runs.digits-gated.train.steps=400  # how to compare it: docs/experiments.md
  pixelcnn suite cifar10-small         # then `dvc repro`: the same on CIFAR-10 (half an hour on two cores)
(in this shell first: source .venv/bin/activate)"""


def run(args: argparse.Namespace) -> None:
    """Print the tables of reports/."""
    print(summary(Path("reports"), params.load(Path("params.yaml"))))
    if args.next_steps:
        print(NEXT_STEPS)
