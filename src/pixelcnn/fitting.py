"""Train a model from Python: `pixelcnn.fit`. The training is that of the stage train, without its files and MLflow.

Shapes: N images, C channels, H rows, W columns.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pixelcnn
from pixelcnn import device as devices
from pixelcnn import model as inner
from pixelcnn import params
from pixelcnn.api import Model
from pixelcnn.config import check
from pixelcnn.data.class_names import unique
from pixelcnn.data.dataset import DatasetInfo, Split, SplitInfo, SplitName, fingerprint, image_hash
from pixelcnn.data.images import check_images, shape_of
from pixelcnn.data.layouts import MAX_CLASSES
from pixelcnn.data.writer import channel_statistics, uniform
from pixelcnn.params import Run
from pixelcnn.training import setup
from pixelcnn.training.distributed import World
from pixelcnn.training.loop import finite_mean
from pixelcnn.training.loop import train as steps_of
from pixelcnn.training.state import Training

SUITES = Path(pixelcnn.__file__).parent / "suites"
Point = dict[str, float]  # of the learning curve
Log = Callable[[Point], object]


def fit(
    images: Any,
    labels: Any = None,
    *,
    like: str | None = None,
    model: Mapping[str, Any] | None = None,
    likelihood: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    validation: Any = 0.1,
    name: str = "images",
    classes: Iterable[str] | None = None,
    levels: int = 256,
    initial: Model | None = None,
    device: torch.device | str | None = None,
    log: Log | None = None,
) -> Model:
    """Train a model and return it, with the weights that were best on the validation images.

    images: uint8, a tensor or array (N, C, H, W), (N, H, W, C) or (N, H, W), or a torch Dataset, a torchvision data set
    or a list, whose items are single images or pairs (image, label); images may be PIL's. All of one size.
    labels: whole numbers (N,) from 0, where they do not come with the images. classes: their names.
    like: SUITE/RUN, a run of a ready-made suite (`pixelcnn suite --list`), such as "demo/digits-gated", whose sections
    are taken over; model, likelihood, train: keys of these sections that differ, or without `like` the whole sections,
    with the keys that they have in params.yaml.
    validation: the fraction of the images that is held out, chosen by a hash of seed and pixels, or other images, as
    images are given or as (images, labels).
    name: of the data set, which the model is called by. levels: values of a sub-pixel are 0 ... levels-1.
    initial: a model whose weights the training starts from (pixelcnn.training.setup.start_from).
    device: a GPU by default, if there is one. log: called with a point of the learning curve at each validation, a
    dict of numbers; prints it by default.

    Raises ValueError for settings, images and labels that are not right, before any training; FloatingPointError where
    the training diverges. Draws no number from torch's global generators. The same arguments give the same weights, up
    to rounding.
    """
    run = check(Run, _sections(like, model, likelihood, train) | {"description": "", "dataset": name}, "fit")
    if run.train.initial is not None:
        raise ValueError("train.initial: give the model itself, as `initial`")
    if initial is not None and not isinstance(initial, Model):
        raise ValueError(f"initial: {initial!r:.50} is not a model; pixelcnn.load gives one")
    if not isinstance(levels, int) or not 2 <= levels <= 256:
        raise ValueError(f"levels: {levels!r:.50} is not a number of 2 ... 256")
    x, y, names = read(images, labels, levels, "images")
    names = unique(list(map(str, classes)), "classes") if classes is not None else names
    if y is not None and int(y.max()) >= len(names):
        raise ValueError(f"classes: {len(names)} names for labels of 0 ... {int(y.max())}")
    splits = _splits(Split(x, y), validation, levels, run.train.seed)
    info = _describe(splits, name, names if y is not None else (), levels)
    on = devices.named(device) if device is not None else devices.default()
    with torch.random.fork_rng([on] if on.type == "cuda" else []):
        fresh = setup.fresh_model(run, info, on, splits["train"])
        if initial is not None:
            setup.start_from(fresh, initial.inner)
        return _train(run, fresh, splits, log or _Printed(run.train.steps))


def _train(run: Run, fresh: inner.Model, splits: Mapping[SplitName, Split], log: Log) -> Model:
    training, losses, began = Training.begin(fresh, run.train), [], time.monotonic()
    conditions = fresh.conditions(splits["train"])
    for step in steps_of(training, splits["train"].images, conditions, splits["validation"], World(0, 1)):
        losses.append(step.loss)
        if step.validation is not None:
            rate = step.step * run.train.batch_size / (time.monotonic() - began)
            point = {"step": step.step, "train_bits_per_dim": finite_mean(losses, step.step)}
            log(point | {"validation_bits_per_dim": step.validation, "images_per_second": rate})
            losses.clear()
    best = training.ema
    assert training.best_weights is not None
    best.network.load_state_dict(training.best_weights)
    best.network.requires_grad_(True).eval()
    return Model(best)


class _Printed:
    """Prints the points of a learning curve."""

    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self, point: Point) -> None:
        print(
            f"step {point['step']} of {self.steps}: train {point['train_bits_per_dim']:.3f}, validation "
            f"{point['validation_bits_per_dim']:.3f} bits/dim, {point['images_per_second']:.0f} images/s",
            flush=True,
        )


def _sections(like: str | None, *changed: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The sections model, likelihood and train: those of a suite's run, with the keys that are given instead."""
    keys = ("model", "likelihood", "train")
    base = {key: {} for key in keys} if like is None else _run_of_suite(like).model_dump(include=set(keys))
    base["train"]["initial"] = None
    return {key: base[key] | dict(section or {}) for key, section in zip(keys, changed, strict=True)}


def _run_of_suite(like: str) -> Run:
    suite, _, name = like.partition("/")
    paths = {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}
    if suite not in paths:
        raise ValueError(f"like: {like!r} is not SUITE/RUN; the suites are {', '.join(paths)}")
    runs = params.load(paths[suite]).runs
    if name not in runs:
        raise ValueError(f"like: {like!r} is not SUITE/RUN; the runs of {suite} are {', '.join(runs)}")
    return runs[name]


def read(images: Any, labels: Any, levels: int, what: str) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Images (N, C, H, W) uint8, their labels (N,) int64 if they have any, and the names of the classes.

    Raises ValueError, which names the image or `what`, for images and labels that are not as `fit` takes them.
    """
    if isinstance(images, Tensor | np.ndarray):
        channels, *size = shape_of(images, single=False, name=what)
        x, own = check_images(images, channels, levels, (size[0], size[1]), what), None
    else:
        x, own = _read_items(images, levels, what)
    if own is not None and labels is not None:
        raise ValueError(f"labels: {what} come with labels of their own")
    y = _labels(own if labels is None else labels, len(x), what)
    known = getattr(images, "classes", None)  # torchvision's data sets name them
    return x, y, tuple(map(str, known if known is not None else range(0 if y is None else int(y.max()) + 1)))


def _read_items(dataset: Any, levels: int, what: str) -> tuple[Tensor, list[Any] | None]:
    """The images of a Dataset or another iterable of images or pairs (image, label), and the labels of pairs."""
    found: list[Tensor] = []
    labels: list[Any] = []
    shape: tuple[int, int, int] | None = None
    for n, item in enumerate(_items(dataset, what)):
        is_pair = isinstance(item, tuple | list) and len(item) == 2
        image = item[0] if isinstance(item, tuple | list) and len(item) in (1, 2) else item
        shape = shape or shape_of(image, single=True, name=f"{what}[{n}]")
        found.append(check_images(image, shape[0], levels, shape[1:], f"{what}[{n}]"))
        labels += [item[1]] if is_pair else []
    if not found:
        raise ValueError(f"{what}: holds no image")
    if labels and len(labels) != len(found):
        raise ValueError(f"{what}: {len(labels)} of {len(found)} images have a label")
    return torch.cat(found), labels or None


def _items(dataset: Any, what: str) -> Iterator[Any]:
    """The items of a Dataset, by number where it has a length, as torch's own loader reads it."""
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return (dataset[n] for n in range(len(dataset)))
    if isinstance(dataset, Iterable):
        return iter(dataset)
    raise ValueError(f"{what}: a {type(dataset).__name__} is no tensor, array, Dataset or list of images")


def _labels(labels: Any, num: int, what: str) -> Tensor | None:
    if labels is None:
        return None
    try:
        values = np.asarray(labels)
    except ValueError:  # lists of several lengths
        values = np.empty((0, 0))
    whole = f"whole numbers (N,) of 0 ... {MAX_CLASSES - 1}"
    if values.ndim != 1 or values.dtype.kind not in "iu" or not values.size:
        raise ValueError(f"labels: {values.dtype} {values.shape} is not {whole}")
    if len(values) != num:
        raise ValueError(f"labels: {len(values)} for {num} {what}")
    if wrong := [number for number in (int(values.min()), int(values.max())) if not 0 <= number < MAX_CLASSES]:
        raise ValueError(f"labels: {wrong[0]} is not one of {whole}")
    return torch.from_numpy(values.astype(np.int64))


def _splits(whole: Split, validation: Any, levels: int, seed: int) -> dict[SplitName, Split]:
    """The train and validation splits. Raises ValueError where one of them would be empty, or not like the other."""
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise ValueError(f"validation: {validation} is not a fraction between 0 and 1, nor images")
        held_out = torch.tensor([uniform(image.numpy().tobytes(), seed) < validation for image in whole.images])
        if not bool(held_out.any()) or bool(held_out.all()):
            raise ValueError(
                f"validation: {validation} of {len(held_out)} images leaves none for one of the two splits"
            )
        return {"train": whole.part(~held_out), "validation": whole.part(held_out)}
    is_pair = isinstance(validation, tuple) and len(validation) == 2
    images, labels = validation if is_pair else (validation, None)
    x, y, _ = read(images, labels, levels, "validation")
    if x.shape[1:] != whole.images.shape[1:]:
        raise ValueError(
            f"validation: images of {tuple(x.shape[1:])}, those to train on {tuple(whole.images.shape[1:])}"
        )
    if (y is None) != (whole.labels is None):
        raise ValueError("validation: has labels, or lacks them, other than the images to train on")
    return {"train": whole, "validation": Split(x, y)}


def _describe(splits: Mapping[SplitName, Split], name: str, classes: tuple[str, ...], levels: int) -> DatasetInfo:
    """The card of these images, which a model remembers parts of."""
    x = splits["train"].images
    counts = torch.stack([torch.bincount(x[:, c].flatten(), minlength=256) for c in range(x.shape[1])])  # (C, 256)
    means, deviations = channel_statistics(counts.numpy())
    infos: dict[SplitName, SplitInfo] = {}
    for split, part in splits.items():
        hashes = (image_hash(image.numpy().tobytes()) for image in part.images)
        infos[split] = SplitInfo(num_images=len(part.images), fingerprint=fingerprint(hashes), shards=())
    return DatasetInfo(
        dataset=name,
        source="python",
        title=name,
        shape=(x.shape[1], x.shape[2], x.shape[3]),
        levels=levels,
        classes=classes,
        splits=infos,
        channel_means=means,
        channel_deviations=deviations,
        comparable=False,
        comparable_reason="given from Python",
        licence="",
        citation="",
        homepage="",
    )
