"""The pictures of the report page: learning curves, histograms of bits/dim, images with the bits of their pixels.

Shapes: K images, C channels, H rows, W columns.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pixelcnn.reporting.reports import Extremes, si

PALETTE = ("#c2572b", "#2f7fb8", "#5a9a3c", "#9a62b5", "#c79a1b", "#3aa394")  # legible on paper and on black
INKS = {"light": "#3a3833", "dark": "#c9c5bb"}
COLOURS = "inferno"  # of bits: few are dark
WIDTH = 560  # pixels of a row of images, about
BINS = 60
Legend = Literal["upper right", "best"]  # its place


@dataclass(frozen=True)
class Bits:
    """Bits/dim (N,) of a run's test images; `comparable` with those of other runs, or given more than they are."""

    values: np.ndarray
    comparable: bool


def curves(logs: dict[str, pd.DataFrame]) -> dict[str, bytes]:
    """Learning curves by run as transparent PNGs, by colour scheme: light, dark."""

    def draw(axes: Axes) -> None:
        for number, (name, log) in enumerate(logs.items()):
            _draw_curve(axes, name, log, PALETTE[number % len(PALETTE)])
        _frame_curves(axes, pd.concat(logs.values()))

    return _in_schemes(draw, "upper right")  # curves fall


def histogram(bits: dict[str, Bits]) -> dict[str, bytes]:
    """How many test images have how many bits/dim, by run, as transparent PNGs by colour scheme."""
    edges = np.histogram_bin_edges(np.concatenate([each.values for each in bits.values()]), BINS)

    def draw(axes: Axes) -> None:
        for number, (name, each) in enumerate(bits.items()):
            counts, _ = np.histogram(each.values, edges)
            style, colour = "-" if each.comparable else "--", PALETTE[number % len(PALETTE)]
            axes.stairs(counts, edges, color=colour, linewidth=1.6, linestyle=style, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("bits/dim of an image")
        axes.set_ylabel("test images")

    return _in_schemes(draw, "best")


def likeliest_and_least(found: Extremes, levels: int) -> tuple[bytes, float]:
    """A PNG of two rows of images, the likeliest and the least likely, below each a map of its bits per pixel.

    Also the bits that the brightest colour stands for: all but the highest hundredth of the pixels are below. Without
    maps the images alone, and 0.
    """
    pixels = np.rint(found.pixels * (255 / (levels - 1))).astype(np.uint8)  # (K, C, H, W)
    images = np.broadcast_to(pixels[:, :3], (len(pixels), 3, *pixels.shape[2:])).transpose(0, 2, 3, 1)  # (K, H, W, 3)
    half, highest = math.ceil(len(images) / 2), 0.0
    rows = [images[:half], images[half:]]
    if found.bits is not None:
        highest = float(np.quantile(found.bits, 0.99)) or 1.0
        maps = (matplotlib.colormaps[COLOURS](found.bits / highest)[..., :3] * 255).astype(np.uint8)
        rows = [images[:half], maps[:half], images[half:], maps[half:]]
    return _grid(rows), highest


def _grid(rows: list[np.ndarray]) -> bytes:
    """Rows (K, H, W, 3) of images, one pixel apart, on a transparent ground; enlarged by a whole factor."""
    num, height, width = rows[0].shape[:3]
    picture = np.zeros((len(rows) * (height + 1) - 1, num * (width + 1) - 1, 4), np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + 1), j * (width + 1)
            picture[top : top + height, left : left + width, :3] = image
            picture[top : top + height, left : left + width, 3] = 255
    factor, png = max(1, round(WIDTH / picture.shape[1])), io.BytesIO()
    Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1)).save(png, format="PNG")
    return png.getvalue()


def _in_schemes(draw: Callable[[Axes], None], legend: Legend) -> dict[str, bytes]:
    return {scheme: _figure(draw, ink, legend) for scheme, ink in INKS.items()}


def _figure(draw: Callable[[Axes], None], ink: str, legend: Legend) -> bytes:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    _ink(axes, ink, legend)
    png = io.BytesIO()
    figure.savefig(png, dpi=200, transparent=True, metadata={"Software": None})
    return png.getvalue()


def _draw_curve(axes: Axes, name: str, log: pd.DataFrame, colour: str) -> None:
    axes.plot(log.images_seen, log.train_bits_per_dim, color=colour, linewidth=0.8, alpha=0.5, label=f"{name}, train")
    validated = log.dropna(subset=["validation_bits_per_dim"])
    axes.plot(
        validated.images_seen,
        validated.validation_bits_per_dim,
        color=colour,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
        label=f"{name}, validation",
    )


def _frame_curves(axes: Axes, log: pd.DataFrame) -> None:
    """Limits and labels. y leaves out the first 5% of the training, whose steep fall would flatten all that follows."""
    late = log[log.images_seen >= log.images_seen.max() / 20][["train_bits_per_dim", "validation_bits_per_dim"]]
    low, high = float(late.min().min()), float(late.max().max())
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen")
    axes.set_ylabel("bits/dim")
    axes.xaxis.set_major_formatter(lambda value, _: si(value))


def _ink(axes: Axes, ink: str, legend: Legend) -> None:
    """Draw axes, labels and legend in the colour `ink`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.grid(axis="y", color=ink, linewidth=0.4, alpha=0.3)
    axes.legend(frameon=False, loc=legend, labelcolor=ink)
