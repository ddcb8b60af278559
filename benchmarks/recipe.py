"""What changes of the PixelCNN++ recipe gain: short trainings of equal arithmetic, compared on the same images.

    python benchmarks/recipe.py recipe.jsonl --data data/prepared/cifar10 --variants base coordinates attention
    python benchmarks/recipe.py recipe.jsonl                                # the table of what the file has
    python benchmarks/recipe.py recipe.jsonl --time --variants coordinates attention    # a step, against one of `base`

A trial is a variant and a seed; trials that the file has are not repeated. Compared are the means over the seeds of the
bits/dim of the same validation images; the error is that of the mean difference over images, seeds averaged. Minutes
are those of the trial, beside whatever else ran; `--time` takes the steps of both networks in turn.

Variants of the network: two constant planes with each pixel's row and column beside the image; causal self-attention at
the lowest resolution (keys and values of every position up to the query's own, which already excludes the pixel).
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.architectures.pixelcnnpp.config import Config
from pixelcnn.architectures.pixelcnnpp.layers import NormedConv, Streams, concat_elu
from pixelcnn.architectures.pixelcnnpp.network import PixelCNNPlusPlus
from pixelcnn.architectures.pixelcnnpp.unet import FirstLayer, UNet
from pixelcnn.data.dataset import Split, read_info, read_split
from pixelcnn.evaluation.nll import nll
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.model import Data, Model, build
from pixelcnn.nn.interfaces import Spec
from pixelcnn.nn.masked_conv import num_parameters
from pixelcnn.params import ModelSections, Train
from pixelcnn.training.distributed import World
from pixelcnn.training.fit import flops_per_image
from pixelcnn.training.loop import train
from pixelcnn.training.state import Training

FLOP, VALIDATION, BATCH = 6e13, 1000, 8
WARM_UP = 3  # steps that are not timed

MODEL = {
    "name": "pixelcnnpp", "condition": "none", "hidden_channels": 48, "num_resnets": 1, "num_resolutions": 3,
    "dropout": 0.0,
}  # fmt: skip
LIKELIHOOD = {"name": "logistic_mixture", "num_mixtures": 10}
TRAIN = {
    "batch_size": BATCH, "learning_rate": 0.008, "schedule": {"name": "cosine"}, "warmup_steps": 100,
    "optimizer": "muon", "betas": [0.95, 0.99], "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.99,
    "flips": True, "precision": "bfloat16", "initial": None,
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What differs from MODEL and TRAIN; `images`: how many training images there are, the first ones, None for all."""

    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    coordinates: bool = False
    attention: bool = False
    images: int | None = None


def _batch(size: int, rate: float) -> Variant:
    return Variant(train={"batch_size": size, "learning_rate": rate})


def _epochs(num: int, dropout: float) -> Variant:
    """A network small enough for its compute, on as few images as make `num` epochs of it."""
    return Variant(model={"dropout": dropout}, images=round(FLOP / FLOP_PER_IMAGE / num))


FLOP_PER_IMAGE = 3.68e9  # of MODEL, which the tables state
VARIANTS = {
    "base": Variant(),
    "coordinates": Variant(coordinates=True),
    "attention": Variant(attention=True),
    "batch 16, rate 0.008": _batch(16, 0.008),
    "batch 16, rate 0.011": _batch(16, 0.0113),
    "batch 32, rate 0.008": _batch(32, 0.008),
    "batch 32, rate 0.016": _batch(32, 0.016),
    "batch 64, rate 0.016": _batch(64, 0.016),
    "batch 128, rate 0.016": _batch(128, 0.016),
    "10 epochs": _epochs(10, 0.0),
    "10 epochs, dropout 0.1": _epochs(10, 0.1),
    "40 epochs": _epochs(40, 0.0),
    "40 epochs, dropout 0.1": _epochs(40, 0.1),
}


# The variants of the network


class WithCoordinates(PixelCNNPlusPlus):
    """Two planes more in the input: each pixel's row and column, from -1 to 1."""

    def __init__(self, config: Config, spec: Spec):
        super().__init__(config, spec)
        self.first = FirstLayer(self.data_channels + 3, config.hidden_channels)

    def inputs(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C+3, H, W)."""
        planes = coordinates(x.shape[2], x.shape[3]).to(x.device).expand(len(x), 2, -1, -1)
        return torch.cat([super().inputs(x), planes], dim=1)


def coordinates(height: int, width: int) -> Tensor:
    """Row and column of each position, (2, H, W) in -1 ... 1."""
    return torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"))


class CausalAttention(nn.Module):
    """Self-attention over the positions up to each one in raster-scan order, added to the features (B, F, H, W).

    Features of stream `ul` at a position depend on what precedes its pixel, so its own are among the keys.
    """

    def __init__(self, hidden: int, heads: int = 4, width: int = 8):
        super().__init__()
        self.heads, self.width = heads, width
        self.queries_keys = NormedConv(2 * hidden + 2, 2 * heads * width, (1, 1))
        self.values = NormedConv(2 * hidden, hidden, (1, 1))
        self.out = NormedConv(hidden, hidden, (1, 1), gain=0.1)

    def forward(self, features: Tensor) -> Tensor:
        batch, hidden, height, columns = features.shape
        both = concat_elu(features)
        planes = coordinates(height, columns).to(both).expand(batch, 2, -1, -1)
        q, k = self.queries_keys(torch.cat([both, planes], dim=1)).chunk(2, dim=1)
        q, k = (each.reshape(batch, self.heads, self.width, -1).mT for each in (q, k))  # (B, heads, HW, width)
        v = self.values(both).reshape(batch, self.heads, hidden // self.heads, -1).mT
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).mT
        return features + self.out(mixed.reshape(batch, hidden, height, columns))


class Attentive(nn.Module):
    """A block of the U-Net, then attention on its stream `ul`."""

    def __init__(self, block: nn.Module, hidden: int):
        super().__init__()
        self.block, self.attention = block, CausalAttention(hidden)

    def forward(self, streams: Streams, skip: Streams | None = None, *, cond: Tensor | None) -> Streams:
        u, ul = self.block(streams, skip, cond=cond)
        return u, self.attention(ul)


def network_of(variant: Variant, model: Model) -> PixelCNNPlusPlus:
    """The network of a variant, of the model that MODEL with its changes describes."""
    config, network = model.config, model.network
    assert isinstance(config, Config)
    assert isinstance(network, PixelCNNPlusPlus)
    if variant.coordinates:
        network = WithCoordinates(config, Spec(model.shape, model.data.levels, network.condition, network.likelihood))
    if variant.attention:
        lowest: UNet = network.trunk
        while lowest.coarser is not None:
            lowest = lowest.coarser.inner
        lowest.down[-1] = Attentive(lowest.down[-1], config.hidden_channels)
        lowest.up[-1] = Attentive(lowest.up[-1], config.hidden_channels)
    return network


def model_of(variant: Variant, seed: int, data: Data) -> Model:
    """The model of a variant before its first step. Seeds torch's global generator."""
    torch.manual_seed(seed)
    sections = ModelSections.model_validate({"model": MODEL | variant.model, "likelihood": LIKELIHOOD})
    model = build(sections.model, sections.likelihood, data)
    model = replace(model, network=network_of(variant, model))
    model.network.to(memory_format=model.network.memory_format)
    return model


# Trials


def trial(name: str, seed: int, data: Path) -> dict[str, Any]:
    """One training and the bits/dim of each validation image."""
    variant = VARIANTS[name]
    model = model_of(variant, seed, Data.of(read_info(data)))
    flops = flops_per_image(model)
    train_split, validation = read_split(data, "train"), read_split(data, "validation")
    images = train_split.images[: variant.images]
    batch = int(variant.train.get("batch_size", BATCH))
    steps = round(FLOP / flops / batch)
    warmup = {"warmup_steps": min(100, steps // 10)}
    settings = Train.model_validate(
        TRAIN | warmup | variant.train | {"seed": seed, "steps": steps, "validate_every": steps}
    )
    held_out = Split(validation.images[:VALIDATION], None)
    training, began, losses = Training.begin(model, settings), time.monotonic(), []
    for step in train(training, images, None, held_out, World(0, 1)):
        losses.append(step.loss)
        if step.step % 100 == 0:
            print(
                f"{name}/{seed}: step {step.step} of {steps}: {float(torch.stack(losses[-100:]).mean()):.3f}",
                flush=True,
            )
    seconds = time.monotonic() - began
    bits = bits_per_dim(nll(training.ema, held_out, 50), model.dims)
    return {
        "variant": name, "seed": seed, "parameters": num_parameters(model.network), "flops_per_image": flops,
        "steps": steps, "images": steps * batch, "epochs": steps * batch / len(images), "seconds": seconds,
        "validation": float(bits.mean()), "train": float(torch.stack(losses[-100:]).mean()),
        "bits": [round(b, 6) for b in bits.tolist()],
    }  # fmt: skip


def time_steps(names: Sequence[str], rounds: int = 15) -> str:
    """The median time of a training step of each variant divided by that of `base`, in turn on random images."""
    images = torch.randint(0, 256, (256, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    runs, times = {}, {name: list[float]() for name in ("base", *names)}
    for name in times:
        model = model_of(VARIANTS[name], 0, Data("noise", (3, 32, 32), 256, (), {}))
        settings = Train.model_validate(
            TRAIN | VARIANTS[name].train | {"seed": 0, "steps": 10**6, "validate_every": 10**6}
        )
        runs[name] = train(Training.begin(model, settings), images, None, Split(images[:1], None), World(0, 1))
    for _ in range(rounds + WARM_UP):
        for name, steps in runs.items():
            began = time.perf_counter()
            next(steps)
            times[name].append(time.perf_counter() - began)
    ratios = {name: [a / b for a, b in zip(each, times["base"], strict=True)] for name, each in times.items()}
    rows = [
        (name, f"{1e3 * median(times[name][WARM_UP:]):.0f} ms", f"{median(each[WARM_UP:]):.3f}")
        for name, each in ratios.items()
    ]
    return tabulate(rows, ["variant", "step", "to base"], tablefmt="pipe", disable_numparse=True)


def table(trials: list[dict[str, Any]]) -> str:
    """A row per variant: means over its seeds, and the difference to `base` with the standard error over images."""
    by_name = {name: [each for each in trials if each["variant"] == name] for name in VARIANTS}
    base = {each["seed"]: each for each in by_name["base"]}
    rows = []
    for name, found in by_name.items():
        if found:
            pairs = [
                torch.tensor(each["bits"]) - torch.tensor(base[each["seed"]]["bits"])
                for each in found
                if each["seed"] in base
            ]
            difference = torch.stack(pairs).mean(0) if pairs else torch.tensor([math.nan])
            error = float(difference.std() / math.sqrt(len(difference)))
            first, mean = (
                found[0],
                {key: sum(each[key] for each in found) / len(found) for key in ("validation", "train", "seconds")},
            )
            rows.append((
                name, len(found), first["parameters"], first["steps"], f"{first['epochs']:.2g}", mean["train"],
                mean["validation"], float(difference.mean()), error, mean["seconds"] / 60,
            ))  # fmt: skip
    headers = ["variant", "seeds", "parameters", "steps", "epochs", "train", "validation", "to base", "+-", "minutes"]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=("", "", ",", ",", "", ".3f", ".4f", "+.4f", ".4f", ".1f"))


def main() -> None:
    args = _arguments()
    trials = [json.loads(line) for line in args.trials.read_text().splitlines()] if args.trials.exists() else []
    done = {(each["variant"], each["seed"]) for each in trials}
    if args.time:
        print(time_steps([name for name in args.variants if name != "base"]))
        return
    wanted = [(name, seed) for seed in args.seeds for name in args.variants] if args.data else []
    for name, seed in wanted:
        if (name, seed) not in done:
            trials.append(trial(name, seed, args.data))
            with args.trials.open("a") as file:
                file.write(json.dumps(trials[-1]) + "\n")
    print(table(trials))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path, help="JSON lines, a trial each; added to")
    parser.add_argument("--data", type=Path, help="the prepared CIFAR-10, to run what is missing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED")
    parser.add_argument("--time", action="store_true", help="measure the time of a step, and train nothing")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    return parser.parse_args()


if __name__ == "__main__":
    main()
