"""The distributions that models predict for single sub-pixels of an image, side by side in one figure.

    python benchmarks/distributions.py models/cifar10-systems-gated cifar10-large --data data/prepared/cifar10

A softmax over 256 levels has to learn that 17 is next to 18, and that no level lies beyond 255; a mixture of logistics
is built so. Van den Oord et al. 2016 (arXiv:1601.06759, figure 6) found that a trained softmax learns both.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from torch import Tensor

import pixelcnn
from pixelcnn.data.dataset import read_split
from pixelcnn.model import Model


def main() -> None:
    args = _arguments()
    split = read_split(args.data, "test")
    image = split.images[args.image]  # (C, H, W)
    models = {source: pixelcnn.load(source).inner for source in args.models}
    figure, axes = plt.subplots(
        len(models), len(args.positions), figsize=(2.1 * len(args.positions), 1.8 * len(models)), squeeze=False,
        sharex=True, layout="constrained",
    )  # fmt: skip
    for row, (source, model) in zip(axes, models.items(), strict=True):
        row[0].set_ylabel(f"{Path(source).name}\nprobability")
        for axis, (i, j, c) in zip(row, args.positions, strict=True):
            pmf, value = pmf_at(model, image, i, j, c), int(image[c, i, j])
            axis.vlines(range(len(pmf)), 0, pmf, color="tab:gray", linewidth=1)  # bars narrower than a dot would fade
            axis.set_ylim(bottom=0)
            axis.plot([value], [0], "^", color="tab:red", clip_on=False)
            axis.set_title(f"({i}, {j}), channel {c}", fontsize=9)
            print(f"{source}, {i} {j} {c}: true level {value} has {pmf[value]:.4f}, the highest is {pmf.max():.4f}")
    for axis in axes[-1]:
        axis.set_xlabel("level (red: of the image)", fontsize=9)
    figure.savefig(args.out, dpi=150)


@torch.inference_mode()
def pmf_at(model: Model, image: Tensor, row: int, column: int, channel: int) -> Tensor:
    """p (L,) of every level of a sub-pixel, given those of the image (C, H, W) that precede it."""
    outputs = model.network.eval()(image[None])  # (1, K, G, H, W)
    group = channel // model.likelihood.group_channels
    first = group * model.likelihood.group_channels
    earlier = image[None, first:channel, row, column].long()
    at = outputs[:, :, group, row, column]
    return model.likelihood.log_pmf_of(channel - first, at, earlier)[0].exp()


def _position(text: str) -> tuple[int, int, int]:
    row, column, channel = map(int, text.split(","))
    return row, column, channel


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="unconditional models of one data set")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set")
    parser.add_argument("--image", type=int, default=1, help="which test image")
    parser.add_argument(
        "--positions", nargs="+", type=_position, metavar="ROW,COLUMN,CHANNEL",
        default=[(0, 0, 0), (4, 9, 0), (14, 15, 0), (22, 20, 2)],
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, default=Path("distributions.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
