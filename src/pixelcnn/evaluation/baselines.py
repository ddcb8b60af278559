"""Baselines without a network: the uniform distribution and the multivariate Gaussian, exact and deterministic.

Both are in the published tables (van den Oord et al. 2016, arXiv:1601.06759, table 5). Where the distribution that the
images are drawn from is known, its own NLL is measured as well: no model can be better.

A density is compared with models of integers by adding uniform noise to the integers (Theis et al. 2016,
arXiv:1511.01844, section 3.1): for x in {0..levels-1}^D and u ~ U[0, 1)^D,

    -log P(x)  <=  E_u[-log p(x + u)],

so the right-hand side, which is reported, is an upper bound on the length of a lossless code built on p. No noise is
drawn here: for a Gaussian the expectation has a closed form.

Shapes: N images, C channels, H rows, W columns, D = C H W. Images are uint8 (N, C, H, W); results are float64 nats.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelcnn.evaluation.scores import score
from pixelcnn.progress import progress
from pixelcnn.schemas import BaselineReport, Measured, Score

NOISE_MEAN = 1 / 2  # of u ~ U[0, 1)
NOISE_VARIANCE = 1 / 12
IMAGES_PER_CHUNK = 1000  # images converted to float64 at a time; results do not depend on it

TrueNLL = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]  # images (N, C, H, W) -> nats (N,)
OnChunk = Callable[[int], object]


def measure(train: Tensor, test: Tensor, levels: int, true_nll: TrueNLL | None = None) -> BaselineReport:
    """Bits per dimension of the baselines on uint8 images (N, C, H, W); the Gaussian is fitted to all of `train`.

    true_nll: of the distribution that the images are drawn from, where it is known.
    """
    uniform = Score(bits_per_dim=uniform_bits_per_dim(levels), standard_error=0.0, num_images=len(test))
    dims = train[0].numel()
    with progress("Gaussian, fit", len(train), "images") as bar:
        gaussian = fit_gaussian(train, on_chunk=bar.update)
    with progress("Gaussian, NLL of test and train", len(test) + len(train), "images") as bar:
        of_test, of_train = (score(gaussian_nll(gaussian, x, on_chunk=bar.update), dims) for x in (test, train))
    return BaselineReport(
        uniform=Measured(test=uniform),
        gaussian=Measured(test=of_test, train=of_train, num_parameters=num_gaussian_parameters(dims)),
        truth=None if true_nll is None else Measured(test=score(torch.from_numpy(true_nll(test.numpy())), dims)),
    )


def spread(total: int, limit: int) -> Tensor:
    """Indices of at most `limit` of `total` images, evenly spaced, since publishers may sort what they publish."""
    count = min(limit, total)
    return torch.arange(count) * total // count


@dataclass(frozen=True)
class Gaussian:
    """N(mean, L Lᵀ), the distribution of x + u: `mean` (D,), `cholesky` L (D, D) lower triangular, both float64."""

    mean: Tensor
    cholesky: Tensor


def uniform_bits_per_dim(levels: int) -> float:
    """log2(levels): bits per dimension when all images are equally likely."""
    return math.log2(levels)


def num_gaussian_parameters(dims: int) -> int:
    """D of the mean and D (D + 1) / 2 of the covariance."""
    return dims + dims * (dims + 1) // 2


def fit_gaussian(
    images: Tensor, images_per_chunk: int = IMAGES_PER_CHUNK, on_chunk: OnChunk = lambda _: None
) -> Gaussian:
    """The Gaussian that maximises the expected log-likelihood of x + u, where x (N, C, H, W) are uint8 images.

        mean = (1/N) Σ x + 1/2,    covariance = (1/N) Σ x xᵀ - ((1/N) Σ x) ((1/N) Σ x)ᵀ + I/12

    The noise makes the covariance positive definite, also where a pixel is constant or N < D. The two sums are sums of
    integers below 2^53, hence exact in float64 in whatever chunks they are added. on_chunk is
    called with the size of each chunk.
    """
    _check(images)
    dims = images[0].numel()
    total = torch.zeros(dims, dtype=torch.float64)
    moment = torch.zeros(dims, dims, dtype=torch.float64)
    for x in _chunks(images, images_per_chunk):  # (n, D)
        total += x.sum(dim=0)  # (D,)
        moment.addmm_(x.T, x)  # (D, D)
        on_chunk(len(x))
    mean = total / len(images)
    covariance = moment.div_(len(images)).addr_(mean, mean, alpha=-1)  # in place: 1.2 GB for 64x64 colour images
    covariance.diagonal().add_(NOISE_VARIANCE)
    return Gaussian(mean + NOISE_MEAN, torch.linalg.cholesky(covariance))


def gaussian_nll(
    gaussian: Gaussian,
    images: Tensor,
    images_per_chunk: int = IMAGES_PER_CHUNK,
    on_chunk: OnChunk = lambda _: None,
) -> Tensor:
    """E_u[-log N(x + u; m, L Lᵀ)] of each uint8 image x (N, C, H, W), in nats, float64 (N,).

    With P = (L Lᵀ)^-1, E[u] = 1/2 and Cov[u] = I/12:

        1/2 [ (x + 1/2 - m)ᵀ P (x + 1/2 - m) + tr(P) / 12 + log det(L Lᵀ) + D log 2π ]
    """
    _check(images)
    lower = gaussian.cholesky
    identity = torch.eye(len(lower), dtype=torch.float64)
    trace = torch.linalg.solve_triangular(lower, identity, upper=False).square().sum()  # tr(P) = ‖L^-1‖²
    log_det = 2 * lower.diagonal().log().sum()
    constant = trace * NOISE_VARIANCE + log_det + len(lower) * math.log(2 * math.pi)
    distances = []
    for x in _chunks(images, images_per_chunk):
        distances.append(_squared_distance(gaussian, x))
        on_chunk(len(x))
    return (torch.cat(distances) + constant) / 2


def _squared_distance(gaussian: Gaussian, x: Tensor) -> Tensor:
    """(x + 1/2 - m)ᵀ P (x + 1/2 - m) = ‖L^-1 (x + 1/2 - m)‖² of the rows of x (n, D): (n,)."""
    centred = x + (NOISE_MEAN - gaussian.mean)  # (n, D)
    return (
        torch.linalg.solve_triangular(gaussian.cholesky, centred.T, upper=False).square().sum(dim=0)
    )  # (D, n) -> (n,)


def _chunks(images: Tensor, images_per_chunk: int) -> Iterator[Tensor]:
    """The images as float64 (n, D), chunk by chunk."""
    for chunk in images.split(images_per_chunk):
        yield chunk.flatten(start_dim=1).double()


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images: {images.dtype} {tuple(images.shape)} is not one or more uint8 images (N, C, H, W)")
