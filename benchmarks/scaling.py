"""Bits/dim against arithmetic: the curves of several runs in one picture, and their ends in a table.

python benchmarks/scaling.py reports/train/cifar10-*.json -o scaling.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot as plt
from tabulate import tabulate

from pixelcnn.reporting.reports import si

WINDOW = 8  # points of a curve that are averaged: a batch is a few images


def main() -> None:
    args = _arguments()
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    rows = []
    for path in args.summaries:
        summary, curve = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
        flop = summary["flops_per_image"] * curve.images_seen
        (line,) = axes.plot(flop, curve.train_bits_per_dim.rolling(WINDOW).mean(), alpha=0.5)
        validated = curve.validation_bits_per_dim.notna()
        label = f"{path.stem}, {si(summary['num_parameters'])}"
        axes.plot(flop[validated], curve.validation_bits_per_dim[validated], "o", color=line.get_color(), label=label)
        total = si(float(flop.iloc[-1]), "FLOP")
        size, images = si(summary["num_parameters"]), si(summary["images_seen"])
        rows.append((path.stem, size, summary["steps"], images, total, summary["validation_bits_per_dim"]))
    axes.set(xscale="log", xlabel="FLOP", ylabel="bits/dim", ylim=(args.lowest, args.highest))
    axes.legend(title="points: validation", frameon=False)
    figure.savefig(args.out, dpi=110)
    headers = ["run", "parameters", "steps", "images", "arithmetic", "validation, bits/dim"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summaries", type=Path, nargs="+", help="reports/train/RUN.json, with the curve beside it")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the picture")
    parser.add_argument("--lowest", type=float, default=3.0)
    parser.add_argument("--highest", type=float, default=5.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
