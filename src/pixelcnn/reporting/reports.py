"""What the stages have reported, read, and its numbers in words. No torch here."""

import json
from pathlib import Path
from typing import Any


def read(reports: Path, stage: str, name: str) -> dict[str, Any]:
    """What `stage` reported on `name`: reports/STAGE/NAME.json."""
    path = made(reports, stage, f"{name}.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); run `dvc repro --force {stage}@{name}`") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object; run `dvc repro --force {stage}@{name}`")
    return content


def made(reports: Path, stage: str, file: str) -> Path:
    """The path of a file that `stage` makes, reports/STAGE/FILE, or a ValueError that says how to make it."""
    path = reports / stage / file
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run `dvc repro {stage}@{path.stem}`")
    return path


def cost(train: dict[str, Any]) -> str:
    """What a training took, from reports/train/RUN.json: time and hardware, images seen, floating-point operations."""
    flop = train["flops_per_image"] * train["images_seen"]
    return f"{duration(train['seconds'])}, {train['hardware']}; {si(train['images_seen'])} images; {si(flop, 'FLOP')}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, to two digits or more."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def si(value: float, unit: str = "") -> str:
    """Three digits and a prefix: 15.3 M, 410 TFLOP."""
    for exponent, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**exponent:
            return f"{value / 10**exponent:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
