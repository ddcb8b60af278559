"""The schema of params.yaml: frozen, strict and without defaults.

A default here would be a value that DVC cannot see change, so every value stands in params.yaml, once. What a stage
reads is the part of params.yaml that dvc.yaml names under its `params`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]  # of stages, folders, models
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
T = TypeVar("T", bound=BaseModel)


class Section(BaseModel):
    """A mapping of params.yaml: all keys present, none unknown, no value coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Download(Section):
    """Where the publisher's archives of one data set come from (pixelcnn.data.sources lists the sources)."""

    source: Literal[
        "digits", "cifar10", "imagenet32-vdo2016", "imagenet64-vdo2016", "imagenet32-box2017", "imagenet64-box2017"
    ]
    origin: str = Field(min_length=1)  # "publisher", the URL of a folder that holds the files, or a local folder
    verify: Literal["publisher", "any"]  # the publisher's sha256 and counts, or whatever lies there


class Preprocess(Section):
    """How a data set's images become Parquet shards and splits."""

    validation_fraction: Fraction  # of the training images, chosen by a hash of seed and pixels
    seed: Seed
    images_per_shard: Count


class Dataset(Section):
    """One prepared data set: the stages download@NAME, preprocess@NAME and baseline@NAME."""

    download: Download
    preprocess: Preprocess


class GatedPixelCNN(Section):
    """Gated PixelCNN (arXiv:1606.05328, section 2); sizes that the paper does not give are the user's."""

    name: Literal["gated_pixelcnn"]
    condition: Literal["none", "label"]
    num_layers: Count
    hidden_channels: Count  # p of figure 2; a multiple of the data's channels
    kernel_size: Count
    first_kernel_size: Count
    head_channels: Count
    dropout: Fraction

    @model_validator(mode="after")
    def kernels_are_odd(self) -> "GatedPixelCNN":
        """A masked kernel has a centre, so its size is odd; the first one needs a pixel beside the centre."""
        for key in ("kernel_size", "first_kernel_size"):
            size = getattr(self, key)
            if size % 2 == 0 or (size < 3 and key == "first_kernel_size"):
                raise ValueError(f"{key}: {size} is not an odd number" + (" of at least 3" if "first" in key else ""))
        return self


Model = GatedPixelCNN  # the next architecture makes this Annotated[A | B, Field(discriminator="name")]


class ModelFile(Section):
    """The `model` part of a saved model's config.json."""

    model: Model


class Train(Section):
    """One run's training: whatever changes the weights."""

    seed: Seed
    steps: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]  # peak; linear warm-up, then a cosine to zero at `steps`
    warmup_steps: Annotated[int, Field(ge=0)]
    adam_betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    weight_decay: Annotated[float, Field(ge=0)]  # of kernels, not of biases
    gradient_clip: Annotated[float, Field(gt=0)]  # global norm
    ema_decay: Fraction
    flips: bool  # mirror every other training image, left to right
    precision: Literal["float32", "bfloat16"]  # bfloat16 by autocast, where the hardware has it
    validate_every: Count  # steps

    @model_validator(mode="after")
    def warmup_ends(self) -> "Train":
        """The warm-up is part of the budget."""
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} is not less than steps: {self.steps}")
        return self


class Run(Section):
    """One experiment: the stages train@NAME, evaluate@NAME and register@NAME."""

    description: str
    dataset: Name
    model: Model
    train: Train


class TrainProcess(Section):
    """How often a training speaks and saves: no weight depends on it, so DVC does not watch it."""

    log_every: Count  # steps
    checkpoint_every: Annotated[float, Field(gt=0)]  # seconds


class Evaluate(Section):
    """What evaluation measures beside the whole test split."""

    batch_size: Count
    num_train_images: Count  # for the paper's "test (train)"
    samples_per_class: Count  # columns of the sample grid; a row per class, or as many rows as columns
    seed: Seed
    temperature: Annotated[float, Field(gt=0)]


class Baseline(Section):
    """The multivariate Gaussian is fitted to at most this many training images."""

    max_train_images: Count


class Params(Section):
    """The whole of params.yaml."""

    datasets: dict[Name, Dataset]
    runs: dict[Name, Run]
    train: TrainProcess
    evaluate: Evaluate
    baseline: Baseline

    @model_validator(mode="after")
    def runs_name_known_datasets(self) -> "Params":
        """A run's data set is an entry of `datasets`."""
        for name, run in self.runs.items():
            if run.dataset not in self.datasets:
                known = ", ".join(self.datasets)
                raise ValueError(f"runs.{name}.dataset: {run.dataset!r} is not one of datasets: {known}")
        return self


def read_yaml(path: Path) -> Any:
    """What a YAML 1.2 file holds, as plain Python objects. The only reader of YAML here, and DVC's own dialect."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; stages run where params.yaml lies") from None
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def load(path: Path) -> Params:
    """The checked content of params.yaml.

    Raises ValueError with a line for each unknown, missing or mistyped key: its full path, what stands there and what
    was expected.
    """
    return check(Params, read_yaml(path), str(path))


def check(schema: type[T], content: Any, where: str) -> T:
    """`content` as a `schema`, or a ValueError with a line per fault that begins with `where`."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        faults = [_fault(e["loc"], e["msg"], e["type"], e["input"]) for e in error.errors()]
        raise ValueError("\n".join(f"{where}: {fault}" for fault in faults)) from None


def _fault(loc: tuple[int | str, ...], message: str, kind: str, given: Any) -> str:
    key = ".".join(str(part) for part in loc if part != "[key]")
    if kind == "missing":
        return f"{key}: missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown key (value {given!r}); is it misspelt?"
    message = message.removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}.{message}" if key else message
    return f"{key}: {given!r} is refused: {message[0].lower()}{message[1:]}"
