"""A figure of two sets of NLLs: of new images, and of the test images that they are compared with."""

import io

import numpy as np
from matplotlib.figure import Figure

BINS = 40
COLOURS = ("#8c8a84", "#c2572b")


def draw(of_test: np.ndarray, new: np.ndarray, title: str) -> bytes:
    """A PNG of the densities of bits/dim of test images (N,) and of new ones (M,), over the range of both."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.concatenate([of_test, new]), BINS)
    for values, colour, name in zip((of_test, new), COLOURS, ("test images", "new images"), strict=True):
        axes.hist(values, list(bins), density=True, color=colour, alpha=0.6, label=f"{len(values):,} {name}")
    axes.set(xlabel="bits/dim", ylabel="density", title=title)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, dpi=110, metadata={"Software": None})
    return png.getvalue()
