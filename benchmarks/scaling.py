"""Bits/dim against training FLOP: the curves of several runs in one figure, and their last points in a table.

python benchmarks/scaling.py reports/train/cifar10-*.json -o scaling.png
python benchmarks/scaling.py reports/train/cifar10-systems-*.json --rates 32 26 -o systems.png   # also against time
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
    num = 2 if args.rates else 1
    figure, panels = plt.subplots(1, num, figsize=(6.5 * num, 4.5), layout="constrained", sharey=True, squeeze=False)
    rows = []
    for path, rate in zip(args.reports, args.rates or [1.0] * len(args.reports), strict=True):
        report, curve = TrainReport.read(path, "run `dvc repro`"), pd.read_csv(path.with_suffix(".csv"))
        validated, label = curve.validation_bits_per_dim.notna(), f"{path.stem}, {si(report.num_parameters)}"
        for axes, x in zip(
            panels[0], (report.flops_per_image * curve.images_seen, curve.images_seen / rate / 60), strict=False
        ):
            (line,) = axes.plot(x, curve.train_bits_per_dim.rolling(WINDOW).mean(), alpha=0.5)
            points = x[validated], curve.validation_bits_per_dim[validated]
            axes.plot(*points, "o", color=line.get_color(), label=label)
        size, images, total = si(report.num_parameters), si(report.images_seen), si(report.total_flops, "FLOP")
        rows.append((path.stem, size, report.steps, images, total, report.validation_bits_per_dim))
    for axes, x in zip(panels[0], ("FLOP", "minutes"), strict=False):
        axes.set(xscale="log", xlabel=x, ylim=(args.lowest, args.highest))
    panels[0, 0].set_ylabel("bits/dim")
    panels[0, 0].legend(title="points: validation", frameon=False)
    figure.savefig(args.out, dpi=110)
    headers = ["run", "parameters", "steps", "images", "training", "validation, bits/dim"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+", help="reports/train/RUN.json, with RUN.csv in the same folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the figure")
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        help="a second panel over time, at these images/s of the runs; those of a curve include other load",
    )
    parser.add_argument("--lowest", type=float, default=3.0)
    parser.add_argument("--highest", type=float, default=5.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
