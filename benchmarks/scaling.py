"""Bits/dim against training FLOP: the curves of several runs in one figure, and their last points in a table.

python benchmarks/scaling.py reports/train/cifar10-*.json -o scaling.png
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot as plt
from tabulate import tabulate

from pixelcnn.reporting.reports import si
from pixelcnn.schemas import TrainReport

WINDOW = 8  # points of a rolling mean: the loss of a small batch is noisy


def main() -> None:
    args = _arguments()
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    rows = []
    for path in args.reports:
        report, curve = TrainReport.read(path, "run `dvc repro`"), pd.read_csv(path.with_suffix(".csv"))
        flop = report.flops_per_image * curve.images_seen
        (line,) = axes.plot(flop, curve.train_bits_per_dim.rolling(WINDOW).mean(), alpha=0.5)
        validated = curve.validation_bits_per_dim.notna()
        label = f"{path.stem}, {si(report.num_parameters)}"
        axes.plot(flop[validated], curve.validation_bits_per_dim[validated], "o", color=line.get_color(), label=label)
        size, images, total = si(report.num_parameters), si(report.images_seen), si(report.total_flops, "FLOP")
        rows.append((path.stem, size, report.steps, images, total, report.validation_bits_per_dim))
    axes.set(xscale="log", xlabel="FLOP", ylabel="bits/dim", ylim=(args.lowest, args.highest))
    axes.legend(title="points: validation", frameon=False)
    figure.savefig(args.out, dpi=110)
    headers = ["run", "parameters", "steps", "images", "training", "validation, bits/dim"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+", help="reports/train/RUN.json, with RUN.csv in the same folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the figure")
    parser.add_argument("--lowest", type=float, default=3.0)
    parser.add_argument("--highest", type=float, default=5.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
