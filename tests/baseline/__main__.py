"""Compare a checkout with the numbers in baseline.json, or write them anew.

    dvc repro                                                # the demo, with params.yaml as it is shipped
    python -m tests.baseline                                 # prints what differs; exit code 1 if anything does
    python -m tests.baseline --cifar10 data/prepared/cifar10 # also scores 256 CIFAR-10 test images
    python -m tests.baseline --write                         # after a change that is meant to change numbers

Everything is asked through the commands that users type, so that the script outlives what it compares. Weights, and
with them all that follows, depend on the kind of processor and on the number of threads, which baseline.json names:
elsewhere compare with a baseline written there from the commit before the change.
"""

import argparse
import csv
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

HERE = Path(__file__).parent
NUMBERS, GRID = HERE / "baseline.json", HERE / "digits-samples.png"
RUNS = ("digits-gated", "digits-gated-label", "digits-autoencoder", "digits-squared-error")
NUM_IMAGES = 256  # of CIFAR-10's test split
TOLERANCE = 5e-3  # nats an image, under 1e-6 of a CIFAR-10 image: float32 sums in another order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write this checkout's numbers")
    parser.add_argument("--cifar10", type=Path, metavar="FOLDER", help="the prepared data set, to score its images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found, grid = numbers(Path(scratch), arguments.cifar10)
    if arguments.write:
        NUMBERS.write_text(json.dumps(found, indent=1) + "\n")
        Image.fromarray(grid).save(GRID)
        print(f"{NUMBERS}: written")
        return
    differences = compare(json.loads(NUMBERS.read_text()), found)
    expected = np.array(Image.open(GRID))
    if expected.shape != grid.shape or (expected != grid).any():
        differences.append(f"sample grid: {_differing(expected, grid)} differ from {GRID}")
    print("\n".join(differences) or "equal to the baseline")
    sys.exit(bool(differences))


def numbers(scratch: Path, cifar10: Path | None) -> tuple[dict[str, Any], np.ndarray]:
    """This checkout's numbers, and the pixels of a sample grid."""
    archive, restored, drawn = scratch / "digits.pxc", scratch / "restored", scratch / "drawn"
    pixelcnn("compress", "models/digits-gated", "data/prepared/digits:test:100", "-o", archive)
    pixelcnn("decompress", "models/digits-gated", archive, "-o", restored)
    pixelcnn("sample", "models/digits-gated-label", "--num", "40", "--seed", "0", "-o", scratch / "grid.png")
    pixelcnn("sample", "cifar10", "--num", "2", "--seed", "0", "-o", drawn)
    pixelcnn("score", "cifar10", drawn, "-o", scratch / "drawn.parquet")
    found = {
        "made_by": _machine(),
        "table": _table(Path("reports/report/nll-digits.csv")),
        "weights_sha256": {run: _weights(Path("models") / run) for run in RUNS},
        "archive_bytes": archive.stat().st_size,
        "archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "archived_pixels_sha256": _pixels_sha256(restored),
        "cifar10_samples_sha256": _pixels_sha256(drawn),
        "cifar10_samples_nats": pd.read_parquet(scratch / "drawn.parquet").nats.round(5).tolist(),
        "cifar10_test_nats": _shipped_nats(),
    }
    if cifar10 is not None:
        pixelcnn("score", "cifar10", f"{cifar10}:test:{NUM_IMAGES}", "-o", scratch / "test.parquet")
        found["cifar10_test_nats"] = pd.read_parquet(scratch / "test.parquet").nats.round(5).tolist()
    return found, np.array(Image.open(scratch / "grid.png"))


def pixelcnn(*arguments: object) -> None:
    """Run a verb of the command `pixelcnn` of this checkout."""
    script = "from pixelcnn.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, text=True
    )


def compare(expected: dict[str, Any], found: dict[str, Any], path: str = "") -> list[str]:
    """A line for each number that is another than expected; nats are compared with TOLERANCE."""
    lines = []
    for key in expected.keys() | found.keys():
        old, new, where = expected.get(key), found.get(key), f"{path}{key}"
        if key == "made_by":
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            lines += compare(old, new, f"{where}.")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            worst = max(abs(a - b) for a, b in zip(old, new, strict=True))
            lines += [f"{where}: differ by up to {worst:.5f} nats"] if worst > TOLERANCE else []
        elif old != new:
            lines.append(f"{where}: {new}, the baseline has {old}")
    return sorted(lines)


def _table(path: Path) -> dict[str, dict[str, float | None]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {
        row["model"]: {split: round(float(row[split]), 6) if row[split] else None for split in ("test", "train")}
        for row in rows
        if row["ours"] == "True"
    }


def _weights(folder: Path) -> str:
    sha256: str = json.loads((folder / "config.json").read_text())["weights_sha256"]
    return sha256


def _shipped_nats() -> list[float]:
    """The NLLs that come with the bundled model, of the first test images."""
    import pixelcnn_pretrained

    (path,) = Path(pixelcnn_pretrained.__path__[0]).glob("cifar10/*.parquet")
    table = pd.read_parquet(path)
    nats: list[float] = table[table.split == "test"].nats[:NUM_IMAGES].round(5).tolist()
    return nats


def _pixels_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.png")):
        digest.update(f"{path.name} ".encode() + np.array(Image.open(path)).tobytes())
    return digest.hexdigest()


def _differing(expected: np.ndarray, found: np.ndarray) -> str:
    if expected.shape != found.shape:
        return f"shapes {expected.shape} and {found.shape}"
    return f"{(expected != found).any(-1).sum():,} of {expected[..., 0].size:,} pixels"


def _machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    python, threads = platform.python_version(), torch.get_num_threads()
    return {"commit": commit, "cpu": cpu, "threads": threads, "torch": torch.__version__, "python": python}


if __name__ == "__main__":
    main()
