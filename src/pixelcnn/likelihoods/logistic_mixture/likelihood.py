"""A mixture of discretised logistics (Salimans et al. 2017, arXiv:1701.05517, sections 2.1 and 2.2).

A level k is the bin x_k -+ h of the real line, x_k = 2k / (L-1) - 1 in [-1, 1] and h = 1 / (L-1); the first and the
last bin take the tails. Given its mixture component m, channel c of a pixel is logistic around a mean that depends
linearly on the pixel's earlier channels:

    mean = mu_mc + sum over c' < c of tanh(gamma_mcc') x_c',    p(x | m) = product over c of p(x_c | m, x_<c)
    p(x) = sum over m of pi_m p(x | m),    p(x_c | x_<c) = sum over m of p(m | x_<c) p(x_c | m, x_<c)

p(m | x_<c) are the posterior responsibilities of the components, given the earlier channels. Of a network that orders
the channels itself each sub-pixel has a mixture of its own: the same with C = 1 and no coefficients.

A bin's probability is a difference of two sigmoids, which cancels where it is small. With z- and z+ its edges in units
of the scale s, after subtracting the mean, and z+ - z- = 2h/s, it is also a product, each factor of which has an
accurate logarithm:

    sigmoid(z+) - sigmoid(z-) = sigmoid(z+) sigmoid(-z-) (1 - exp(-2h/s))

An edge bin has only the sigmoid of its inner edge. Nothing is clamped except log s at -7 from below, as in the paper,
so the probabilities sum to one whatever the parameters.

A draw needs no bins: draw the component of the group from pi, then each channel in turn from that component's logistic
by its inverse CDF, mean + s * logit(u), and take the level of the bin that the value falls into. Summed over the
components that is p(x) above, exactly.

Shapes: B batch, L levels, C channels, G groups, H rows, W columns, M mixture components, N groups of all pixels,
D = C / G channels of a group, K = num_outputs.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelcnn.likelihoods.base import draw, draw_levels
from pixelcnn.likelihoods.logistic_mixture.config import Config

MIN_LOG_SCALE = -7.0


class LogisticMixture:
    """M logistics for each group of `group_channels` channels, discretised to `levels`.

    Outputs (B, K, G, H, W) are blocks of M features: log-weights of the components, then for each channel c of the
    group its means, its log-scales and c coefficients. group_channels: C for a network of whole pixels, 1 for one that
    orders the channels itself.
    """

    float32_outputs = True  # a mean in bfloat16 would be half a level of 256 coarse

    def __init__(self, levels: int, num_mixtures: int, group_channels: int):
        self.levels, self.num_mixtures, self.group_channels = levels, num_mixtures, group_channels
        self.num_outputs = self._start(group_channels)
        self.num_uniforms = 1 + group_channels  # the component, then a value of each channel
        self._indices: dict[torch.device, Tensor] = {}

    def _start(self, channel: int) -> int:
        """The first of the outputs that belong to a channel: M (1 + 2c + c(c-1)/2)."""
        return self.num_mixtures * (1 + 2 * channel + channel * (channel - 1) // 2)

    def nll(self, outputs: Tensor, x: Tensor) -> Tensor:
        """-log p(x) in nats per image, (B,); x (B, C, H, W) integers. In float32 at least."""
        log_p = torch.logsumexp(self._log_joint(*self._rows(outputs, x)), dim=1)
        return -log_p.view(len(x), -1).sum(1)

    def nll_map(self, outputs: Tensor, x: Tensor) -> Tensor:
        """-log p in nats of each sub-pixel given those before it, (B, C, H, W).

        log p(x_c | x_<c) is the difference of log p(x_<=c) and log p(x_<c), each a sum over the components.
        """
        batch, channels, height, width = x.shape
        rows, values = self._rows(outputs, x)
        before = [torch.logsumexp(self._log_joint(rows, values[:, :c]), dim=1) for c in range(self.group_channels + 1)]
        nats = -torch.stack(before, dim=1).diff(dim=1)  # (N, D)
        return nats.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _rows(self, outputs: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, K), in float32 at least, and integers (N, D) of the groups of all pixels, N = B*H*W*G."""
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        rows = outputs.permute(0, 3, 4, 2, 1).reshape(-1, self.num_outputs)
        return rows.to(dtype), x.permute(0, 2, 3, 1).reshape(-1, self.group_channels)

    def log_pmf_of(self, channel: int, outputs: Tensor, earlier: Tensor) -> Tensor:
        """log p (N, L) float64 of every level of one channel: outputs (N, K), earlier channels (N, channel).

        Each edge between two levels is evaluated once, in the linear domain: equal to the logarithms of `log_bin` down
        to about e^-700, below which it stops falling or is -inf.
        """
        channel, earlier = (channel, earlier) if self.group_channels > 1 else (0, earlier[:, :0])
        log_weights, mean, log_scale = self._mixture(channel, outputs, earlier)
        weights, per_scale = log_weights.exp().unsqueeze(1), torch.exp(-log_scale).unsqueeze(2)  # (N, 1, M), (N, M, 1)
        edges = torch.arange(2 - self.levels, self.levels, 2, device=mean.device, dtype=mean.dtype) / (self.levels - 1)
        odds = ((mean.unsqueeze(2) - edges) * per_scale).clamp_(-700, 700).exp_()  # (N, M, L-1): of lying above an edge
        below = (1 + odds).reciprocal_()
        above = odds.mul_(below)
        inner = weights * -torch.expm1(-2 / (self.levels - 1) * per_scale).mT
        ends = weights @ below[..., :1], weights @ above[..., -1:]
        return torch.cat([ends[0], inner @ (below[..., 1:] * above[..., :-1]), ends[1]], dim=2).squeeze(1).log()

    def draw(self, outputs: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """Levels (N, D) of the channels of each group, of outputs (N, K) and uniforms (N, 1+D); see the module.

        At another temperature than 1 the distributions are no mixtures of logistics: those are drawn by their bins.
        """
        if temperature != 1:
            return draw_levels(self, outputs, uniforms[:, 1:], temperature)
        channels, centre = self.group_channels, (self.levels - 1) / 2
        outputs = outputs.double()
        component = draw(outputs[:, : self.num_mixtures], uniforms[:, 0]).unsqueeze(1)  # (N, 1)
        chosen = outputs.gather(1, component + self._blocks(outputs.device))  # (N, 2D + D(D-1)/2)
        mean, log_scale, coefficients = chosen.tensor_split((channels, 2 * channels), dim=1)
        values = torch.addcmul(mean, log_scale.clamp(min=MIN_LOG_SCALE).exp_(), torch.logit(uniforms[:, 1:]))
        values = values.mul_(centre).add_(centre)  # (N, D): in levels, of which k is the bin k -+ 1/2
        shifts = torch.tanh(coefficients)
        for c in range(channels):
            level = values[:, c : c + 1].round_().clamp_(0, self.levels - 1)
            if c + 1 < channels:
                later = channels - c - 1
                values[:, c + 1 :].addcmul_(shifts[:, :later], level - centre)
                shifts = shifts[:, later:]
        return values

    def _blocks(self, device: torch.device) -> Tensor:
        """Where the first component's parameters lie in the outputs, (2D + D(D-1)/2,): all means, all log-scales, then
        the coefficients of channel 0 in all later ones, those of channel 1, and so on.
        """
        if device not in self._indices:  # made once: a copy from the host would wait for the device at every draw
            starts, channels = [self._start(c) for c in range(self.group_channels)], range(self.group_channels)
            blocks = [starts[later] + (2 + c) * self.num_mixtures for c in channels for later in channels[c + 1 :]]
            blocks = starts + [start + self.num_mixtures for start in starts] + blocks
            self._indices[device] = torch.tensor(blocks, device=device)
        return self._indices[device]

    def _mixture(self, channel: int, outputs: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-responsibilities log p(m | x_<c), mean and log-scale, (N, M) float64 each, of a channel."""
        outputs = outputs.double()
        return F.log_softmax(self._log_joint(outputs, earlier), dim=1), *self._logistic(channel, outputs, earlier)

    def _log_joint(self, outputs: Tensor, values: Tensor) -> Tensor:
        """log pi_m + log p(x_<c | m), (N, M): outputs (N, K), the first c channels (N, c) of the groups."""
        log_joint = F.log_softmax(outputs[:, : self.num_mixtures], dim=1)
        logistics = [self._logistic(c, outputs, values[:, :c]) for c in range(values.shape[1])]
        if not logistics:
            return log_joint
        mean, log_scale = (torch.stack(parameters, dim=1) for parameters in zip(*logistics, strict=True))  # (N, c, M)
        return log_joint + log_bin(values.unsqueeze(2), mean, log_scale, self.levels).sum(1)

    def _logistic(self, channel: int, outputs: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (N, M) each, of a channel in each component, given the earlier channels (N, channel)."""
        block = outputs[:, self._start(channel) : self._start(channel + 1)]
        block = block.reshape(len(block), 2 + channel, self.num_mixtures)
        shift = torch.tanh(block[:, 2:]) * scale(earlier, self.levels, outputs.dtype).unsqueeze(2)
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


def build(config: Config, levels: int, data_channels: int, whole_pixels: bool) -> LogisticMixture:
    """The likelihood of the section: one mixture per pixel, or per sub-pixel of a network that orders the channels."""
    return LogisticMixture(levels, config.num_mixtures, data_channels if whole_pixels else 1)
