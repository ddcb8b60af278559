"""Draws the receptive fields of all architectures: `python -m tests.receptive_fields docs/receptive-fields.png`.

By gradients, which the tests of each architecture compare with sets in plain Python.
"""

import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from tests.conftest import network_of
from tests.probes import noise

SIDE, ROW, COLUMN = 16, 8, 7  # of the image, and where the output is
STACK = {"num_layers": 4, "hidden_channels": 9, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 9}
NETWORKS: dict[str, dict[str, Any]] = {
    "PixelCNN, 5x5 and 4 of 3x3": {"name": "pixelcnn"} | STACK,
    "Gated PixelCNN, 5x5 and 4 of 3x3": {"name": "gated_pixelcnn", "dropout": 0.0} | STACK | {"num_layers": 5},
    "Row LSTM, 2 layers": {
        "name": "row_lstm", "num_layers": 2, "hidden_channels": 9, "kernel_size": 3, "first_kernel_size": 5,
        "head_channels": 9,
    },
    "Diagonal BiLSTM, 1 layer": {
        "name": "diagonal_bilstm", "num_layers": 1, "hidden_channels": 9, "first_kernel_size": 5, "head_channels": 9,
    },
    "PixelCNN++, 3 resolutions": {
        "name": "pixelcnnpp", "hidden_channels": 6, "num_resnets": 1, "num_resolutions": 3, "dropout": 0.0,
    },
}  # fmt: skip
LATER, SEEN, BLIND, OUTPUT = range(4)
COLOURS = {LATER: "#e8e8ea", SEEN: "#4c78a8", BLIND: "#f2a541", OUTPUT: "#222222"}


def seen_from(network: torch.nn.Module) -> torch.Tensor:
    """(H, W) booleans: the pixels that the first channel's output depends on, at one of a few images."""
    seen = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for image in noise((3, SIDE, SIDE), 6):
        x = image.double()[None].requires_grad_()
        network(x)[0, ..., 0, ROW, COLUMN].square().sum().backward()
        assert x.grad is not None
        seen |= (x.grad[0] != 0).any(0)
    return seen


def main() -> None:
    """Draw a panel for each network."""
    mpl.rcParams["font.size"] = 8.5
    figure, panels = plt.subplots(1, len(NETWORKS), figsize=(1.8 * len(NETWORKS), 2.6), layout="constrained")
    for panel, (title, section) in zip(panels, NETWORKS.items(), strict=True):
        torch.manual_seed(0)
        network = network_of({"condition": "none"} | section, (3, SIDE, SIDE)).double().eval()
        kinds = torch.full((SIDE, SIDE), LATER).flatten()
        kinds[: ROW * SIDE + COLUMN] = BLIND
        kinds[seen_from(network).flatten()] = SEEN
        kinds[ROW * SIDE + COLUMN] = OUTPUT
        panel.imshow(kinds.view(SIDE, SIDE), cmap=ListedColormap(list(COLOURS.values())), vmin=0, vmax=3)
        panel.set_title(title.replace(", ", "\n"))
        panel.set_xticks([x - 0.5 for x in range(1, SIDE)], [])
        panel.set_yticks([y - 0.5 for y in range(1, SIDE)], [])
        panel.grid(color="white", linewidth=0.6)
        panel.tick_params(length=0)
    names = {OUTPUT: "output", SEEN: "receptive field", BLIND: "earlier, not seen", LATER: "later"}
    handles = [Patch(color=COLOURS[kind], label=name) for kind, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(sys.argv[1], dpi=160)


if __name__ == "__main__":
    main()
