"""The reports that the stages before `report` write, in small: two runs on CIFAR-10, one on a sample of ImageNet 64."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pixelcnn import params as schema
from pixelcnn.config import read_yaml
from tests.conftest import DEMO

CIFAR, SAMPLE, DIGITS = "cifar", "imagenet-sample", "digits"
GATED, LABELLED, SMALL = "cifar-gated", "cifar-gated-label", "imagenet-gated"


def params() -> schema.Params:
    """Three data sets and three runs; everything else as in the demo."""
    content = read_yaml(DEMO)
    dataset, run = next(iter(content["datasets"].values())), next(iter(content["runs"].values()))
    sources = {CIFAR: "cifar10", SAMPLE: "imagenet64_vdo2016", DIGITS: "digits"}
    content["datasets"] = {
        name: dataset | {"download": dataset["download"] | {"source": source}} for name, source in sources.items()
    }
    content["runs"] = {
        GATED: run | {"dataset": CIFAR, "description": "Gated, plain"},
        LABELLED: run
        | {"dataset": CIFAR, "description": "Gated | label", "model": run["model"] | {"condition": "label"}},
        SMALL: run | {"dataset": SAMPLE, "description": "Gated, small"},
    }
    return schema.parse(content, "test")


def write_reports(reports: Path) -> None:
    """Write every file that `report` reads, and those of a run that is no longer in params.yaml."""
    _dataset(reports, CIFAR, "cifar10", "CIFAR-10", True, ["cat", "dog"])
    _dataset(reports, SAMPLE, "imagenet64_vdo2016", "ImageNet <64>", False, [])
    _dataset(reports, DIGITS, "digits", "Digits", True, [])
    for name in (CIFAR, SAMPLE, DIGITS):
        gaussian = _splits(4.642) | {"num_parameters": 4_723_000}
        write_json(reports / f"baseline/{name}.json", {"uniform": {"test": _measure(8.0)}, "gaussian": gaussian})
    write_run(reports, GATED, 3.0349, finished="2026-11-28T01:00:00Z", commit="abc1234")
    write_run(reports, LABELLED, 3.0251, finished="2026-11-27T23:00:00Z", commit="def5678+")
    write_run(reports, SMALL, 3.5)  # by an earlier release
    write_run(reports, "removed-long-ago", 1.0)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _dataset(reports: Path, name: str, source: str, title: str, comparable: bool, classes: list[str]) -> None:
    split = {"num_images": 1234, "fingerprint": "0123456789abcdef" * 4, "shards": ["a.parquet"]}
    card = {
        "dataset": name,
        "source": source,
        "title": title,
        "shape": [3, 32, 32],
        "levels": 256,
        "classes": classes,
        "splits": {"train": split, "validation": split, "test": split},
        "channel_means": [127.5] * 3,
        "channel_deviations": [64.0] * 3,
        "comparable": comparable,
        "comparable_reason": "all images" if comparable else "1,234 of 49,999 test images",
        "licence": "free",
        "citation": "Somebody 1999",
        "homepage": "https://example.org",
    }
    write_json(reports / f"preprocess/{name}.json", card)


def write_run(reports: Path, name: str, bits: float, **train: Any) -> None:
    """Write the reports of a run; `train` replaces entries of its training's."""
    summary = {
        "step": 90,
        "steps": 100,
        "validation_bits_per_dim": bits,
        "train_bits_per_dim": bits,
        "num_parameters": 15_312_000,
        "flops_per_image": 9.4e10,
        "images_seen": 6400,
        "seconds": 4680.0,
        "hardware": "2 CPU cores",
    }
    write_json(reports / f"train/{name}.json", summary | train)
    lines = ["step,images_seen,seconds,learning_rate,train_bits_per_dim,validation_bits_per_dim"]
    for step in range(10, 101, 10):
        validation = bits + 1 / step if step % 20 == 0 else ""
        lines.append(f"{step},{64 * step},{step},0.001,{bits + 2 / step},{validation}")
    (reports / f"train/{name}.csv").write_text("\n".join(lines) + "\n")
    write_json(reports / f"evaluate/{name}.scores.json", _splits(bits))
    of_images = bits + np.linspace(-1, 1, 7)
    table = pd.DataFrame({"split": ["test"] * 7 + ["train"], "bits_per_dim": [*of_images, 99.0]})
    table.to_parquet(reports / f"evaluate/{name}.parquet")
    pixels = np.tile(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), (1, 3, 4, 4))
    maps = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    np.savez(reports / f"evaluate/{name}.npz", bits_per_dim=of_images[[0, -1]], pixels=pixels, bits=maps)
    (reports / "sample").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(reports / f"sample/{name}.png")


def _splits(bits: float) -> dict[str, Any]:
    return {split: _measure(bits) for split in ("test", "validation", "train")}


def _measure(bits: float) -> dict[str, Any]:
    return {"bits_per_dim": bits, "standard_error": 0.0087, "num_images": 1234}
