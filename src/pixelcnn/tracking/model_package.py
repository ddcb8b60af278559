"""A model package: a trained and evaluated model with everything that a registry stores about it, in one folder.

    model.safetensors, config.json   the model (pixelcnn.checkpoint)
    run.json                         the run: its params, its scores by split, the report on its training (PackedRun)
    RUN.parquet                      bits/dim of each evaluated image, for the comparison with later versions
    RUN.csv, RUN.png                 training curve, sample grid
    README.md                        model card
    embedder/                        the classifier of a model given its embeddings (pixelcnn.data.embedder)

`of_run` makes a package from a run's reports, `unpack` from a folder that `pack` wrote. Such a folder needs no reports,
DVC or MLflow: the bundled models are such folders, and so is a model on its way from the machine that trained it to a
registry elsewhere.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import AliasPath, Field

from pixelcnn import checkpoint, files
from pixelcnn.config import Name, Seed
from pixelcnn.data.dataset import CARD as CARD_OF_DATA
from pixelcnn.data.dataset import EMBEDDER, read_info, read_rows
from pixelcnn.data.decoding import MAX_BYTES, decode_picture
from pixelcnn.evaluation.nll import nll
from pixelcnn.generation.grids import drawn_by
from pixelcnn.likelihoods.base import bits_per_dim, check_nll
from pixelcnn.model import Data
from pixelcnn.params import Params
from pixelcnn.reporting.model_card import model_card
from pixelcnn.reporting.reports import made, read_evaluate, read_preprocess, read_train
from pixelcnn.schemas import EvaluateReport, Report, TrainReport

RUN, CARD = checkpoint.PACKED, "README.md"
MEASURED = 32  # test images on which a claim is checked
MOST_ROWS = 10**7  # of a table of NLLs
TOLERANCE = 0.02  # bits/dim of an image, for other hardware and bfloat16
REMEDY = "pack the run again"


class PackedRun(Report):
    """run.json. `params` holds the sections `preprocess` and `run` as the release that packed them wrote them."""

    run: Name
    params: dict[str, Any]  # not migrated, so nothing but the seed is read
    scores: EvaluateReport
    train: TrainReport
    seed: Seed = Field(validation_alias=AliasPath("params", "run", "train", "seed"), exclude=True)


@dataclass(frozen=True)
class ModelPackage:
    """A model's folder, its run's name and seed, and the outputs of its stages evaluate and sample."""

    folder: Path
    run: str
    seed: int
    card: str  # Markdown
    scores: EvaluateReport
    nll: Path  # RUN.parquet: split, image, bits_per_dim
    samples: Path  # RUN.png


def of_run(name: str, params: Params, model: Path, reports: Path) -> ModelPackage:
    """The package of a run of params.yaml, from its model's folder and the reports of its stages.

    Raises ValueError for an unknown run, and for a missing or outdated report, with the stage to run.
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
    table = read_nll(nll)
    if table.attrs.get("weights_sha256") != weights_sha256:
        raise ValueError(f"{nll}: measured with other weights than the model's {weights_sha256[:12]}; {remedy}")
    for split, score in scores.scores.items():
        bits = table[table.split == split].bits_per_dim
        if len(bits) != score.num_images or not abs(bits.mean() - score.bits_per_dim) <= 1e-4:  # nan is no score
            raise ValueError(
                f"{nll}: {len(bits)} images of {split} with {bits.mean():.4f} bits/dim, but {score.num_images} with "
                f"{score.bits_per_dim:.4f} are reported; {remedy}"
            )


def read_nll(nll: Path) -> pd.DataFrame:
    """The table of a model's NLLs. Raises ValueError for any other file, and for values that cannot be NLLs."""
    try:
        if pq.read_metadata(nll).num_rows > MOST_ROWS:
            raise ValueError(f"more than {MOST_ROWS:,} rows")
        table = pd.read_parquet(nll)
        split, image, bits = table["split"], table["image"], table["bits_per_dim"].to_numpy(np.float64)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{nll}: is not a table of NLLs: {files.excerpt(str(error))}") from None
    if table[["split", "image"]].duplicated().any() or split.hasnans or image.hasnans:
        raise ValueError(f"{nll}: has two rows for one image, or a row for none")
    check_nll(torch.from_numpy(bits.copy()), str(nll))
    return table


def remeasure(package: ModelPackage, prepared: Path) -> str:
    """Check a package's claims by scoring MEASURED test images, if a data set in `prepared` has them.

    Returns "" if the claims are true, or why they could not be checked. Raises ValueError if they are false.
    """
    described = checkpoint.read_config(package.folder)
    data = prepared_data(described.data, prepared)
    if data is None:
        return f"its scores are unverified: no data set in {prepared} has its test images"
    model, claimed = checkpoint.load(package.folder), read_nll(package.nll)
    claimed = claimed[claimed.split == "test"].sort_values("image")
    if claimed.image.tolist() != list(range(read_info(data).splits["test"].num_images)):
        raise ValueError(f"{package.nll}: does not have one row for each test image of {data}")
    claimed = claimed.head(MEASURED)
    split = read_rows(data, "test", torch.from_numpy(claimed.image.to_numpy(np.int64).copy()))
    found = bits_per_dim(nll(model, split, MEASURED), model.dims).numpy()
    worst = int(np.abs(found - claimed.bits_per_dim.to_numpy()).argmax())
    stated, measured = claimed.bits_per_dim.to_numpy()[worst], found[worst]
    if not abs(stated - measured) <= TOLERANCE:
        raise ValueError(
            f"{package.nll}: claims {stated:.4f} bits/dim for test image {claimed.image.to_numpy()[worst]}, which has "
            f"{measured:.4f} under this model"
        )
    return ""


def prepared_data(data: Data, prepared: Path) -> Path | None:
    """The data set in `prepared` that has the test images, and the conditions, that a model was measured on."""
    cards = sorted(prepared.glob(f"*/{CARD_OF_DATA}"))
    return next((card.parent for card in cards if _same(card, data)), None)


def _text(card: Path) -> str:
    try:
        return files.read_bytes(card, files.MAX_JSON).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{card}: not UTF-8: {error}") from None


def _same(card: Path, data: Data) -> bool:
    """Whether a prepared data set has the test images, and the conditions, that a model was measured on."""
    try:
        found = Data.of(read_info(card.parent))
    except ValueError:
        return False
    fingerprints = {"test": found.fingerprints.get("test", "")}
    wanted = replace(data, dataset=found.dataset, fingerprints={"test": data.fingerprints.get("test", "unknown")})
    return replace(found, fingerprints=fingerprints) == wanted


def pack(name: str, params: Params, model: Path, reports: Path, out: Path) -> None:
    """Write the package of a run into a new folder. ValueError as `of_run`, for damaged weights, or if `out` exists."""
    if out.exists():
        raise ValueError(f"--out: {out} already exists")
    package = of_run(name, params, model, reports)
    checkpoint.load(model)  # refuses damaged weights before anything is written
    run = params.run(name)
    preparation = params.preparation(params.images_of(run.dataset)).model_dump(exclude={"path", "class_names"})
    packed = PackedRun.model_validate(
        {
            "run": name,
            "params": {"preprocess": preparation, "run": run.model_dump()},
            "scores": package.scores,
            "train": read_train(reports, name),
        }
    )
    copied = [model / checkpoint.WEIGHTS, model / checkpoint.CONFIG, package.nll, package.samples]
    copied.append(made(reports, "train", f"{name}.csv"))
    with files.new_folder(out) as part:
        for file in copied:
            shutil.copy(file, part)
        if (model / EMBEDDER).is_dir():
            shutil.copytree(model / EMBEDDER, part / EMBEDDER)
        packed.write(part / RUN)
        files.write_text(part / CARD, f"{package.card}\n")


def _check_plain(folder: Path) -> None:
    """Raise ValueError for a link in a package, whose target would be copied to a registry that others read, and for
    what is neither a file nor a folder.
    """
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path}: is a link or a device; a package has plain files only; {REMEDY}")


def unpack(folder: Path) -> ModelPackage:
    """The package that `pack` wrote into a folder. Raises ValueError for any other folder, and for changed files."""
    if not (folder / RUN).is_file():
        raise ValueError(f"{folder}: no {RUN} there; `pixelcnn models pack RUN -o FOLDER` makes such a folder of a run")
    _check_plain(folder)
    packed = PackedRun.read(folder / RUN, REMEDY)
    card, nll, samples = (folder / file for file in (CARD, f"{packed.run}.parquet", f"{packed.run}.png"))
    missing = [file.name for file in (card, nll, samples) if not file.is_file()]
    if missing:
        raise ValueError(f"{folder}: no {', '.join(missing)} there; {REMEDY}")
    check_scores(packed.scores, nll, checkpoint.read_config(folder).weights_sha256, REMEDY)
    decode_picture(files.read_bytes(samples, MAX_BYTES), str(samples), None, formats=("PNG",))
    return ModelPackage(folder, packed.run, packed.seed, _text(card), packed.scores, nll, samples)
