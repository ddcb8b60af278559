"""The schema of params.yaml: the union of all sections. A stage reads what dvc.yaml names under its `params`."""

from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from pixelcnn import architectures, likelihoods
from pixelcnn.config import (
    Architecture,
    Count,
    Fraction,
    Likelihood,
    Name,
    Positive,
    Section,
    Seed,
    check,
    quoted,
    read_yaml,
)
from pixelcnn.data.config import Dataset, Embeddings

if TYPE_CHECKING:
    AnyArchitecture: TypeAlias = Architecture
    AnyLikelihood: TypeAlias = Likelihood
else:  # the union of what the folders define, told apart by `name`
    AnyArchitecture = Annotated[reduce(or_, architectures.sections()), Field(discriminator="name")]
    AnyLikelihood = Annotated[reduce(or_, likelihoods.sections()), Field(discriminator="name")]


class Train(Section):
    """One run's training: whatever changes the weights."""

    seed: Seed
    steps: Count
    batch_size: Count
    learning_rate: Positive  # peak; linear warm-up, then a cosine to zero at `steps`
    warmup_steps: Annotated[int, Field(ge=0)]
    optimizer: Literal["adamw", "muon"]  # muon: for kernels; biases and gains by AdamW
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]  # of AdamW; Muon's momentum is the first
    weight_decay: Annotated[float, Field(ge=0)]  # of kernels, not of biases
    gradient_clip: Positive  # global norm
    ema_decay: Fraction
    flips: bool  # mirror each training image left to right with probability 1/2
    precision: Literal["float32", "bfloat16"]  # bfloat16 by autocast, where the hardware has it
    validate_every: Count  # steps

    @model_validator(mode="after")
    def warmup_ends(self) -> "Train":
        """The warm-up is part of the budget."""
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} is not less than steps: {self.steps}")
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
                f"likelihood.name: {likelihood.name!r} does not go with model.name: {model.name!r}, whose outputs are "
                f"those of {model.only_likelihood!r}"
            )
        if model.whole_pixels and not likelihood.joint:
            raise ValueError(
                f"likelihood.name: {likelihood.name!r} does not go with model.name: {model.name!r}, whose outputs "
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
    processes: Count  # on this machine, started by torchrun; a GPU each, where there are GPUs


class Evaluate(Section):
    """What evaluation measures beside the whole test split."""

    batch_size: Count
    num_train_images: Count  # for the papers' "test (train)"
    seed: Seed  # of the choice of these images


class Sample(Section):
    """The sample grids of finished models, and those drawn during a training."""

    per_class: Count  # columns of the grid; a row per class, or as many rows as columns
    seed: Seed
    temperature: Positive


class Baseline(Section):
    """The multivariate Gaussian is fitted to at most this many training images."""

    max_train_images: Count


class Promotion(Section):
    """When a new version of a registered model replaces its champion: the whole interval of its gain is above this."""

    min_gain: Annotated[float, Field(ge=0)]  # bits/dim, on the same test images
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the two-sided interval of the mean gain


class Params(Section):
    """The whole of params.yaml."""

    datasets: dict[Name, Dataset]
    embeddings: dict[Name, Embeddings]  # each a data set too: the images of another, with an embedding each
    runs: dict[Name, Run]
    train: TrainProcess
    evaluate: Evaluate
    sample: Sample
    baseline: Baseline
    promotion: Promotion

    def images_of(self, dataset: str) -> str:
        """The entry of `datasets` whose images a data set has: itself, or what an entry of `embeddings` embeds."""
        return self.embeddings[dataset].dataset if dataset in self.embeddings else dataset

    def dataset(self, name: str) -> Dataset:
        """An entry of `datasets`; ValueError with the known ones where there is none."""
        if name not in self.datasets:
            raise ValueError(f"params.yaml: datasets: {name!r} is not one of {', '.join(self.datasets)}")
        return self.datasets[name]

    def run(self, name: str) -> Run:
        """An entry of `runs`; ValueError with the known ones where there is none."""
        if name not in self.runs:
            raise ValueError(f"params.yaml: runs.{name}: missing; its runs are {', '.join(self.runs)}")
        return self.runs[name]

    @model_validator(mode="after")
    def names_are_known(self) -> "Params":
        """A run's data set is an entry of `datasets` or `embeddings`; those of `embeddings` are of `datasets`."""
        named = [
            (f"embeddings.{key}", embeddings.dataset, [*self.datasets]) for key, embeddings in self.embeddings.items()
        ]
        named += [(f"runs.{key}", run.dataset, [*self.datasets, *self.embeddings]) for key, run in self.runs.items()]
        for key, name, known in named:
            if name not in known:
                raise ValueError(f"{key}.dataset: {quoted(name)} is not one of datasets: {', '.join(known)}")
        for name in self.embeddings:
            if name in self.datasets:
                raise ValueError(
                    f"embeddings.{name}: the name of a data set; it makes one of its own, so it needs its own name"
                )
        return self


def load(path: Path) -> Params:
    """The checked content of params.yaml.

    Raises ValueError with a line for each unknown, missing or mistyped key: its full path, what stands there and what
    was expected.
    """
    return check(Params, read_yaml(path), str(path))
