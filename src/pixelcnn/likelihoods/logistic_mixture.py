"""The likelihood of PixelCNN++: a mixture of discretised logistics over whole pixels (arXiv:1701.05517, 2.1 and 2.2).

A level k is the bin x_k -+ h of the real line, x_k = 2k / (L-1) - 1 in [-1, 1] and h = 1 / (L-1); the first and the
last bin take the tails. Given its mixture component m, channel c of a pixel is logistic around a mean that depends
linearly on the pixel's earlier channels:

    mean = mu_mc + sum over c' < c of tanh(gamma_mcc') x_c',    p(x | m) = product over c of p(x_c | m, x_<c)
    p(x) = sum over m of pi_m p(x | m),    p(x_c | x_<c) = sum over m of p(m | x_<c) p(x_c | m, x_<c)

So the components are weighed anew after each channel, by how well they foretold the earlier ones.

A bin's probability is a difference of two sigmoids, which cancels where it is small. With z- and z+ its edges in units
of the scale s, after subtracting the mean, and z+ - z- = 2h/s, it is also a product, each factor of which has an
accurate logarithm:

    sigmoid(z+) - sigmoid(z-) = sigmoid(z+) sigmoid(-z-) (1 - exp(-2h/s))

An edge bin keeps only the sigmoid of its inner edge. Nothing is clamped except log s at -7 from below, as in the paper,
so the probabilities sum to one whatever the parameters.

Shapes: B batch, L levels, C channels, H rows, W columns, M mixture components, N pixels (any), P = num_outputs(C).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_LOG_SCALE = -7.0


class LogisticMixture:
    """`num_mixtures` logistics per pixel, discretised to `levels`. Outputs (B, P, H, W), blocks of M features:

    log-weights of the components, then for each channel c its means, its log-scales and c coefficients.
    """

    def __init__(self, levels: int, num_mixtures: int):
        self.levels, self.num_mixtures = levels, num_mixtures

    def num_outputs(self, data_channels: int) -> int:
        """Network outputs per pixel: M (1 + 2C + C(C-1)/2). Those of channel c begin at num_outputs(c)."""
        return self.num_mixtures * (1 + 2 * data_channels + data_channels * (data_channels - 1) // 2)

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats per image, (B,); x (B, C, H, W) integers. In float32 at least, whatever autocast does."""
        dtype = torch.promote_types(output.dtype, torch.float32)
        log_p = torch.logsumexp(self._log_joint(_pixels(output).to(dtype), _pixels(x)), dim=1)
        return -log_p.view(len(x), -1).sum(1)

    def log_pmf(self, output: Tensor, x: Tensor) -> Tensor:
        """log p of every level of every sub-pixel, given the earlier channels of its pixel in x (B, C, H, W).

        (B, L, C, H, W) float64; L x M numbers per sub-pixel on the way, so not for large images.
        """
        b, channels, height, width = x.shape
        rows, values, level = _pixels(output), _pixels(x), torch.arange(self.levels, device=output.device)
        of_channels = []
        for c in range(channels):
            log_weights, mean, log_scale = self._mixture(c, rows, values[:, :c])
            log_p = log_bin(level, mean.unsqueeze(2), log_scale.unsqueeze(2), self.levels)
            of_channels.append(torch.logsumexp(log_weights.unsqueeze(2) + log_p, dim=1))
        return torch.stack(of_channels).view(channels, b, height, width, self.levels).permute(1, 4, 0, 2, 3)

    def log_pmf_of(self, channel: int, at_pixel: Tensor, earlier: Tensor) -> Tensor:
        """log p of every level of one channel: N pixels' outputs (N, P), their earlier channels (N, channel).

        (N, L) float64; for sampling and coding, several times cheaper than `log_pmf` and the same down to about e^-700,
        where it stops falling, or is -inf.
        """
        log_weights, mean, log_scale = self._mixture(channel, at_pixel, earlier)
        weights, per_scale = log_weights.exp().unsqueeze(1), torch.exp(-log_scale).unsqueeze(2)
        edges = torch.arange(2 - self.levels, self.levels, 2, device=mean.device, dtype=mean.dtype) / (self.levels - 1)
        odds = ((mean.unsqueeze(2) - edges) * per_scale).clamp_(-700, 700).exp_()  # of lying above an edge
        below = (1 + odds).reciprocal_()
        above = odds.mul_(below)
        inner = weights * -torch.expm1(-2 / (self.levels - 1) * per_scale).mT
        ends = weights @ below[..., :1], weights @ above[..., -1:]
        return torch.cat([ends[0], inner @ (below[..., 1:] * above[..., :-1]), ends[1]], dim=2).squeeze(1).log()

    def _mixture(self, channel: int, output: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p(m | x_<c), mean and log-scale, (N, M) float64 each, of a channel given the earlier ones."""
        output = output.double()
        return F.log_softmax(self._log_joint(output, earlier), dim=1), *self._logistic(channel, output, earlier)

    def _log_joint(self, output: Tensor, values: Tensor) -> Tensor:
        """log pi_m + log p(x_<c | m), (N, M): outputs (N, P), the first c channels (N, c) of the pixels."""
        log_joint = F.log_softmax(output[:, : self.num_mixtures], dim=1)
        logistics = [self._logistic(c, output, values[:, :c]) for c in range(values.shape[1])]
        if not logistics:
            return log_joint
        mean, log_scale = (torch.stack(parameters, dim=1) for parameters in zip(*logistics, strict=True))
        return log_joint + log_bin(values.unsqueeze(2), mean, log_scale, self.levels).sum(1)

    def _logistic(self, channel: int, output: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (N, M) each, of a channel in each component, given the earlier channels (N, channel)."""
        block = output[:, self.num_outputs(channel) : self.num_outputs(channel + 1)]
        block = block.reshape(len(block), 2 + channel, self.num_mixtures)
        shift = torch.tanh(block[:, 2:]) * scale(earlier, self.levels, output.dtype).unsqueeze(2)
        return block[:, 0] + shift.sum(1), block[:, 1].clamp(min=MIN_LOG_SCALE)


def scale(level: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integers 0 ... L-1 to floats in [-1, 1]."""
    return level.to(dtype) * (2 / (levels - 1)) - 1


def log_bin(level: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log of a logistic's probability of the bin of an integer level; arguments broadcast."""
    half, per_scale = 1 / (levels - 1), torch.exp(-log_scale)
    centred = scale(level, levels, mean.dtype) - mean
    log_below = F.logsigmoid((centred + half) * per_scale)  # of the upper edge
    log_above = F.logsigmoid((half - centred) * per_scale)  # of the lower edge
    log_inner = log_below + log_above + log1mexp(math.log(2 * half) - log_scale)
    return torch.where(level == 0, log_below, torch.where(level == levels - 1, log_above, log_inner))


def log1mexp(log_width: Tensor) -> Tensor:
    """log(1 - exp(-w)) of log w; for a tiny w by its series, since w itself may underflow and log 0 has no gradient."""
    width = torch.exp(log_width)
    return torch.where(width < 1e-6, log_width - width / 2, torch.log(-torch.expm1(-width.clamp(min=1e-6))))


def _pixels(features: Tensor) -> Tensor:
    """(B, I, H, W) to (B*H*W, I)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
