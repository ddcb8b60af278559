"""Exact-likelihood autoregressive image models, after van den Oord et al. 2016 (arXiv:1606.05328)."""

__version__ = "0.1.0"
