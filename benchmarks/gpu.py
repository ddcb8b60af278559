"""Throughput of training steps and of sampling on a GPU: `python benchmarks/gpu.py`. Needs no data.

    python benchmarks/gpu.py                         # PixelCNN++ at batch 32 and 128, then the bundled model's samples
    python benchmarks/gpu.py --gated 128             # also a Gated PixelCNN of 20 layers of 192 features
    python benchmarks/gpu.py --small --limit 60      # a trial run, also on a CPU

Each line of the table is written to gpu.json as soon as it is measured, so that an interrupted run loses none. No line
begins after --limit seconds. With a cold compiler cache the first training line spends one or two minutes in
torch.compile; samples come before the second, since they need no compilation.

    steps/s, ms          of training steps whose losses are not read, the median of --repeats rounds
    busy                 the share of that time in which the GPU computes (time of all kernels, by torch.profiler)
    TFLOP/s, of peak     2 per multiply-add, three forward passes to a step; the peak is the data sheet's
    launches, syncs      calls per step that launch kernels or graphs, and calls that synchronise with the device
    kernels              per step; gpu.json lists those that take longest

On a CPU, busy, launches and syncs are not measured.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

import pixelcnn
from pixelcnn import files
from pixelcnn.data.dataset import Split
from pixelcnn.device import arrange, peak, prepare
from pixelcnn.generation.sampling import sample
from pixelcnn.model import Data, Model, build
from pixelcnn.params import ModelSections, Train
from pixelcnn.training.distributed import World
from pixelcnn.training.fit import flops_per_image
from pixelcnn.training.loop import Step, train
from pixelcnn.training.state import Training

DATA = Data("noise", (3, 32, 32), 256, (), {"train": "0", "validation": "1", "test": "2"})
PLUS = {"name": "pixelcnnpp", "condition": "none", "hidden_channels": 128, "num_resnets": 2, "num_resolutions": 3}
GATED = {"name": "gated_pixelcnn", "condition": "none", "num_layers": 20, "hidden_channels": 192, "kernel_size": 3}
MODELS = {
    "pixelcnn++ 128": PLUS | {"dropout": 0.1},
    "gated 20x192": GATED | {"first_kernel_size": 7, "head_channels": 192, "dropout": 0.1},
    "gated 15x120": GATED
    | {"num_layers": 15, "hidden_channels": 120, "first_kernel_size": 7, "head_channels": 240, "dropout": 0.0},
}
LIKELIHOODS = {
    "pixelcnn++ 128": {"name": "logistic_mixture", "num_mixtures": 10}, "gated 20x192": {"name": "categorical"},
    "gated 15x120": {"name": "categorical"},
}  # fmt: skip
SMALL = {"hidden_channels": 12, "num_resnets": 1, "num_layers": 2, "head_channels": 12}
SETTINGS = {
    "seed": 0, "steps": 10**6, "learning_rate": 1e-3, "warmup_steps": 100, "betas": [0.95, 0.99],
    "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.999, "flips": True, "precision": "bfloat16",
    "optimizer": "muon", "validate_every": 10**6, "schedule": {"name": "cosine"}, "initial": None,
}  # fmt: skip
LAUNCHES = ("LaunchKernel", "GraphLaunch")  # substrings of the names of CUDA's calls
NUM_KERNELS = 40  # in the list of those that take longest: name, ms per step, calls per step
NUM_IMAGES = 4096  # of noise, to train on
NUM_SAMPLES = 1024  # of a call of `sample` at least, in four batches at least, so that recording is a small part
Record = dict[str, Any]


def main() -> None:
    begun = time.monotonic()
    args = _arguments()
    device = torch.device(args.device)
    prepare(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about = {"device": name, "torch": torch.__version__, "small": args.small}
    records: list[Record] = []
    for title, measure in _lines(args, device):
        elapsed = time.monotonic() - begun
        if elapsed > args.limit:
            print(f"{title}: not begun, {elapsed:.0f} of {args.limit:.0f} s are over")
            continue
        record: Record = {"line": title}
        try:
            record |= measure()
        except Exception as error:  # a failure is a result too, and the next line may not fail
            record["error"] = f"{type(error).__name__}: {error}"[:500]
        record["at_s"] = round(time.monotonic() - begun, 1)
        records.append(record)
        files.write_json(args.out, about | {"records": records})
        print("  ".join(f"{key} {value}" for key, value in record.items() if key != "longest_kernels"), flush=True)


def _lines(args: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Callable[[], Record]]]:
    """The lines of the table, the most important first."""
    small, big = args.batches[0], args.batches[1:]
    yield from _training("pixelcnn++ 128", [small], args, device)
    for batch in args.samples:
        yield f"samples, cifar10, batches of {batch}", partial(sampling, bundled, batch, args.small, device)
    for batch in args.gated_samples:
        gated = partial(fresh, "gated 15x120", args.small)
        yield f"samples, gated 15x120, batches of {batch}", partial(sampling, gated, batch, args.small, device)
    yield from _training("pixelcnn++ 128", big, args, device)
    yield from _training("gated 20x192", args.gated, args, device)


def _training(
    name: str, batches: list[int], args: argparse.Namespace, device: torch.device
) -> Iterator[tuple[str, Callable[[], Record]]]:
    for batch in batches:
        yield f"training, {name}, batch {batch}", partial(training, name, batch, args, device)


def training(name: str, batch: int, args: argparse.Namespace, device: torch.device) -> Record:
    """A line of training: steps of the project's own loop, with order, flips, clipping and EMA."""
    sizes = MODELS[name] | ({key: value for key, value in SMALL.items() if key in MODELS[name]} if args.small else {})
    sections = ModelSections.model_validate({"model": sizes, "likelihood": LIKELIHOODS[name]})
    torch.manual_seed(0)
    model = build(sections.model, sections.likelihood, DATA)
    arrange(model.network, model.network.memory_format, 32 * 32, device)
    settings = Train.model_validate(SETTINGS | {"batch_size": batch})
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (NUM_IMAGES, *DATA.shape), dtype=torch.uint8, generator=generator)
    state = Training.begin(model, settings)
    steps = train(state, images, None, Split(images[:1], None), World(0, 1))
    begun = time.monotonic()
    float(next(steps).loss)
    compiled = time.monotonic() - begun
    _run(steps, args.warm_up, device)
    seconds = statistics.median(_run(steps, args.steps, device) / args.steps for _ in range(args.repeats))
    flops = flops_per_image(state.ema) * batch
    best = peak(torch.cuda.get_device_name(device), settings.precision) if device.type == "cuda" else None
    line: Record = {
        "steps_per_s": round(1 / seconds, 2),
        "ms": round(1000 * seconds, 2),
        "images_per_s": round(batch / seconds),
        "tflop_per_s": round(flops / seconds / 1e12, 3),
        "share_of_peak": None if best is None else round(flops / seconds / best, 4),
        "first_step_s": round(compiled, 1),
    }
    return line | (_profiled(steps, seconds) if device.type == "cuda" else {})


def _profiled(steps: Iterator[Step], seconds: float, num: int = 5) -> Record:
    """What torch.profiler and CUDA's sync debug mode count in a step that takes so many seconds without them."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(num):
            next(steps)
        torch.cuda.synchronize()
    events = found.events() or []
    kernels: dict[str, list[float]] = {}
    for event in events:
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:  # such spans hold kernels
            kernels.setdefault(event.name, []).append(event.self_device_time_total)
    computing = sum(map(sum, kernels.values())) / num / 1e6
    longest = sorted(kernels.items(), key=lambda item: -sum(item[1]))[:NUM_KERNELS]
    launches = sum(any(part in event.name for part in LAUNCHES) for event in events) / num
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for _ in range(num):
            next(steps)
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    return {
        "gpu_ms": round(1000 * computing, 2),
        "busy": round(computing / seconds, 3),
        "launches": round(launches),
        "kernels": round(sum(map(len, kernels.values())) / num),
        "longest_kernels": [[name[:90], round(sum(us) / num / 1000, 3), len(us) / num] for name, us in longest],
        "syncs": len(waits) / num,
        "sync_places": sorted({f"{Path(w.filename).name}:{w.lineno}" for w in waits}),
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def sampling(make: Callable[[], Model], batch: int, small: bool, device: torch.device) -> Record:
    """A line of sampling, float32: several batches in one call, the second of two; each call records its rows anew."""
    model = make()
    model.network.to(device).eval()
    num, times = 2 if small else max(NUM_SAMPLES, 4 * batch), list[float]()
    for seed in range(2):
        begun = time.monotonic()
        sample(model, num, torch.Generator().manual_seed(seed), batch_size=batch).sum().item()
        times.append(time.monotonic() - begun)
    first, second = (round(num / seconds, 2) for seconds in times)
    line: Record = {"images_per_s": second, "first_call_images_per_s": first, "s": round(times[1], 2)}
    if device.type == "cuda":
        line["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        torch.cuda.reset_peak_memory_stats()
    return line


def bundled() -> Model:
    """The bundled model."""
    return pixelcnn.load("cifar10").inner


def fresh(name: str, small: bool) -> Model:
    """An untrained model of MODELS, the same at each call."""
    sizes = MODELS[name] | ({key: value for key, value in SMALL.items() if key in MODELS[name]} if small else {})
    sections = ModelSections.model_validate({"model": sizes, "likelihood": LIKELIHOODS[name]})
    torch.manual_seed(0)
    return build(sections.model, sections.likelihood, DATA)


def _run(steps: Iterator[Step], num: int, device: torch.device) -> float:
    """Seconds of so many steps."""
    begun = time.monotonic()
    for _ in range(num):
        next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - begun


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128], help="images of a training step")
    parser.add_argument("--samples", type=int, nargs="*", default=[64, 1024], help="images drawn together")
    parser.add_argument("--gated-samples", type=int, nargs="*", default=[256], help="the same of a Gated PixelCNN")
    parser.add_argument("--gated", type=int, nargs="*", default=[], help="batches of a Gated PixelCNN's steps")
    parser.add_argument("--steps", type=int, default=50, help="of a round")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before the first round")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--limit", type=float, default=200.0, metavar="SECONDS", help="no line begins later")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="networks of 12 features, 2 samples: for a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    if args.device == "cpu" and not args.small:
        sys.exit("no GPU here; --small rehearses on a CPU")
    return args


if __name__ == "__main__":
    main()
