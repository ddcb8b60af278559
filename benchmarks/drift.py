"""False alarms and power of the drift test (pixelcnn.evaluation.drift): of a model's images, and of changed ones.

    python benchmarks/drift.py score cifar10 data/prepared/cifar10 --other data/prepared/imagenet32 -o drift.parquet
    python benchmarks/drift.py test drift.parquet

`score` measures the NLLs of the first test images as they are, of changed versions of them, and of another data set,
under a bundled model, with the model's own test scores beside them. `test` draws nights of them at
random and prints two tables; it needs no model.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import conv2d, pad

import pixelcnn
from pixelcnn import pretrained
from pixelcnn.api import Model
from pixelcnn.data.dataset import read_split
from pixelcnn.evaluation.drift import ks_test
from pixelcnn.evaluation.spending import level
from pixelcnn.progress import progress
from pixelcnn.tracking.model_package import unpack

NIGHTS, SIZES, ALPHA = 30, (50, 200), 0.05
DRAWN = 50  # of the scored images, many times
REFERENCE = "test scores"  # the kind of the rows that a registry has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    score = commands.add_parser("score")
    score.add_argument("model", choices=list(pretrained.folders()))
    score.add_argument("data", type=Path, help="the model's prepared data set")
    score.add_argument("--other", type=Path, required=True, help="another one, with images of the same size")
    score.add_argument("--num", type=int, default=200, help="images of each kind (default: %(default)s)")
    score.add_argument("-o", "--out", type=Path, required=True)
    score.set_defaults(run=_score)
    test = commands.add_parser("test")
    test.add_argument("scores", type=Path, help="what `score` has written")
    test.add_argument("--repeats", type=int, default=1000, help="simulations of each number (default: %(default)s)")
    test.set_defaults(run=_test)
    args = parser.parse_args()
    args.run(args)


# Changed images, uint8 (N, C, H, W) of 256 levels


def blurred(x: Tensor) -> Tensor:
    """A Gaussian of one pixel's deviation."""
    weights = torch.exp(-(torch.arange(-3, 4) ** 2) / 2.0)
    kernel = (weights / weights.sum()).expand(x.shape[1], 1, 1, 7)
    wide = conv2d(pad(x.float(), (3, 3, 0, 0), "replicate"), kernel, groups=x.shape[1])
    return _rounded(conv2d(pad(wide, (0, 0, 3, 3), "replicate"), kernel.transpose(2, 3), groups=x.shape[1]))


def noisy(x: Tensor) -> Tensor:
    """Gaussian noise of two levels."""
    return _rounded(x + 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))


def _rounded(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "mirrored": lambda x: x.flip(3),  # as half of the images in training: no drift
    "upside down": lambda x: x.flip(2),
    "inverted": lambda x: 255 - x,
    "blurred": blurred,
    "noise": noisy,
    "half the contrast": lambda x: _rounded(x / 2 + 64),
}


def _score(args: argparse.Namespace) -> None:
    model, package = pixelcnn.load(args.model), unpack(pretrained.folders()[args.model])
    known = pd.read_parquet(package.nll)
    known = known[(known.split == "test") & (known.image >= args.num)]  # not those that are changed below
    tables = [pd.DataFrame({"kind": REFERENCE, "bits_per_dim": known.bits_per_dim})]
    images = read_split(args.data, "test").images[: args.num]
    for kind, change in KINDS.items():
        tables.append(_bits(model, kind, change(images)))
    tables.append(_bits(model, args.other.name, read_split(args.other, "test").images[: args.num]))
    pd.concat(tables).to_parquet(args.out, index=False)


def _bits(model: Model, kind: str, images: Tensor) -> pd.DataFrame:
    with progress(kind, len(images), "images") as bar:
        parts = []
        for part in images.split(50):
            parts.append(model.bits_per_dim(part))
            bar.update(len(part))
    return pd.DataFrame({"kind": kind, "bits_per_dim": torch.cat(parts).numpy()})


# What the scores say of the test

# p-values of new scores (M,) against those of the test images (N,), by the tests of Kolmogorov and Smirnov, which the
# project uses, of Cramer and von Mises, and of Welch (the means, and so typicality: arXiv:1906.02994)
WAYS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "KS": lambda new, of_test: ks_test(of_test, new, 1, ALPHA).p_value,
    "CvM": lambda new, of_test: float(stats.cramervonmises_2samp(new, of_test).pvalue),
    "Welch": lambda new, of_test: float(stats.ttest_ind(new, of_test, equal_var=False).pvalue),
}


def _test(args: argparse.Namespace) -> None:
    table = pd.read_parquet(args.scores)
    scores = {str(kind): rows.bits_per_dim.to_numpy() for kind, rows in table.groupby("kind", sort=False)}
    of_test = scores.pop(REFERENCE)
    rng = np.random.default_rng(0)
    print(f"Alarms within {NIGHTS} nights of images like the test images, alpha {ALPHA:g}, {args.repeats:,} times:\n")
    alarms = [_false_alarms(of_test, num, args.repeats, rng) for num in SIZES]
    print(tabulate(alarms, ["images a night", "spent over the nights", "the same level each night"], tablefmt="pipe"))
    num = len(scores["mirrored"])
    print(f"\nFound with {DRAWN} images on night 1 / on night {NIGHTS}, and p with all {num} that were scored:\n")
    headers = ["images", "bits/dim", *[f"{way}, {DRAWN}" for way in WAYS], *[f"{way}, p of {num}" for way in WAYS]]
    kinds = {"as the test images": of_test[:num]} | scores
    rows = [
        [kind, f"{new.mean():.3f}", *_found(of_test, new, args.repeats // 5, rng), *_p_of_all(of_test, new)]
        for kind, new in kinds.items()
    ]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))


def _false_alarms(scores: np.ndarray, num: int, repeats: int, rng: np.random.Generator) -> list[object]:
    """The share of repetitions with an alarm: nights of `num` test images each, against all the others."""
    spent = fixed = 0
    levels = np.array([level(k, ALPHA) for k in range(1, NIGHTS + 1)])
    for _ in range(repeats):
        mixed = rng.permutation(scores)
        nights, of_test = np.sort(mixed[: NIGHTS * num].reshape(NIGHTS, num)), np.sort(mixed[NIGHTS * num :])
        p = np.array([ks_test(of_test, new, 1, ALPHA).p_value if _far(of_test, new) else 1 for new in nights])
        spent += bool((p <= levels).any())
        fixed += bool((p <= ALPHA).any())
    return [num, f"{spent / repeats:.1%}", f"{fixed / repeats:.0%}"]


def _far(of_test: np.ndarray, new: np.ndarray) -> bool:
    """Whether sorted new scores (M,) may be an alarm at ALPHA: exact p-values take long, and most nights are near."""
    below = np.searchsorted(of_test, new) / len(of_test)
    steps = np.arange(len(new) + 1) / len(new)
    distance = max(np.abs(steps[1:] - below).max(), np.abs(steps[:-1] - below).max())
    effective = len(new) * len(of_test) / (len(new) + len(of_test))
    return bool(2 * np.exp(-2 * effective * distance**2) < 4 * ALPHA)


def _found(of_test: np.ndarray, scores: np.ndarray, repeats: int, rng: np.random.Generator) -> list[str]:
    """The share of draws of DRAWN images that are held for drift on the first and on the last night, by each way."""
    draws = [rng.choice(scores, DRAWN, replace=False) for _ in range(repeats)]
    p = {way: np.array([compare(new, of_test) for new in draws]) for way, compare in WAYS.items()}
    levels = [level(k, ALPHA) for k in (1, NIGHTS)]
    return [" / ".join(f"{(values <= level).mean():.0%}" for level in levels) for values in p.values()]


def _p_of_all(of_test: np.ndarray, scores: np.ndarray) -> list[str]:
    return [f"{compare(scores, of_test):.0e}" for compare in WAYS.values()]


if __name__ == "__main__":
    main()
