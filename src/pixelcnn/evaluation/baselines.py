"""What no network is needed for: the uniform distribution and the multivariate Gaussian. Exact and deterministic.

Both stand in the first rows of the published tables (van den Oord et al. 2016, arXiv:1601.06759, table 5).

A density is compared with models of integers by adding uniform noise to the integers (Theis et al. 2016,
arXiv:1511.01844, section 3.1): for x in {0..levels-1}^D and u ~ U[0, 1)^D,

    -log P(x)  <=  E_u[-log p(x + u)],

so the right-hand side, which is reported, is what a lossless code built on p needs at most. No noise is drawn here:
for a Gaussian the expectation has a closed form.

Shapes: N images, C channels, H rows, W columns, D = C H W. Images are uint8 (N, C, H, W); results are float64 nats.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE_MEAN = 1 / 2  # of u ~ U[0, 1)
NOISE_VARIANCE = 1 / 12
IMAGES_PER_CHUNK = 1000  # how many images are float64 at a time; no result depends on it


@dataclass(frozen=True)
class Gaussian:
    """N(mean, L Lᵀ), the distribution of x + u: `mean` (D,), `cholesky` L (D, D) lower triangular, both float64."""

    mean: Tensor
    cholesky: Tensor


def uniform_bits_per_dim(levels: int) -> float:
    """log2(levels): what every image costs, per dimension, when all are equally likely."""
    return math.log2(levels)


def num_gaussian_parameters(dims: int) -> int:
    """D means and the D (D + 1) / 2 numbers of a covariance."""
    return dims + dims * (dims + 1) // 2


def fit_gaussian(images: Tensor, images_per_chunk: int = IMAGES_PER_CHUNK) -> Gaussian:
    """The Gaussian of greatest expected likelihood for x + u, where x (N, C, H, W) are uint8 images.

        mean = (1/N) Σ x + 1/2,    covariance = (1/N) Σ x xᵀ - ((1/N) Σ x) ((1/N) Σ x)ᵀ + I/12

    The noise makes the covariance positive definite, also where a pixel is constant or N < D. The two sums are sums of
    integers below 2^53, hence exact in float64 in whatever chunks they are added.
    """
    _check(images)
    dims = images[0].numel()
    total = torch.zeros(dims, dtype=torch.float64)
    moment = torch.zeros(dims, dims, dtype=torch.float64)
    for x in _chunks(images, images_per_chunk):  # (n, D)
        total += x.sum(dim=0)
        moment.addmm_(x.T, x)
    mean = total / len(images)
    covariance = moment.div_(len(images)).addr_(mean, mean, alpha=-1)  # in place: D is 12,288 for 64x64 colour images
    covariance.diagonal().add_(NOISE_VARIANCE)
    return Gaussian(mean + NOISE_MEAN, torch.linalg.cholesky(covariance))


def gaussian_nll(gaussian: Gaussian, images: Tensor, images_per_chunk: int = IMAGES_PER_CHUNK) -> Tensor:
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
    distances = [_squared_distance(gaussian, x) for x in _chunks(images, images_per_chunk)]
    return (torch.cat(distances) + constant) / 2


def _squared_distance(gaussian: Gaussian, x: Tensor) -> Tensor:
    """(x + 1/2 - m)ᵀ P (x + 1/2 - m) = ‖L^-1 (x + 1/2 - m)‖² of the rows of x (n, D): (n,)."""
    centred = x + (NOISE_MEAN - gaussian.mean)
    return torch.linalg.solve_triangular(gaussian.cholesky, centred.T, upper=False).square().sum(dim=0)


def _chunks(images: Tensor, images_per_chunk: int) -> Iterator[Tensor]:
    for chunk in images.split(images_per_chunk):
        yield chunk.flatten(start_dim=1).double()


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images: {images.dtype} {tuple(images.shape)} is not one or more uint8 images (N, C, H, W)")
