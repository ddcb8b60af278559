"""A trained and evaluated model, on its way to a registry: from a run's reports, or from a folder that holds it all.

    model.safetensors, config.json   the model (pixelcnn.checkpoint)
    run.json                         the run: its params, its scores by split, what its training took
    RUN.parquet                      bits/dim of each evaluated image: what a later version is compared with
    RUN.csv, RUN.png                 how it learnt, and what it draws
    README.md                        its card

Such a folder needs neither reports nor DVC nor MLflow: it is what comes with pixelcnn, and what brings a model from a
machine that trains to a registry elsewhere.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pixelcnn import checkpoint, config
from pixelcnn.reporting.model_card import model_card
from pixelcnn.reporting.reports import made, read

RUN, CARD = "run.json", "README.md"
AGAIN = "pack the run again"


@dataclass(frozen=True)
class Candidate:
    """A model's folder, its run's name and seed, and what reports/evaluate holds of it."""

    folder: Path
    run: str
    seed: int
    card: str  # Markdown for the version's page
    scores: dict[str, Any]
    nll: Path  # RUN.parquet: split, image, bits_per_dim
    samples: Path  # RUN.png


def of_run(name: str, params: config.Params, model: Path, reports: Path) -> Candidate:
    """A run of params.yaml, as its stages left it.

    Raises ValueError for a run that is none, and where a stage has not run since something changed, with its name.
    """
    if name not in params.runs:
        raise ValueError(f"params.yaml: runs.{name}: missing; its runs are {', '.join(params.runs)}")
    run, scores, training = params.runs[name], read(reports, "evaluate", name), read(reports, "train", name)
    description = checkpoint.read_config(model)
    if description["model"] != run.model.model_dump() or training["steps"] != run.train.steps:
        raise ValueError(f"{model}: another model than params.yaml's runs.{name}; run `dvc repro train@{name}`")
    data_card = read(reports, "preprocess", params.images_of(run.dataset))
    card = model_card(run.description, description, data_card, scores, training)
    nll, samples = (made(reports, "evaluate", f"{name}.{ending}") for ending in ("parquet", "png"))
    check_scores(scores, nll, description["weights_sha256"], f"run `dvc repro evaluate@{name}`")
    return Candidate(model, name, run.train.seed, card, scores, nll, samples)


def check_scores(scores: dict[str, Any], nll: Path, weights_sha256: str, remedy: str) -> None:
    """ValueError, with the remedy, unless `nll` was measured with these weights and `scores` are its means."""
    table = pd.read_parquet(nll)
    if table.attrs.get("weights_sha256") != weights_sha256:
        raise ValueError(f"{nll}: measured with other weights than the model's {weights_sha256[:12]}; {remedy}")
    for split, claimed in scores.items():
        bits = table[table.split == split].bits_per_dim
        if len(bits) != claimed["num_images"] or abs(bits.mean() - claimed["bits_per_dim"]) > 1e-4:
            raise ValueError(
                f"{nll}: {len(bits)} images of {split} with {bits.mean():.4f} bits/dim, claimed are "
                f"{claimed['num_images']} with {claimed['bits_per_dim']:.4f}; {remedy}"
            )


def pack(name: str, params: config.Params, model: Path, reports: Path, out: Path) -> None:
    """Write a run of params.yaml into a new folder. ValueError as `of_run`, for damaged weights, or if it is there."""
    if out.exists():
        raise ValueError(f"--out: {out} is there already")
    candidate = of_run(name, params, model, reports)
    checkpoint.load(model)  # refuses damaged weights before anything is written
    run = params.runs[name]
    images = params.images_of(run.dataset)
    content = {
        "run": name,
        "params": {"preprocess": params.datasets[images].preprocess.model_dump(), "run": run.model_dump()},
        "scores": candidate.scores,
        "train": read(reports, "train", name),
    }
    files = [model / checkpoint.WEIGHTS, model / checkpoint.CONFIG, candidate.nll, candidate.samples]
    files.append(made(reports, "train", f"{name}.csv"))
    out.mkdir(parents=True)
    for file in files:
        shutil.copy(file, out)
    (out / RUN).write_text(json.dumps(content, indent=2) + "\n")
    (out / CARD).write_text(f"{candidate.card}\n")


def unpack(folder: Path) -> Candidate:
    """What `pack` wrote. Raises ValueError for a folder that it did not write, and for one that has changed since."""
    path = folder / RUN
    if not path.is_file():
        raise ValueError(f"{folder}: no {RUN} there; `pixelcnn models pack RUN -o FOLDER` makes such a folder of a run")
    try:
        content = json.loads(path.read_text())
        name, scores, seed = content["run"], content["scores"], content["params"]["run"]["train"]["seed"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not as `pixelcnn models pack` wrote it: {error!r}; {AGAIN}") from None
    files = [folder / file for file in (CARD, f"{name}.parquet", f"{name}.png")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{folder}: no {', '.join(missing)} there; {AGAIN}")
    check_scores(scores, files[1], checkpoint.read_config(folder)["weights_sha256"], AGAIN)
    return Candidate(folder, name, seed, files[0].read_text(), scores, files[1], files[2])
