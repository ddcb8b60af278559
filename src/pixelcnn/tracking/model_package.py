"""A model package: a trained and evaluated model with all that a registry stores of it, as one folder.

    model.safetensors, config.json   the model (pixelcnn.checkpoint)
    run.json                         the run: its params, its scores by split, the report on its training (PackedRun)
    RUN.parquet                      bits/dim of each evaluated image, for the comparison with later versions
    RUN.csv, RUN.png                 training curve, sample grid
    README.md                        model card

`of_run` makes one of a run's reports, `unpack` of a folder that `pack` wrote. Such a folder needs neither reports nor
DVC nor MLflow: the models that ship with pixelcnn are such folders, and they carry a model from the machine that
trained it to a registry elsewhere.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import AliasPath, Field

from pixelcnn import checkpoint, files
from pixelcnn.generation.grids import drawn_by
from pixelcnn.params import Params
from pixelcnn.reporting.model_card import model_card
from pixelcnn.reporting.reports import made, read_evaluate, read_preprocess, read_train
from pixelcnn.schemas import EvaluateReport, Report, TrainReport

RUN, CARD = "run.json", "README.md"
REMEDY = "pack the run again"


class PackedRun(Report):
    """run.json. `params` holds the sections `preprocess` and `run` as the release that packed them wrote them."""

    run: str
    params: dict[str, Any]  # not migrated, so nothing but the seed is read
    scores: EvaluateReport
    train: TrainReport
    seed: int = Field(validation_alias=AliasPath("params", "run", "train", "seed"), exclude=True)


@dataclass(frozen=True)
class ModelPackage:
    """A model's folder, its run's name and seed, and what the stages evaluate and sample made of it."""

    folder: Path
    run: str
    seed: int
    card: str  # Markdown
    scores: EvaluateReport
    nll: Path  # RUN.parquet: split, image, bits_per_dim
    samples: Path  # RUN.png


def of_run(name: str, params: Params, model: Path, reports: Path) -> ModelPackage:
    """The package of a run of params.yaml, from its model's folder and the reports of its stages.

    Raises ValueError for an unknown run, and names the stage to run where a report is missing or out of date.
    """
    run, scores, training = params.run(name), read_evaluate(reports, name), read_train(reports, name)
    described = checkpoint.read_config(model)
    if (described.model, described.likelihood, training.steps) != (run.model, run.likelihood, run.train.steps):
        raise ValueError(f"{model}: another model than params.yaml's runs.{name}; run `dvc repro train@{name}`")
    info = read_preprocess(reports, params.images_of(run.dataset))
    card = model_card(run.description, described, info, scores, training)
    nll, samples = made(reports, "evaluate", f"{name}.parquet"), made(reports, "sample", f"{name}.png")
    check_scores(scores, nll, described.weights_sha256, f"run `dvc repro evaluate@{name}`")
    if drawn_by(samples) != described.weights_sha256:
        raise ValueError(f"{samples}: drawn with other weights than the model's; run `dvc repro sample@{name}`")
    return ModelPackage(model, name, run.train.seed, card, scores, nll, samples)


def check_scores(scores: EvaluateReport, nll: Path, weights_sha256: str, remedy: str) -> None:
    """Raise ValueError, with the remedy, unless `nll` was measured with these weights and `scores` are its means."""
    table = pd.read_parquet(nll)
    if table.attrs.get("weights_sha256") != weights_sha256:
        raise ValueError(f"{nll}: measured with other weights than the model's {weights_sha256[:12]}; {remedy}")
    for split, score in scores.scores.items():
        bits = table[table.split == split].bits_per_dim
        if len(bits) != score.num_images or abs(bits.mean() - score.bits_per_dim) > 1e-4:
            raise ValueError(
                f"{nll}: {len(bits)} images of {split} with {bits.mean():.4f} bits/dim, but {score.num_images} with "
                f"{score.bits_per_dim:.4f} are reported; {remedy}"
            )


def pack(name: str, params: Params, model: Path, reports: Path, out: Path) -> None:
    """Write the package of a run into a new folder. ValueError as `of_run`, for damaged weights, or if it exists."""
    if out.exists():
        raise ValueError(f"--out: {out} is there already")
    package = of_run(name, params, model, reports)
    checkpoint.load(model)  # refuses damaged weights before anything is written
    run = params.run(name)
    preprocess = params.datasets[params.images_of(run.dataset)].preprocess
    packed = PackedRun.model_validate(
        {
            "run": name,
            "params": {"preprocess": preprocess.model_dump(), "run": run.model_dump()},
            "scores": package.scores,
            "train": read_train(reports, name),
        }
    )
    copied = [model / checkpoint.WEIGHTS, model / checkpoint.CONFIG, package.nll, package.samples]
    copied.append(made(reports, "train", f"{name}.csv"))
    out.mkdir(parents=True)
    for file in copied:
        shutil.copy(file, out)
    packed.write(out / RUN)
    files.write_text(out / CARD, f"{package.card}\n")


def unpack(folder: Path) -> ModelPackage:
    """The package that `pack` wrote into a folder. Raises ValueError for any other folder, and for changed files."""
    if not (folder / RUN).is_file():
        raise ValueError(f"{folder}: no {RUN} there; `pixelcnn models pack RUN -o FOLDER` makes such a folder of a run")
    packed = PackedRun.read(folder / RUN, REMEDY)
    card, nll, samples = (folder / file for file in (CARD, f"{packed.run}.parquet", f"{packed.run}.png"))
    missing = [file.name for file in (card, nll, samples) if not file.is_file()]
    if missing:
        raise ValueError(f"{folder}: no {', '.join(missing)} there; {REMEDY}")
    check_scores(packed.scores, nll, checkpoint.read_config(folder).weights_sha256, REMEDY)
    return ModelPackage(folder, packed.run, packed.seed, card.read_text(), packed.scores, nll, samples)
