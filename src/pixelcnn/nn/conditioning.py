"""What a network is conditioned on, as a map: (B, D, 1, 1) for a vector, (B, D, H, W) for a location-dependent map.

With that one shape, equations 4 and 5 of arXiv:1606.05328 are one 1x1 convolution V per stack and layer: applied to a
vector it is V^T h, the same at every position; applied to a map it is V * s.

Shapes: B batch, D features of the condition, H rows, W columns.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Condition(nn.Module):
    """Conditions, one per image along the first axis -> a map (B, channels, 1 or H, 1 or W), None where channels is 0.

    Raises ValueError for a condition that is missing, not wanted, or of another dtype or shape.
    """

    channels: int  # D of the map

    def forward(self, cond: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """The map of these conditions."""
        raise AssertionError(f"{type(self).__name__} defines no map")

    def standardise(self, conditions: Tensor) -> None:
        """Before training: take over mean and scale from the training set's conditions, where they have any."""


class NoCondition(Condition):
    """An unconditional model: refuses a condition, since ignoring one would hide a mistake."""

    channels = 0

    def forward(self, cond: Tensor | None) -> None:
        if cond is not None:
            raise ValueError("cond: this model is unconditional, but a condition was given")


class LabelCondition(Condition):
    """Class labels (B,) int64 -> one-hot vectors (B, classes, 1, 1) int64: equation 4 with h one-hot."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.channels = num_classes

    def forward(self, cond: Tensor | None) -> Tensor:
        if cond is None:
            raise ValueError("cond: this model is class-conditional and needs a label per image, but none was given")
        if cond.dtype != torch.int64 or cond.ndim != 1:
            raise ValueError(f"cond: labels are int64 of shape (B,), not {cond.dtype} of shape {tuple(cond.shape)}")
        # Not in training, whose labels are the data set's: reading them would synchronise with the device at every step
        if not self.training and cond.numel() and not 0 <= int(cond.min()) <= int(cond.max()) < self.channels:
            raise ValueError(f"cond: labels are 0 ... {self.channels - 1}, not {int(cond.min())} ... {int(cond.max())}")
        return F.one_hot(cond, self.channels)[:, :, None, None]


class VectorCondition(Condition):
    """Any vectors h (B, D) of floats, equation 4: embeddings, or the codes of an auto-encoder.

    Vectors are standardised by buffers that are saved with the weights, so that a caller passes them as they come.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, what: str):
        super().__init__()
        self.channels, self.what = channels, what
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def standardise(self, conditions: Tensor) -> None:
        """Mean 0 and variance 1 over vectors (N, D) from now on; a feature that is constant is only centred."""
        deviation = conditions.std(0, correction=0)
        self.mean.copy_(conditions.mean(0))
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))

    def forward(self, cond: Tensor | None) -> Tensor:
        if cond is None:
            raise ValueError(f"cond: this model needs {self.what} per image, but none was given")
        if not cond.is_floating_point() or cond.ndim != 2 or cond.shape[1] != self.channels:
            raise ValueError(
                f"cond: this model needs {self.what} per image, floats of shape (B, {self.channels}), "
                f"not {cond.dtype} of shape {tuple(cond.shape)}"
            )
        h = (cond.to(self.mean.dtype) - self.mean) / self.deviation
        return h[:, :, None, None]  # (B, D, 1, 1)


class MapCondition(Condition):
    """s = m(h) of equation 5: a deconvolutional network from the vector of another condition to a map (B, M, H, W).

    One step from 1x1 to a quarter of the image's size, then two that double it.
    """

    def __init__(self, vector: Condition, channels: int, height: int, width: int):
        super().__init__()
        self.vector, self.channels, self.size = vector, channels, (height, width)
        quarter = (-(-height // 4), -(-width // 4))
        self.deconvolutions = nn.Sequential(
            nn.ConvTranspose2d(vector.channels, channels, quarter),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
        )

    def standardise(self, conditions: Tensor) -> None:
        """That of the vectors."""
        self.vector.standardise(conditions)

    def forward(self, cond: Tensor | None) -> Tensor:
        h = self.vector(cond)
        height, width = self.size
        return self.deconvolutions(h.to(self.deconvolutions[0].weight.dtype))[..., :height, :width]
