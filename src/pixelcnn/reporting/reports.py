"""Readers of what the stages write under reports/, and costs, durations and large numbers as text. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pixelcnn import files
from pixelcnn.config import check
from pixelcnn.data.dataset import DatasetInfo
from pixelcnn.schemas import BaselineReport, EvaluateReport, RegisterReport, Report, TrainReport

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

R = TypeVar("R", bound=Report)


class NotMade(ValueError):
    """A report that its stage has not written yet."""


def read_preprocess(reports: Path, name: str, stage: str = "preprocess") -> DatasetInfo:
    """The card of a data set, from reports/preprocess/NAME.json, where `stage` has written it."""
    path, remedy = made(reports, "preprocess", f"{name}.json", stage), _remake(stage, name)
    return check(DatasetInfo, files.read_json(path, f"{path}: no such file", remedy), f"{path} ({remedy})")


def read_baseline(reports: Path, name: str, stage: str = "baseline") -> BaselineReport:
    """The baselines' scores on a data set, from reports/baseline/NAME.json, where `stage` has written them."""
    path = made(reports, "baseline", f"{name}.json", stage)
    return BaselineReport.read(path, _remake(stage, name))


def read_train(reports: Path, name: str) -> TrainReport:
    """The summary of a run's training, from reports/train/NAME.json."""
    return _read(TrainReport, reports, "train", name)


def read_evaluate(reports: Path, name: str) -> EvaluateReport:
    """A run's scores by split, from reports/evaluate/NAME.scores.json."""
    return _read(EvaluateReport, reports, "evaluate", name, ".scores.json")


def read_curve(reports: Path, name: str) -> "pd.DataFrame":
    """A run's learning curve, from reports/train/NAME.csv."""
    import pandas as pd  # a second to import, which the tables of a terminal do not need

    return pd.read_csv(made(reports, "train", f"{name}.csv"))


def read_test_bits(reports: Path, name: str) -> "np.ndarray":
    """The bits/dim (N,) of a run's test images, from reports/evaluate/NAME.parquet."""
    import pandas as pd

    table = pd.read_parquet(made(reports, "evaluate", f"{name}.parquet"), columns=["split", "bits_per_dim"])
    return table[table.split == "test"].bits_per_dim.to_numpy()


@dataclass(frozen=True)
class Extremes:
    """The likeliest and then the least likely test images of a run: K images, C channels, H rows, W columns."""

    bits_per_dim: "np.ndarray"  # (K,), ascending
    pixels: "np.ndarray"  # (K, C, H, W) uint8
    bits: "np.ndarray | None"  # (K, H, W) of each pixel; None where a network's NLL is no sum over pixels


def read_extremes(reports: Path, name: str) -> Extremes:
    """The extremes of a run, from reports/evaluate/NAME.npz."""
    import numpy as np

    with np.load(made(reports, "evaluate", f"{name}.npz"), allow_pickle=False) as found:
        return Extremes(found["bits_per_dim"], found["pixels"], found.get("bits"))


def read_register(reports: Path, name: str) -> RegisterReport | None:
    """What became of a run's model in the registry, from reports/register/NAME.json; None before that."""
    there = (reports / "register" / f"{name}.json").is_file()
    return _read(RegisterReport, reports, "register", name) if there else None


def _read(schema: type[R], reports: Path, stage: str, name: str, ending: str = ".json") -> R:
    return schema.read(made(reports, stage, f"{name}{ending}"), _remake(stage, name))


def _remake(stage: str, name: str) -> str:
    return f"run `dvc repro --force {stage}@{name}`"


def made(reports: Path, folder: str, file: str, stage: str = "") -> Path:
    """The path of a file that a stage makes, reports/FOLDER/FILE. Raises NotMade, which says how to make it.

    stage: "" for the one that is called as the folder.
    """
    path = reports / folder / file
    if not path.is_file():
        raise NotMade(f"{path}: no such file; run `dvc repro {stage or folder}@{file.partition('.')[0]}`")
    return path


def cost(train: TrainReport) -> str:
    """What a training took: time and hardware, images seen, floating-point operations; and what it started from."""
    flop = si(train.total_flops, "FLOP")
    text = f"{duration(train.seconds)}, {train.hardware}; {si(train.images_seen)} images; {flop}"
    if train.initial is None:
        return text
    total = f"{si(train.trained.flops, 'FLOP')} in all" if train.initial.flops else "its cost is unknown"
    return f"{text}; from the weights of {train.initial.model} ({total})"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes, hours or days, to two digits or more."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def si(value: float, unit: str = "") -> str:
    """Three significant digits and an SI prefix: 15.3 M, 410 TFLOP."""
    for exponent, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**exponent:
            return f"{value / 10**exponent:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
