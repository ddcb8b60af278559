"""A softmax over the levels of each sub-pixel (van den Oord et al. 2016, arXiv:1601.06759, section 2.2).

Shapes: B batch, N sub-pixels (any), L levels, C channels, H rows, W columns. Outputs are logits, K = L.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelcnn.likelihoods.base import draw
from pixelcnn.likelihoods.categorical.config import Config


class Categorical:
    """Logits (B, L, C, H, W): each sub-pixel's own distribution over L levels."""

    float32_outputs = False
    group_channels = num_uniforms = 1

    def __init__(self, levels: int):
        self.levels = self.num_outputs = levels

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats per image, (B,); x (B, C, H, W) integers. In float32 at least."""
        return self._of_sub_pixels(logits, x).view(len(x), -1).sum(1)

    def nll_map(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p in nats of each sub-pixel, (B, C, H, W)."""
        batch, channels, height, width = x.shape
        return self._of_sub_pixels(logits, x).view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _of_sub_pixels(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p in nats of each sub-pixel, (B*H*W*C,): image after image, each in raster-scan order."""
        # Classes last: no copy where features are channels-last, and several times faster than a strided softmax
        rows = logits.permute(0, 3, 4, 2, 1).reshape(-1, self.levels)  # (B*H*W*C, L)
        targets = x.permute(0, 2, 3, 1).reshape(-1).long()  # (B*H*W*C,)
        dtype = torch.promote_types(rows.dtype, torch.float32)
        return F.cross_entropy(rows.to(dtype), targets, reduction="none")

    def log_pmf_of(self, channel: int, logits: Tensor, earlier: Tensor) -> Tensor:  # noqa: ARG002
        """log p (N, L) float64 of every level, of logits (N, L), which depend on the earlier channels already."""
        return F.log_softmax(logits.double(), dim=1)

    def draw(self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """A level (N, 1) of each sub-pixel by the inverse CDF, of logits (N, L) and uniforms (N, 1)."""
        return draw(logits, uniforms[:, 0], temperature).unsqueeze(1)


def build(config: Config, levels: int, data_channels: int, whole_pixels: bool) -> Categorical:  # noqa: ARG001
    """The likelihood of the section; params.yaml is refused where a network describes whole pixels."""
    assert not whole_pixels, "a softmax cannot describe the channels of a pixel jointly"
    return Categorical(levels)
