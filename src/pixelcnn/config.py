"""The schema of params.yaml: frozen, strict and without defaults.

A default here would be a value that DVC cannot see change, so every value stands in params.yaml, once. What a stage
reads is the part of params.yaml that dvc.yaml names under its `params`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]  # of stages, folders, models
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
T = TypeVar("T", bound=BaseModel)


def _odd(size: int) -> int:
    """A masked kernel has a centre."""
    if size % 2 == 0:
        raise ValueError("is not an odd number")
    return size


def _odd_and_wider_than_a_pixel(size: int) -> int:
    """A first kernel sees no pixel but those beside its centre."""
    if size % 2 == 0 or size < 3:
        raise ValueError("is not an odd number of at least 3")
    return size


Kernel = Annotated[Count, AfterValidator(_odd)]
FirstKernel = Annotated[Count, AfterValidator(_odd_and_wider_than_a_pixel)]


class Section(BaseModel):
    """A mapping of params.yaml: all keys present, none unknown, no value coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Download(Section):
    """Where the publisher's archives of one data set come from (pixelcnn.data.sources lists the sources)."""

    source: Literal[
        "digits",
        "texture",
        "cifar10",
        "imagenet32-vdo2016",
        "imagenet64-vdo2016",
        "imagenet32-box2017",
        "imagenet64-box2017",
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


class Classifier(Section):
    """Embeddings from the top layer of a convolutional network trained on the data set's labels."""

    source: Literal["classifier"]
    dataset: Name  # whose images are embedded
    network: Literal["resnet18", "resnet34", "resnet50"]  # torchvision's
    dims: Count  # numbers of an embedding, the features that the classes are read from
    seed: Seed
    steps: Count
    batch_size: Annotated[int, Field(ge=2)]  # batch normalisation needs company
    learning_rate: Annotated[float, Field(gt=0)]


class EmbeddingsFile(Section):
    """Embeddings that the user brings: a Parquet file with the columns split, image (its row there) and embedding."""

    source: Literal["file"]
    dataset: Name
    path: str = Field(min_length=1)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # by which DVC sees that the file has changed


Embeddings = Annotated[Classifier | EmbeddingsFile, Field(discriminator="source")]


# A "-map" is location-dependent: the vector becomes a map as large as the image (equation 5), else a bias (equation 4)
Condition = Literal["none", "label", "label-map", "embedding", "embedding-map"]


class GatedPixelCNN(Section):
    """Gated PixelCNN (arXiv:1606.05328, section 2); sizes that the paper does not give are the user's."""

    name: Literal["gated_pixelcnn"]
    condition: Condition
    num_layers: Count
    hidden_channels: Count  # p of figure 2; a multiple of the data's channels
    kernel_size: Kernel
    first_kernel_size: FirstKernel
    head_channels: Count
    dropout: Fraction


class PixelCNN(Section):
    """PixelCNN (arXiv:1601.06759, section 3.5): residual blocks of masked convolutions, with its blind spot."""

    name: Literal["pixelcnn"]
    condition: Literal["none"]
    num_layers: Count  # residual blocks after the first convolution
    hidden_channels: Count  # h of figure 5
    kernel_size: FirstKernel
    first_kernel_size: FirstKernel
    head_channels: Count


class RowLSTM(Section):
    """PixelRNN of Row LSTM layers (arXiv:1601.06759, section 3.1)."""

    name: Literal["row_lstm"]
    condition: Literal["none"]
    num_layers: Count
    hidden_channels: Count
    kernel_size: Kernel
    first_kernel_size: FirstKernel
    head_channels: Count


class DiagonalBiLSTM(Section):
    """PixelRNN of Diagonal BiLSTM layers (arXiv:1601.06759, section 3.2)."""

    name: Literal["diagonal_bilstm"]
    condition: Literal["none"]
    num_layers: Count
    hidden_channels: Count
    first_kernel_size: FirstKernel
    head_channels: Count


class PixelCNNPlusPlus(Section):
    """PixelCNN++ (arXiv:1701.05517): whole pixels, and a mixture of discretised logistics."""

    name: Literal["pixelcnn++"]
    condition: Condition
    hidden_channels: Count
    num_resnets: Count  # per resolution and pass
    num_resolutions: Annotated[int, Field(ge=1, le=3)]
    num_mixtures: Count
    dropout: Fraction


class PixelCNNAutoencoder(Section):
    """PixelCNN auto-encoder (arXiv:1606.05328, section 2.4): a code of so many numbers, decoded by a Gated PixelCNN."""

    name: Literal["pixelcnn_autoencoder"]
    condition: Literal["code-map"]
    code: Count
    encoder_channels: Count
    num_layers: Count
    hidden_channels: Count
    kernel_size: Kernel
    first_kernel_size: FirstKernel
    head_channels: Count
    dropout: Fraction


class SquaredErrorAutoencoder(Section):
    """A convolutional auto-encoder under a squared error: what the PixelCNN auto-encoder is compared with."""

    name: Literal["squared_error_autoencoder"]
    condition: Literal["code-map"]
    code: Count
    encoder_channels: Count
    hidden_channels: Count  # of the deconvolutional decoder


Architecture = (
    GatedPixelCNN
    | PixelCNN
    | RowLSTM
    | DiagonalBiLSTM
    | PixelCNNPlusPlus
    | PixelCNNAutoencoder
    | SquaredErrorAutoencoder
)
Model = Annotated[Architecture, Field(discriminator="name")]
ARCHITECTURES = [get_args(section.model_fields["name"].annotation)[0] for section in get_args(Architecture)]


def given(condition: str) -> str:
    """What a `condition` gives the network, however it does: "none", "label", "embedding" or "code"."""
    return condition.removesuffix("-map")


def task(model: dict[str, Any]) -> str:
    """The end of a registered model's name: what a `model` section models, given what. One name, comparable numbers."""
    match given(model["condition"]):
        case "none":
            return ""
        case "label":
            return "-class-conditional"
        case "embedding":
            return "-embedding-conditional"
        case "code":
            return f"-autoencoder-{model['code']}"
    raise AssertionError(model["condition"])


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
    optimizer: Literal["adamw", "muon"]  # muon: of kernels; biases and gains by AdamW
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]  # of AdamW's averages; Muon's is the first
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
    """How often a training speaks and saves, and how many share it: no weight depends on it but by rounding and by what
    dropout draws, so DVC does not watch it.
    """

    log_every: Count  # steps
    checkpoint_every: Annotated[float, Field(gt=0)]  # seconds
    pictures_every: Count  # steps between the sample grids in MLflow, of models that sample incrementally
    processes: Count  # of this machine, started by torchrun; a GPU each, where there are GPUs


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
    baseline: Baseline
    promotion: Promotion

    def images_of(self, dataset: str) -> str:
        """The entry of `datasets` whose images a data set has: itself, or what an entry of `embeddings` embeds."""
        return self.embeddings[dataset].dataset if dataset in self.embeddings else dataset

    @model_validator(mode="after")
    def names_are_known(self) -> "Params":
        """A run's data set is an entry of `datasets` or `embeddings`; those of `embeddings` are of `datasets`."""
        named = [
            (f"embeddings.{key}", embeddings.dataset, [*self.datasets]) for key, embeddings in self.embeddings.items()
        ]
        named += [(f"runs.{key}", run.dataset, [*self.datasets, *self.embeddings]) for key, run in self.runs.items()]
        for key, name, known in named:
            if name not in known:
                raise ValueError(f"{key}.dataset: {name!r} is not one of datasets: {', '.join(known)}")
        for name in self.embeddings:
            if name in self.datasets:
                raise ValueError(
                    f"embeddings.{name}: the name of a data set; it makes one of its own, so needs its own"
                )
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


def _discriminator(message: str) -> str:
    """The key that tells the members of a union apart, which pydantic names in its own message."""
    return "source" if "'source'" in message else "name"


def _fault(loc: tuple[int | str, ...], message: str, kind: str, given: Any) -> str:
    # pydantic puts what tells the members of a union apart after their key, and "[key]" after a bad key of a mapping
    tagged = [n for n, part in enumerate(loc) if n and loc[n - 1] == "model" and part in ARCHITECTURES]
    tagged += [2] if loc[:1] == ("embeddings",) and len(loc) > 2 else []
    parts = [part for n, part in enumerate(loc) if part != "[key]" and n not in tagged]
    key = ".".join(str(part) for part in parts)
    message = message.removeprefix("Value error, ")
    match kind:
        case "missing":
            return f"{key}: missing"
        case "extra_forbidden":
            return f"{key}: unknown key (value {given!r}); is it misspelt?"
        case "union_tag_not_found":
            return f"{key}.{_discriminator(message)}: missing"
        case "union_tag_invalid":
            tag = _discriminator(message)
            return f"{key}.{tag}: {given[tag]!r} is not one of {message.rpartition(': ')[2]}"
        case "value_error" if message.startswith("is "):
            return f"{key}: {given!r} {message}"
        case "value_error":
            return f"{key}.{message}" if key else message
    return f"{key}: {given!r} is refused: {message[0].lower()}{message[1:]}"
