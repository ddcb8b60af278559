"""What every section of params.yaml is made of: the base class, shared types, and errors that name the key.

Sections are frozen, strict and without defaults: a default here would be a value that DVC cannot see change, so every
value is in params.yaml. No torch here, so that a command that only reads params.yaml starts at once.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pixelcnn.files import ACTING, LONGEST, excerpt, read_bytes
from pixelcnn.spelling import hint

T = TypeVar("T", bound=BaseModel)

# What had another name in an earlier release, for the message to users of the old one
RENAMED = {
    "pixelcnn++": "pixelcnnpp",
    "imagenet32-vdo2016": "imagenet32_vdo2016",
    "imagenet64-vdo2016": "imagenet64_vdo2016",
    "imagenet32-box2017": "imagenet32_box2017",
    "imagenet64-box2017": "imagenet64_box2017",
}
# Keys of an earlier release's params.yaml that stand elsewhere now
MOVED = {"evaluate.samples_per_class": "sample.per_class", "evaluate.temperature": "sample.temperature"}
COLDEST, HOTTEST = 0.001, 1000.0  # beyond these, a temperature makes no difference to a draw any more
MAX_YAML = 2**20  # bytes of a file
DEEPEST = 30  # levels of nesting
DEEPER = {"SequenceStartEvent": 1, "MappingStartEvent": 1, "SequenceEndEvent": -1, "MappingEndEvent": -1}
MAX_WEIGHTS = 2**31  # of a network
LONGEST_CLASS = 100  # characters of a class's name
MAX_DIMS = 2**16  # of an embedding
MOST_FAULTS = 100  # that are reported of a file
_REPR = Repr()  # of values in messages: a few lines of YAML with aliases may stand for gigabytes
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 2 * LONGEST
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 3, 8, 8, 8


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("is not an odd number")  # a masked kernel has a centre
    return size


def _odd_and_at_least_3(size: int) -> int:
    if size % 2 == 0 or size < 3:
        raise ValueError("is not an odd number of at least 3")  # mask A excludes the centre
    return size


def check_class_name(name: str) -> str:
    """Raise ValueError for the name of a class that cannot be printed: files and models from elsewhere hold some."""
    if len(name) > LONGEST_CLASS or ACTING.search(name) or not name.strip():
        raise ValueError(f"is not the name of a class: printable, at most {LONGEST_CLASS} characters")
    return name


ClassName = Annotated[str, AfterValidator(check_class_name)]
NAME = r"^[a-z0-9][a-z0-9-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=60)]  # of stages, folders and models
Side = Annotated[int, Field(ge=1, le=4096, strict=True)]
Shape = tuple[Annotated[int, Field(ge=1, le=16, strict=True)], Side, Side]  # of images: channels, rows, columns
Levels = Annotated[int, Field(ge=2, le=256, strict=True)]  # of a sub-pixel, a byte
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dims = Annotated[int, Field(ge=1, le=MAX_DIMS)]  # of an embedding
Batch = Annotated[int, Field(gt=0, le=2**16)]  # images at a time
Count = Annotated[int, Field(gt=0, le=10**9)]
# Sizes of networks, far beyond what anybody trains: a file of a few bytes must not ask for all memory there is
Layers = Annotated[int, Field(gt=0, le=1000)]
Channels = Annotated[int, Field(gt=0, le=2**14)]
Width = Annotated[int, Field(gt=0, lt=128)]  # of a kernel
NUM_SEEDS = 2**31
Seed = Annotated[int, Field(ge=0, lt=NUM_SEEDS)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Temperature = Annotated[float, Field(ge=COLDEST, le=HOTTEST)]  # of samples
Positive = Annotated[float, Field(gt=0)]
Kernel = Annotated[Width, AfterValidator(_odd)]
FirstKernel = Annotated[Width, AfterValidator(_odd_and_at_least_3)]  # of a convolution with mask A

# Of a model: "-map" makes the vector a location-dependent map (arXiv:1606.05328, equation 5), else it is a bias (eq. 4)
Condition = Literal["none", "label", "label-map", "embedding", "embedding-map"]


class Given(StrEnum):
    """What a model is conditioned on besides the pixels that precede: the one object that other modules ask.

    comparable: whether its NLL may stand beside likelihoods p(x). A label holds a few bits of an image; an embedding or
    a code may hold much of it. task: the end of a registered model's name; versions of one name answer one question.
    """

    comparable: bool
    task: str

    def __new__(cls, value: str, comparable: bool, task: str) -> "Given":
        member = str.__new__(cls, value)
        member._value_ = value
        member.comparable, member.task = comparable, task
        return member

    NONE = "none", True, ""
    LABEL = "label", True, "-class-conditional"
    EMBEDDING = "embedding", False, "-embedding-conditional"
    CODE = "code", False, "-autoencoder"


class Section(BaseModel):
    """A mapping of params.yaml: all keys present, none unknown, no value coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Architecture(Section):
    """The `model` section of a run; each folder of pixelcnn.architectures defines its own.

    whole_pixels: the outputs at a pixel describe its channels jointly, which is the likelihood's affair; otherwise the
    network orders the channels itself and describes each sub-pixel. only_likelihood: the one it goes with, if so.
    """

    whole_pixels: ClassVar[bool] = False
    only_likelihood: ClassVar[str | None] = None

    name: str
    condition: str

    @property
    def fewest_weights(self) -> int:
        """A number of weights that the network has at least, from its sizes alone."""
        layers = getattr(self, "num_layers", getattr(self, "num_resnets", 1))
        return int(layers) * int(getattr(self, "hidden_channels", 1)) ** 2 // 4

    @model_validator(mode="after")
    def fits_a_machine(self) -> Self:
        """The sizes together ask for no more weights than a machine can hold."""
        if self.fewest_weights > MAX_WEIGHTS:
            raise ValueError(f"hidden_channels: with these layers at least {self.fewest_weights:,} weights, too many")
        return self

    @property
    def given(self) -> Given:
        """What the network is conditioned on, however that enters it."""
        return Given(self.condition.removesuffix("-map"))  # type: ignore[call-arg]  # a look-up by value

    @property
    def is_map(self) -> bool:
        """Whether the condition enters as a location-dependent map."""
        return self.condition.endswith("-map")

    @property
    def task(self) -> str:
        """The end of the registered model's name."""
        return self.given.task


class Likelihood(Section):
    """The `likelihood` section of a run; each folder of pixelcnn.likelihoods defines its own.

    joint: whether it can describe the channels of a pixel jointly, for networks of whole pixels.
    """

    joint: ClassVar[bool] = False

    name: str


def read_yaml(path: Path) -> Any:
    """What a YAML 1.2 file holds, as plain Python objects: DVC's own dialect, in which 1e-3 is a number.

    Raises ValueError for a file that is not YAML, or nests deeper than any params.yaml does.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = read_bytes(path, MAX_YAML)
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(content):  # builds nothing
            depth += DEEPER.get(type(event).__name__, 0)
            if depth > DEEPEST:
                raise ValueError(f"{path}: line {event.start_mark.line + 1}: nests deeper than {DEEPEST} levels")
        return YAML(typ="safe", pure=True).load(content)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run this in the folder of params.yaml") from None
    except (YAMLError, ValueError, OverflowError) as error:  # ValueError also of a date such as 2024-13-45
        text = str(error)
        raise ValueError(text if text.startswith(f"{path}: ") else f"{path}: not YAML: {excerpt(text)}") from None


def check(
    schema: type[T], content: Any, where: str, as_written: Callable[[list[str]], list[str]] = lambda faults: faults
) -> T:
    """`content` as a `schema`. Raises ValueError with a line per fault: the key's path, the value, what is right.

    as_written: from faults "KEY: what is wrong" to those that are reported, where `content` is not the file's.
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        faults = [_fault(_path(e["loc"], content), e["msg"], e["type"], e["input"]) for e in error.errors()]
        raise ValueError("\n".join(f"{where}: {fault}" for fault in as_written(faults[:MOST_FAULTS]))) from None


def quoted(value: Any) -> str:
    """A value as an error message repeats it, cut."""
    text = ACTING.sub(" ", _REPR.repr(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _path(loc: tuple[int | str, ...], content: Any) -> str:
    """A key's path as written in the file: without the tags of unions, which pydantic puts after their key."""
    parts = []
    for part in loc:
        is_mapping = isinstance(content, dict)
        is_tag = is_mapping and part not in content and part in (content.get("name"), content.get("source"))
        if part == "[key]" or is_tag:
            continue
        parts.append(str(part))
        content = content[part] if is_mapping and part in content else None
    return ".".join(parts)


def _fault(key: str, message: str, kind: str, given: Any) -> str:
    message = message.removeprefix("Value error, ")
    tag = "source" if "'source'" in message else "name"  # which pydantic names in its own message
    match kind:
        case "missing":
            return f"{key}: missing"
        case "extra_forbidden" if key in MOVED:
            return f"{key}: is {MOVED[key]} now"
        case "extra_forbidden":
            return f"{key}: unknown key (value {quoted(given)}); is it misspelt?"
        case "union_tag_not_found":
            return f"{key}.{tag}: missing"
        case "union_tag_invalid":
            return f"{key}.{tag}: {not_one_of(given[tag], message.rpartition(': ')[2])}"
        case "value_error" if message.startswith(("is ", "has ")):
            return f"{key}: {quoted(given)} {message}"
        case "value_error":
            return f"{key}.{message}" if key else message
    return f"{key}: {quoted(given)} is refused: {message[0].lower()}{message[1:]}"


def not_one_of(given: Any, known: str) -> str:
    """That a name is unknown, with the known ones or with what it is called now."""
    if isinstance(given, str) and given in RENAMED:
        return f"{given!r} is called {RENAMED[given]!r} now"
    names = re.findall(r"[\w-]+", known)
    return f"{quoted(given)} is not one of {known}{hint(given, names) if isinstance(given, str) else ''}"
