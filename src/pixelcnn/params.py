"""The schema of params.yaml: the union of all sections. A stage reads what dvc.yaml names under its `params`.

What runs have in common is written once, under `shared`; a run holds what differs, and `load` puts the two together:

    shared: {train: {learning_rate: 0.003, ...}}
    runs: {mine: {train: {steps: 600}, ...}, another: {train: {steps: 600, learning_rate: 0.001}, ...}}
"""

from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from pixelcnn import architectures, likelihoods
from pixelcnn.config import (
    Architecture,
    Batch,
    Count,
    Fraction,
    Given,
    Likelihood,
    Name,
    Positive,
    Section,
    Seed,
    Sha256,
    Temperature,
    check,
    quoted,
    read_yaml,
)
from pixelcnn.data.config import Dataset, Embeddings, Images, Preprocess
from pixelcnn.spelling import hint

if TYPE_CHECKING:
    AnyArchitecture: TypeAlias = Architecture
    AnyLikelihood: TypeAlias = Likelihood
else:  # the union of what the folders define, told apart by `name`
    AnyArchitecture = Annotated[reduce(or_, architectures.sections()), Field(discriminator="name")]
    AnyLikelihood = Annotated[reduce(or_, likelihoods.sections()), Field(discriminator="name")]


class Cosine(Section):
    """After the warm-up, half a cosine from the peak to zero at `steps` (arXiv:1608.03983, without restarts)."""

    name: Literal["cosine"]


class Wsd(Section):
    """Warm-up, stable, decay (arXiv:2404.06395): the peak for most of the steps, the trunk, then a cool-down to zero.

    The state at the end of the trunk stays, so that the same run with more `steps` continues from there.
    """

    name: Literal["wsd"]
    cooldown: Annotated[float, Field(gt=0, lt=1)]  # share of the steps, at their end


class Initial(Section):
    """The model whose weights a training starts from."""

    model: Annotated[str, Field(min_length=1, max_length=1000)]  # a run, a folder, models:/..., or one that is bundled
    weights_sha256: Sha256  # of its weights' file, so that DVC sees a change of the model


class Train(Section):
    """One run's training: whatever changes the weights."""

    seed: Seed
    steps: Count
    batch_size: Batch
    learning_rate: Positive  # peak
    schedule: Annotated[Cosine | Wsd, Field(discriminator="name")]  # of the learning rate, after the warm-up
    warmup_steps: Annotated[int, Field(ge=0)]  # linear
    optimizer: Literal["adamw", "muon"]  # muon: for kernels; biases and gains by AdamW
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]  # of AdamW; Muon's momentum is the first
    weight_decay: Annotated[float, Field(ge=0)]  # of kernels, not of biases
    gradient_clip: Positive  # global norm
    ema_decay: Fraction
    flips: bool  # mirror each training image left to right with probability 1/2
    precision: Literal["float32", "bfloat16"]  # bfloat16 by autocast, where the hardware has it
    validate_every: Count  # steps
    initial: Initial | None  # null: random weights

    @property
    def trunk_steps(self) -> int:
        """The last step before a cool-down; 0 for a schedule that has none."""
        return self.steps - round(self.schedule.cooldown * self.steps) if isinstance(self.schedule, Wsd) else 0

    @model_validator(mode="after")
    def warmup_ends(self) -> "Train":
        """The warm-up is part of the budget, and precedes a cool-down."""
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} is not less than steps: {self.steps}")
        if self.trunk_steps and self.warmup_steps >= self.trunk_steps:
            raise ValueError(
                f"warmup_steps: {self.warmup_steps} is not less than {self.trunk_steps}, the step at which the "
                "cool-down begins"
            )
        return self


class ModelSections(Section):
    """What describes a model but for its weights and its data."""

    model: AnyArchitecture
    likelihood: AnyLikelihood

    @model_validator(mode="after")
    def likelihood_fits(self) -> "ModelSections":
        """The likelihood can read what the network puts out."""
        model, likelihood = self.model, self.likelihood
        if model.only_likelihood not in (None, likelihood.name):
            raise ValueError(
                f"likelihood.name: {likelihood.name!r} does not work with model.name: {model.name!r}, whose outputs "
                f"are those of {model.only_likelihood!r}"
            )
        if model.whole_pixels and not likelihood.joint:
            raise ValueError(
                f"likelihood.name: {likelihood.name!r} does not work with model.name: {model.name!r}, whose outputs "
                f"describe the channels of a pixel jointly, as {_joint()} does"
            )
        return self


def _joint() -> str:
    return " or ".join(name for name in likelihoods.NAMES if likelihoods.section(name).joint)


class Run(ModelSections):
    """One experiment: the stages train@NAME, evaluate@NAME, sample@NAME and register@NAME."""

    description: str
    dataset: Name
    train: Train


class TrainProcess(Section):
    """How often a training logs and saves, and how many processes share it. No weight depends on it but by rounding and
    by the numbers that dropout draws, so DVC does not watch it.
    """

    log_every: Count  # steps
    checkpoint_every: Positive  # seconds
    pictures_every: Count  # steps between the sample grids in MLflow, of models that sample incrementally
    processes: Annotated[
        int, Field(gt=0, le=1024)
    ]  # on this machine, started by torchrun; a GPU each, where there are GPUs


class Evaluate(Section):
    """What evaluation measures beside the whole test split."""

    batch_size: Batch
    num_train_images: Count  # for the papers' "test (train)"
    seed: Seed  # of the choice of these images


class Sample(Section):
    """The sample grids of finished models, and those drawn during a training."""

    per_class: Annotated[int, Field(gt=0, le=1000)]  # columns of the grid; a row per class, or as many rows as columns
    seed: Seed
    temperature: Temperature


class Baseline(Section):
    """The multivariate Gaussian is fitted to at most this many training images."""

    max_train_images: Count


class Promotion(Section):
    """When a new version of a registered model replaces its champion: the whole interval of its gain is above this."""

    min_gain: Annotated[float, Field(ge=0)]  # bits/dim, on the same test images
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the two-sided interval of the mean gain


class Params(Section):
    """The whole of params.yaml, each run with what it takes over from `shared`."""

    datasets: dict[Name, Dataset]
    images: dict[Name, Images]  # each a data set too
    embeddings: dict[Name, Embeddings]  # each a data set too: the images of another, with an embedding each
    shared: dict[Literal["model", "likelihood", "train"], dict[str, Any]]  # checked in the runs that take it over
    runs: dict[Name, Run]
    train: TrainProcess
    evaluate: Evaluate
    sample: Sample
    baseline: Baseline
    promotion: Promotion

    def images_of(self, dataset: str) -> str:
        """The data set whose images one has: itself, or what an entry of `embeddings` embeds."""
        return self.embeddings[dataset].dataset if dataset in self.embeddings else dataset

    @property
    def prepared(self) -> list[str]:
        """The data sets of images: the entries of `datasets` and of `images`."""
        return [*self.datasets, *self.images]

    def preparation(self, name: str) -> Preprocess | Images:
        """How the images of one of `prepared` became a data set."""
        return self.images[name] if name in self.images else self.dataset(name).preprocess

    def dataset(self, name: str) -> Dataset:
        """An entry of `datasets`; ValueError with the known ones where there is none."""
        if name not in self.datasets:
            raise ValueError(
                f"params.yaml: datasets: {name!r} is not one of {', '.join(self.datasets)}{hint(name, self.datasets)}"
            )
        return self.datasets[name]

    def run(self, name: str) -> Run:
        """An entry of `runs`; ValueError with the known ones where there is none."""
        if name not in self.runs:
            raise ValueError(
                f"params.yaml: runs.{name}: missing; its runs are {', '.join(self.runs)}{hint(name, self.runs)}"
            )
        return self.runs[name]

    @model_validator(mode="after")
    def names_stand_in_the_runs(self) -> "Params":
        """`shared` names no architecture and no likelihood: the templates of dvc.yaml read those of the run itself."""
        for section, values in self.shared.items():
            if "name" in values:
                raise ValueError(f"shared.{section}.name: write it in each run, where dvc.yaml reads it")
        return self

    @model_validator(mode="after")
    def names_are_known(self) -> "Params":
        """A run's data set is an entry of one of three headings; those of `embeddings` are of the other two."""
        named = [(f"embeddings.{key}", made.dataset, self.prepared) for key, made in self.embeddings.items()]
        named += [(f"runs.{key}", run.dataset, [*self.prepared, *self.embeddings]) for key, run in self.runs.items()]
        for key, name, known in named:
            if name not in known:
                raise ValueError(f"{key}.dataset: {quoted(name)} is not one of datasets: {', '.join(known)}")
        for key, run in self.runs.items():
            if run.model.given is Given.EMBEDDING and run.dataset not in self.embeddings:
                raise ValueError(
                    f"runs.{key}.model.condition: {quoted(run.model.condition)} needs embeddings, but {run.dataset} "
                    "has none; its dataset is an entry of `embeddings`"
                )
        for heading, names, others in (
            ("images", self.images, [*self.datasets]),
            ("embeddings", self.embeddings, self.prepared),
        ):
            for name in names:
                if name in others:
                    raise ValueError(
                        f"{heading}.{name}: the name of a data set; it makes one of its own, so it needs its own name"
                    )
        return self


def load(path: Path) -> Params:
    """The checked content of params.yaml.

    Raises ValueError with a line for each unknown, missing or mistyped key: its full path, what is there and what
    was expected.
    """
    return parse(read_yaml(path), str(path))


def parse(content: Any, where: str) -> Params:
    """The checked content of a params.yaml that has been read from `where`. Raises ValueError as `load`."""
    return check(Params, _complete(content), where, lambda faults: _as_written(faults, content))


def _complete(content: Any) -> Any:
    """`content` in which each run has what it takes over from `shared`; what is no mapping is left to the schema."""
    if not isinstance(content, dict):
        return content
    shared, runs = content.get("shared"), content.get("runs")
    if not isinstance(shared, dict) or not isinstance(runs, dict):
        return content
    return content | {"runs": {name: _taking_over(shared, run) for name, run in runs.items()}}


def _taking_over(shared: dict[str, Any], run: Any) -> Any:
    """A run whose sections have what `shared` says beside what it says itself. A section that it lacks stays missing:
    dvc.yaml reads each section of the run, so it has to be there, if only as {}.
    """
    if not isinstance(run, dict):
        return run
    return {section: _overlay(shared.get(section), value) for section, value in run.items()}


def _overlay(base: Any, top: Any) -> Any:
    """`top` over `base`, mapping by mapping; one of another `name` has other keys, so it takes nothing over."""
    if not isinstance(base, dict) or not isinstance(top, dict):
        return top
    if "name" in base and "name" in top and base["name"] != top["name"]:
        return top
    return base | {key: _overlay(base.get(key), value) for key, value in top.items()}


def _as_written(faults: list[str], content: Any) -> list[str]:
    """The faults of complete runs, where they stand in the file: one of `shared` is one fault, not one of each run.

    A key that no run has is one fault too: it is missing under `shared`.
    """
    found: dict[str, list[str]] = {}  # the runs' faults by the fault that explains them
    for fault in faults:
        found.setdefault(_in_shared(fault, content) or fault, []).append(fault)
    written = []
    for fault, of_runs in found.items():
        if fault in of_runs or len(of_runs) == len(content["runs"]) > 1:
            written.append(fault)
        elif fault.endswith(": missing"):
            written += of_runs
        else:
            written.append(f"{fault} (in {', '.join('.'.join(each.split('.')[:2]) for each in of_runs)})")
    return written


def _in_shared(fault: str, content: Any) -> str | None:
    """A run's fault as one of `shared`, if the run has the value from there or lacks it as `shared` does."""
    key, _, what = fault.partition(": ")
    match key.split("."):
        case ["runs", run, section, first, *rest]:
            shared, own = _mapping(content, "shared", section), _mapping(content, "runs", run, section)
            if shared and first not in own and (first in shared or what == "missing"):
                return f"{'.'.join(['shared', section, first, *rest])}: {what}"
    return None


def _mapping(content: Any, *keys: str) -> dict[str, Any]:
    """The mapping under these keys; {} where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
