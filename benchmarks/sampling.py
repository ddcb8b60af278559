"""The cost of a batch of samples in forward passes: `python benchmarks/sampling.py`. README.md has a table.

An untrained model with the sizes below, or a trained one (`--model cifar10`, any model folder), float32, one thread,
seconds of CPU time. A sample, a walk over given images (the same without draws) and a forward pass are measured in
turns, so that other load on the machine affects all three alike; medians. The time of the naive sampler is calculated:
a forward pass for every sub-pixel, or for every pixel of a network of whole pixels.

`--fixed-point` samples by fixed-point iteration, as if the network had no stepper, and counts its forward passes.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import median

import torch
from torch import Tensor

from pixelcnn import checkpoint, pretrained
from pixelcnn.generation.sampling import begin, sample, walk
from pixelcnn.model import Data, Model, build
from pixelcnn.params import ModelSections

SIZES: dict[str, dict[str, object]] = {
    "gated_pixelcnn": {
        "num_layers": 15, "hidden_channels": 120, "kernel_size": 3, "first_kernel_size": 7, "head_channels": 240,
        "dropout": 0.0,
    },
    "pixelcnnpp": {"hidden_channels": 64, "num_resnets": 1, "num_resolutions": 3, "dropout": 0.0},
    "row_lstm": {
        "num_layers": 7, "hidden_channels": 60, "kernel_size": 3, "first_kernel_size": 7, "head_channels": 240
    },
    "diagonal_bilstm": {"num_layers": 7, "hidden_channels": 60, "first_kernel_size": 7, "head_channels": 240},
}  # fmt: skip
MIXTURE = {"name": "logistic_mixture", "num_mixtures": 5}  # of pixelcnnpp
HEADINGS = ["side", "batch", "forward, s", "sample, s", "sample / forward", "draws", "naive / sample", "MiB"]
OF_ITERATION = ["side", "batch", "passes", "of naive", "forward, s", "sample, s", "sample / forward", "naive / sample"]


def model_of(name: str, side: int) -> Model:
    """A fresh model of RGB images with 256 levels, or a trained one, whose side is its own."""
    if name not in SIZES:
        return checkpoint.load(pretrained.find(name))
    section: dict[str, object] = {"name": name, "condition": "none", **SIZES[name]}
    likelihood = MIXTURE if name == "pixelcnnpp" else {"name": "categorical"}
    sections = ModelSections.model_validate({"model": section, "likelihood": likelihood})
    model = build(sections.model, sections.likelihood, Data("noise", (3, side, side), 256, (), {}))
    model.network.eval()
    return model


def follow(model: Model, x: Tensor) -> None:
    """Sampling without the draws: evaluate the outputs of every sub-pixel of given images."""
    for _ in walk(begin(model, len(x)), lambda i, j, c, _: x[:, c, i, j]):
        pass


def seconds(run: Callable[[], object]) -> float:
    """Seconds of CPU time of this process."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def naive_passes(model: Model) -> int:
    """Forward passes of the definition."""
    return model.dims // (model.shape[0] if model.network.whole_pixels else 1)


@torch.inference_mode()
def measure(name: str, side: int, batch: int, repeats: int) -> list[str]:
    """A line of the table, in a process of its own; memory is the peak above that of the model."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = model_of(name, side)
    x = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    before = peak()
    runs: list[Callable[[], object]] = [
        lambda: sample(model, batch, torch.Generator().manual_seed(0)),
        lambda: follow(model, x),
        lambda: model.network(x),
    ]
    runs[0]()
    memory = peak() - before
    turns = [[seconds(run) for run in runs] for _ in range(repeats)]
    drawn, followed, forward = (median(times) for times in zip(*turns, strict=True))
    naive = forward * naive_passes(model)
    return [
        f"{side}", f"{batch}", f"{forward:.3f}", f"{drawn:.2f}", f"{drawn / forward:.2f}",
        f"{(drawn - followed) / forward:.2f}", f"{naive / drawn:,.0f}", f"{memory:.0f}",
    ]  # fmt: skip


@torch.inference_mode()
def iterate(name: str, side: int, batch: int, repeats: int) -> list[str]:
    """A line of the table of fixed-point iteration. Each repetition draws images of another seed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, counted = model_of(name, side), list[int]()
    model.network.incremental = False
    x, passes = torch.randint(0, 256, (batch, *model.shape), dtype=torch.uint8), list[int]()
    model.network(x)
    hook, turns = model.network.register_forward_hook(lambda *_: counted.append(1)), []
    for seed in range(repeats):
        counted.clear()
        drawn = seconds(lambda: sample(model, batch, torch.Generator().manual_seed(seed)))  # noqa: B023
        passes.append(len(counted))
        turns.append((drawn, seconds(lambda: model.network(x))))
    hook.remove()
    drawn, forward = (median(times) for times in zip(*turns, strict=True))
    naive = naive_passes(model)
    return [
        f"{model.shape[1]}", f"{batch}", f"{median(passes):.0f}", f"{naive:,}", f"{forward:.3f}", f"{drawn:.1f}",
        f"{drawn / forward:.0f}", f"{naive * forward / drawn:.1f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gated_pixelcnn", help=f"{', '.join(SIZES)}, or a model folder")
    parser.add_argument("--fixed-point", action="store_true", help="sample by fixed-point iteration")
    parser.add_argument("--sides", type=int, nargs="+", default=[32], help="of the images, pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    run, headings = (iterate, OF_ITERATION) if given.fixed_point else (measure, HEADINGS)
    print("| " + " | ".join(headings) + " |\n|" + " --- |" * len(headings))
    spawn = multiprocessing.get_context("spawn")
    for side, batch in product(given.sides, given.batches):
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:  # a process each, for its peak memory
            print(
                "| " + " | ".join(pool.submit(run, given.model, side, batch, given.repeats).result()) + " |", flush=True
            )


if __name__ == "__main__":
    main()
