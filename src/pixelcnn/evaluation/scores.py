"""The score of a split: what is reported of the NLLs of its images."""

import math

from torch import Tensor

from pixelcnn.likelihoods.base import bits_per_dim, check_nll
from pixelcnn.schemas import Score


def score(nats: Tensor, dims: int) -> Score:
    """The score of images with these NLLs (N,) in nats, `dims` sub-pixels each. ValueError for what are no NLLs."""
    bits = bits_per_dim(check_nll(nats.double()).clamp(min=0), dims)
    error = float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else None
    return Score(bits_per_dim=float(bits.mean()), standard_error=error, num_images=len(bits))
