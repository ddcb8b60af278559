"""What the stages write for others to read, typed: a metric is one field here and one column of the tables.

Files are JSON under reports/STAGE/NAME.json. Readers accept files of earlier releases: a field that came later has a
default here, and unknown fields are ignored. No torch here.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelcnn import files

DIGITS = 4  # of the metrics' decimals


class Report(BaseModel):
    """A stage's report on one entry of params.yaml."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """The report in a file; ValueError with the file, what is wrong, and the remedy, such as "run `dvc repro`"."""
        content = files.read_json(path, f"{path}: no such file; {remedy}", remedy)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}: {key}: {first['msg']}; {remedy}") from None

    def write(self, path: Path) -> None:
        """Write the report, atomically; what is None is left out."""
        files.write_json(path, self.model_dump(exclude_none=True, by_alias=True))


class Score(BaseModel):
    """Mean NLL over a split's images in bits/dim, with the standard error of that mean."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    bits_per_dim: Annotated[float, Field(ge=0)]  # images are discrete: no probability is above 1
    standard_error: float | None = None  # of more than one image
    num_images: int


class EvaluateReport(Report):
    """reports/evaluate/RUN.scores.json: the scores by split."""

    test: Score
    validation: Score
    train: Score

    @property
    def scores(self) -> dict[str, Score]:
        """The scores by the names of the splits, test first."""
        return {"test": self.test, "validation": self.validation, "train": self.train}


class Trained(Report):
    """training.json in a model's folder: what its weights cost, the models that they started from included."""

    images_seen: int
    flops: float
    initial: "Initial | None" = None


class Initial(BaseModel):
    """The model that a training started from. images_seen, flops: what it had cost, where that is known."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    model: str
    weights_sha256: str
    images_seen: int | None = None
    flops: float | None = None


class Metrics(Report):
    """reports/evaluate/RUN.json: what DVC compares of runs, bits/dim under names that fit a terminal."""

    test: float
    error: Annotated[float | None, Field(serialization_alias="±")] = None  # standard error of `test`
    validation: float
    train: float

    @classmethod
    def of(cls, scores: EvaluateReport) -> Self:
        """The metrics of these scores, to the digits that a standard error leaves any meaning."""
        values = {split: round(score.bits_per_dim, DIGITS) for split, score in scores.scores.items()}
        error = scores.test.standard_error
        return cls(**values, error=None if error is None else round(error, DIGITS))


class TrainReport(Report):
    """reports/train/RUN.json: the finished training, its best weights, and what it took."""

    step: int  # of the best weights, by validation
    steps: int
    validation_bits_per_dim: float
    train_bits_per_dim: float
    num_parameters: int
    flops_per_image: float  # of a training step: three forward passes
    images_seen: int
    seconds: float
    images_per_second: float | None = None
    flops_per_second: float | None = None
    share_of_peak: float | None = None  # where the device's data sheet is known
    hardware: str
    exact: bool = True  # bits/dim are of the exact NLL, not of an upper bound
    initial: Initial | None = None
    finished: str | None = None  # ISO 8601, UTC; reports of earlier releases lack it and the next
    commit: str | None = None  # of git, with "+" where the code was not that of the commit

    @property
    def total_flops(self) -> float:
        """Floating point operations of the whole training, without those of the model that it started from."""
        return self.flops_per_image * self.images_seen

    @property
    def trained(self) -> Trained:
        """The sum of this training and what it started from; of the latter, what is known."""
        before = self.initial
        images, flops = (before.images_seen or 0, before.flops or 0) if before else (0, 0)
        return Trained(images_seen=self.images_seen + images, flops=self.total_flops + flops, initial=before)


class RegisterReport(Report):
    """reports/register/RUN.json: the version of a registered model, and the decision about its alias.

    Not registered: why, under `reason`, and no version.
    """

    registered: bool = True
    name: str
    version: int | None = None
    aliases: list[str] = []
    weights_sha256: str
    uri: str = ""
    decision: str = ""
    reason: str
    compared_with: int | None = None


class Measured(BaseModel):
    """A baseline's scores on the test split and, where it was fitted, the train split."""

    model_config = ConfigDict(frozen=True)

    test: Score
    train: Score | None = None
    num_parameters: int = 0


class BaselineReport(Report):
    """reports/baseline/DATASET.json: what needs no network."""

    uniform: Measured
    gaussian: Measured
    truth: Measured | None = None  # of the distribution that the images are drawn from, where that is known
