"""Two trainings at once on one CPU, compared with one alone, by OpenMP's settings.

    python benchmarks/two_trainings.py

Threads of one process spin at a barrier while the thread that they wait for has no core. libgomp reads its settings
when torch is imported, so each measurement is processes of its own: a Gated PixelCNN of the demo's size on noise,
--steps steps after a warm-up. Settings take turns in --rounds rounds; medians are printed. Ratios are relative to one
alone with libgomp's default; "each of two" is one of two processes at the same time.
"""

import argparse
import os
import subprocess
import sys
from statistics import median

SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
}
KEYS = {key for setting in SETTINGS.values() for key in setting}
TRAINING = """
import sys, time, torch
from pixelcnn.data.dataset import Split
from pixelcnn.model import Data, build
from pixelcnn.params import Cosine, ModelSections, Train
from pixelcnn.training.distributed import World
from pixelcnn.training.loop import train
from pixelcnn.training.state import Training
sizes = {"num_layers": 6, "hidden_channels": 48, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 96}
model = {"name": "gated_pixelcnn", "condition": "none", "dropout": 0.2} | sizes
run = ModelSections.model_validate({"model": model, "likelihood": {"name": "categorical"}})
settings = Train(seed=0, steps=10**6, batch_size=64, learning_rate=0.003, warmup_steps=9, optimizer="adamw",
    betas=[0.9, 0.99], weight_decay=0.01, gradient_clip=1.0, ema_decay=0.995, flips=False, precision="float32",
    validate_every=10**6, schedule=Cosine(name="cosine"), initial=None)
images = torch.randint(0, 17, (1024, 1, 8, 8), dtype=torch.uint8)
made = build(run.model, run.likelihood, Data("noise", (1, 8, 8), 17, (), {}))
steps = train(Training.begin(made, settings), images, None, Split(images[:1], None), World(0, 1))
for _ in range(5):
    next(steps)
print("ready", flush=True)
sys.stdin.readline()
begun, num = time.monotonic(), int(sys.argv[1])
for _ in range(num):
    next(steps)
print(64 * num / (time.monotonic() - begun), flush=True)
"""


def rates(setting: dict[str, str], at_once: int, steps: int) -> list[float]:
    """Images/s of each of so many processes that train at the same time."""
    env = {key: value for key, value in os.environ.items() if key not in KEYS} | setting
    command = [sys.executable, "-c", TRAINING, str(steps)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) for _ in range(at_once)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in processes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="of each process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    args = parser.parse_args()
    alone: dict[str, list[float]] = {name: [] for name in args.settings}
    both: dict[str, list[float]] = {name: [] for name in args.settings}
    for _ in range(args.rounds):
        for name in args.settings:
            alone[name] += rates(SETTINGS[name], 1, args.steps)
            both[name] += rates(SETTINGS[name], 2, args.steps)
    default = median(alone[args.settings[0]])
    print("| setting | alone, images/s | alone | each of two, images/s | each of two |\n|---|---:|---:|---:|---:|")
    for name in args.settings:
        one, two = median(alone[name]), median(both[name])
        print(f"| {name} | {one:.0f} | {one / default:.2f} | {two:.0f} | {two / default:.2f} |")


if __name__ == "__main__":
    main()
