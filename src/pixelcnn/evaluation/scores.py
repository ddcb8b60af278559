"""The score of a split: what is reported of the NLLs of its images."""

import math

from torch import Tensor

from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.schemas import Score


def score(nats: Tensor, dims: int) -> Score:
    """The score of images with these NLLs (N,) in nats, `dims` sub-pixels each."""
    bits = bits_per_dim(nats.double(), dims)
    error = float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else math.nan
    return Score(bits_per_dim=float(bits.mean()), standard_error=error, num_images=len(bits))
