"""Throughput of a training step by what is optimised, compared with a textbook implementation of the same networks.

    python benchmarks/train_throughput.py layers --threads 2
    python benchmarks/train_throughput.py architectures --threads 2
    python benchmarks/train_throughput.py overhead --threads 1

`layers`: the Gated PixelCNN on 32x32x3 images; a step is forward, backward and Adam. The textbook implementation has
full k x k kernels that are multiplied by their masks at each step, in float32, uncompiled. All variants start from the
same weights and take turns in one process; their median times and the losses of their first steps are compared.
`architectures`: the same for the other networks, without a textbook implementation.
`overhead`: what the whole step of pixelcnn.training.loop (order, flips, clipping, EMA) adds to the bare one; on a CPU,
since it does not synchronise with a device.

With one thread, times are that thread's CPU time, which other load on the machine does not change; else wall clock.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.data.dataset import Split
from pixelcnn.device import arrange, has_bfloat16, peak, prepare
from pixelcnn.model import Data, Model, build
from pixelcnn.nn.gated_pixelcnn.layer import GatedLayer, gated_activation
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from pixelcnn.nn.interfaces import Network
from pixelcnn.nn.masked_conv import RowConv
from pixelcnn.params import ModelSections, Train
from pixelcnn.training import loop
from pixelcnn.training.distributed import World
from pixelcnn.training.fit import flops_per_image
from pixelcnn.training.state import Training
from pixelcnn.training.update import Update

DATA = Data("noise", (3, 32, 32), 256, (), {"train": "0", "validation": "1", "test": "2"})
GATED = {"name": "gated_pixelcnn", "condition": "none", "first_kernel_size": 7, "head_channels": 120, "dropout": 0.0}
SIZES = {
    "15 layers x 120, 3x3": GATED | {"num_layers": 15, "hidden_channels": 120, "kernel_size": 3},
    "12 layers x 120, 5x5": GATED | {"num_layers": 12, "hidden_channels": 120, "kernel_size": 5},
}
OTHERS = {
    "PixelCNN, 15 blocks x 120, 3x3": {
        "name": "pixelcnn", "condition": "none", "num_layers": 15, "hidden_channels": 120, "kernel_size": 3,
        "first_kernel_size": 7, "head_channels": 120,
    },
    "PixelCNN++, 96, 3 x 2 resnets": {
        "name": "pixelcnnpp", "condition": "none", "hidden_channels": 96, "num_resnets": 2, "num_resolutions": 3,
        "dropout": 0.0,
    },
    "Diagonal BiLSTM, 7 layers x 60": {
        "name": "diagonal_bilstm", "condition": "none", "num_layers": 7, "hidden_channels": 60, "first_kernel_size": 7,
        "head_channels": 120,
    },
}  # fmt: skip
CATEGORICAL, MIXTURE = {"name": "categorical"}, {"name": "logistic_mixture", "num_mixtures": 10}
SETTINGS = {
    "seed": 0, "steps": 10**6, "learning_rate": 1e-4, "warmup_steps": 0, "optimizer": "adamw", "betas": [0.9, 0.99],
    "weight_decay": 0.0, "gradient_clip": 1.0, "ema_decay": 0.999, "flips": True, "precision": "float32",
    "validate_every": 10**6, "schedule": {"name": "cosine"}, "initial": None,
}  # fmt: skip


class MaskedConv(nn.Conv2d):
    """A convolution with its full kernel, most of it multiplied by zeros; the rest are the weights of `ours`."""

    mask: Tensor

    def __init__(self, ours: nn.Conv2d, size: tuple[int, int]):
        padding = (size[0] // 2, size[1] // 2)
        super().__init__(ours.in_channels, ours.out_channels, size, padding=padding)
        rows, columns = ours.kernel_size
        mask = ours.mask if isinstance(ours, RowConv) else None
        self.register_buffer("mask", torch.zeros_like(self.weight))
        with torch.no_grad():
            self.mask[:, :, :rows, :columns] = 1 if mask is None else mask
            self.weight[:, :, :rows, :columns] = ours.weight
            assert self.bias is not None
            assert ours.bias is not None
            self.bias.copy_(ours.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class TextbookLayer(nn.Module):
    """The two stacks with full kernels."""

    def __init__(self, ours: GatedLayer, size: int):
        super().__init__()
        self.first = ours.first
        self.vertical, self.horizontal = MaskedConv(ours.vertical, (size, size)), MaskedConv(ours.horizontal, (1, size))
        self.link, self.out = copy.deepcopy(ours.link), MaskedConv(ours.out, (1, 1))

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        features = self.vertical(v)
        new = self.out(gated_activation(self.horizontal(h) + self.link(features)))
        return gated_activation(features), new if self.first else new + h


class Textbook(Network):
    """The Gated PixelCNN as the papers describe it, with the weights of ours."""

    def __init__(self, ours: GatedPixelCNN, section: dict[str, Any]):
        super().__init__()
        self.data_channels, self.likelihood, self.condition = ours.data_channels, ours.likelihood, ours.condition
        sizes = [section["first_kernel_size"]] + [section["kernel_size"]] * (section["num_layers"] - 1)
        layers = zip(ours.layers, sizes, strict=True)
        self.layers = nn.ModuleList(TextbookLayer(layer, size) for layer, size in layers)  # type: ignore[arg-type]
        self.scale, self.head = ours.scale, copy.deepcopy(ours.head)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        assert cond is None
        v = h = self.scale(x)
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h)


@dataclass
class Variant:
    """A variant: its model, what is called for a forward pass, and how long its steps took."""

    name: str
    model: Model
    call: Callable[..., Tensor]
    bfloat16: bool
    optimizer: torch.optim.Optimizer = field(init=False)
    seconds: list[float] = field(default_factory=list)
    loss: float = 0.0

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.network.parameters(), lr=1e-4, fused=True)

    def step(self, x: Tensor) -> float:
        """Forward, backward and Adam; the loss in nats."""
        self.model.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16) if self.bfloat16 else nullcontext():
            output = self.call(x)
        loss = self.model.likelihood.nll(output, x).mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def measure(variants: list[Variant], x: Tensor, repeats: int, clock: Callable[[], float]) -> None:
    """A first step each, which compiles and is not timed; then `repeats` steps each, in turns."""
    for variant in variants:
        variant.loss = variant.step(x)
    for _ in range(repeats):
        for variant in variants:
            start = clock()
            variant.step(x)
            variant.seconds.append(clock() - start)


def layers(args: argparse.Namespace, device: torch.device, clock: Callable[[], float]) -> None:
    """The textbook Gated PixelCNN and the variants of ours."""
    for title, section in SIZES.items():
        plain = _fresh(section, device)
        textbook = Textbook(plain.network, section).to(device)  # type: ignore[arg-type]
        variants = [Variant("textbook", replace(plain, network=textbook), textbook, bfloat16=False)]
        _compare(title, [*variants, *variants_of(plain, args.compile, device)], args, clock)


def architectures(args: argparse.Namespace, device: torch.device, clock: Callable[[], float]) -> None:
    """The variants of the other networks."""
    for title, section in OTHERS.items():
        plain = _fresh(section, device)
        _compare(title, list(variants_of(plain, args.compile, device)), args, clock)


def variants_of(plain: Model, compiled: bool, device: torch.device) -> Iterator[Variant]:
    """The variants of ours: memory formats, precisions, compiled or not."""
    names = ["", "channels-last", "bfloat16", "bfloat16, channels-last"]
    names = names if has_bfloat16(device) else names[:2]
    for name in [*names, *(f"{name}, compiled" for name in names if compiled)]:
        network = copy.deepcopy(plain.network)
        if "channels-last" in name:
            network.to(memory_format=torch.channels_last)
        call = torch.compile(network, dynamic=False) if "compiled" in name else network
        title = ", ".join(filter(None, ["ours", name.strip(", ")]))
        yield Variant(title, replace(plain, network=network), call, "bf" in name)


def _fresh(section: dict[str, Any], device: torch.device) -> Model:
    likelihood = MIXTURE if section["name"] == "pixelcnnpp" else CATEGORICAL
    sections = ModelSections.model_validate({"model": section, "likelihood": likelihood})
    torch.manual_seed(0)
    model = build(sections.model, sections.likelihood, DATA)
    model.network.to(device)
    return model


def _compare(title: str, variants: list[Variant], args: argparse.Namespace, clock: Callable[[], float]) -> None:
    model = variants[-1].model
    x = torch.randint(0, 256, (args.batch, *DATA.shape), dtype=torch.uint8, device=model.device)
    measure(variants, x, args.repeats, clock)
    table(title, variants, args.batch, flops_per_image(model))


def table(title: str, variants: list[Variant], batch: int, flop: float) -> None:
    """A row per variant; FLOP are those of the cropped kernels, without multiplications by masked zeros."""
    first = statistics.median(variants[0].seconds)
    print(f"\n{title}: {flop / 1e9:.1f} GFLOP per image\n")
    print("| variant | ms/image | images/s | TFLOP/s | times the first | first loss against the first's |")
    print("|---|---|---|---|---|---|")
    for c in variants:
        median = statistics.median(c.seconds)
        rate = batch / median
        print(
            f"| {c.name} | {1e3 / rate:.1f} | {rate:.2f} | {rate * flop / 1e12:.3f} | {first / median:.2f} | "
            f"{c.loss / variants[0].loss - 1:+.1e} |"
        )


def overhead(args: argparse.Namespace, device: torch.device, clock: Callable[[], float]) -> None:
    """What a step takes beside forward, backward and Adam, timed within each step, so that other load affects both."""
    model = _fresh(GATED | {"num_layers": 6, "hidden_channels": 60, "kernel_size": 3}, device)
    arrange(model.network, model.network.memory_format, DATA.shape[1] * DATA.shape[2], device)
    run = Training.begin(model, Train.model_validate(SETTINGS | {"batch_size": args.batch}))
    images = torch.randint(0, 256, (1000, *DATA.shape), dtype=torch.uint8)
    bare: list[float] = []

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def timed_work(*given: Any) -> Any:
            start = clock()
            result = work(*given)
            bare.append(clock() - start)
            return result

        return timed_work

    for optimizer in run.optimizers:
        optimizer.step = timed(optimizer.step)  # type: ignore[method-assign]
    added = []
    with patch.object(Update, "gradients", timed(Update.gradients)):
        steps = loop.train(run, images, None, Split(images[:1], None), World(0, 1))
        for _ in range(args.repeats + 2):
            bare.clear()
            start = clock()
            next(steps).loss.item()
            added.append((clock() - start) / sum(bare) - 1)
    quarters = statistics.quantiles(added[2:], n=4)
    print(f"bare step {1e3 * sum(bare):.0f} ms; the loop adds {statistics.median(added[2:]):.2%}", end=" ")
    print(f"(quartiles of {args.repeats} steps: {quarters[0]:.2%}, {quarters[2]:.2%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["layers", "architectures", "overhead"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also compiled variants, which take minutes to start")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepare(device)
    clock = time.thread_time if device.type == "cpu" and args.threads == 1 else time.perf_counter
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, threads: {args.threads}"
    best = peak(name, "bfloat16")
    print(
        f"{name}, batch {args.batch}, medians of {args.repeats}" + (f", peak {best / 1e12:.0f} TFLOP/s" if best else "")
    )
    {"layers": layers, "architectures": architectures, "overhead": overhead}[args.what](args, device, clock)


if __name__ == "__main__":
    main()
