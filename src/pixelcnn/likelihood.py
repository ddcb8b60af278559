"""For model versions that the first release registered: the code that they carry imports this module by this name."""

from pixelcnn.likelihoods.base import bits_per_dim

__all__ = ["bits_per_dim"]
