"""The stepper of a network whose layers follow each other in one stack: PixelCNN and PixelRNN.

Each layer has a state, which evaluates the layer at one pixel: on what it was given of the pixels before, in place of a
padded image. All colours are evaluated anew for each channel. The features of a colour depend on earlier channels
only, so at the last channel those of all colours are final.

Shapes: B batch, C data channels, H rows, W columns, I input features, O output features, K outputs per sub-pixel.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from pixelcnn.nn.causal_conv import CausalState
from pixelcnn.nn.conditioning import Condition
from pixelcnn.nn.head import Scale

Layer = Callable[[Tensor], Tensor]  # (B, I, H, W) -> (B, O, H, W): a layer, or its state with one row and one column


class LayerState(Protocol):
    """The state of a layer evaluated pixel by pixel. It starts with zeros and is updated in place."""

    def reset(self) -> None:
        """Back to the zeros of the start."""

    def begin_row(self) -> None:
        """Go on to the next row: evaluate what depends on the rows above only. (Above the first row are zeros.)"""

    def begin_pixel(self, j: int) -> None:
        """Go on to column j: evaluate what depends on the pixels before it only."""

    def __call__(self, pixel: Tensor) -> Tensor:
        """The layer's output (B, O, 1, 1) at the current pixel, whose input is `pixel` (B, I, 1, 1).

        What later pixels see of this one is what the last call left.
        """


class Stack(Protocol):
    """What the stepper needs of a network."""

    data_channels: int
    condition: Condition
    scale: Scale

    def forward_with(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        """From the scaled image to the outputs: with the network's own layers, or with their states."""


class StackStepper:
    """A network evaluated sub-pixel by sub-pixel, on the states of its layers: O(layers x W x h) per image."""

    def __init__(
        self, network: Stack, first: CausalState, others: Sequence[LayerState], shape: tuple[int, int, int, int]
    ):
        self.network, self.period, self.shape = network, 1, shape
        self.first = first
        self.states: list[LayerState] = [first, *others]
        self.pixel = first.left.new_zeros(*shape[:2], 1, 1)

    def reset(self, cond: Tensor | None = None) -> None:
        """Go back to images not begun."""
        self.network.condition(cond)
        for state in self.states:
            state.reset()

    def locate(self, i: int) -> None:
        """All rows are alike."""

    def begin_row(self, i: int) -> None:  # noqa: ARG002
        """Go on to row i."""
        for state in self.states:
            state.begin_row()

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        for state in self.states:
            state.begin_pixel(j)
        self.pixel.zero_()

    def outputs(self, c: int) -> Tensor:
        """(B, K): the outputs of channel c of the current pixel."""
        return self.network.forward_with(self.states, self.pixel)[:, :, c, 0, 0]

    def feed(self, c: int, value: Tensor) -> None:
        """Channel c of the current pixel is `value` (B,) or (B, 1) integers."""
        self.pixel[:, c, 0] = self.network.scale(value.view(-1, 1))
        self.first.write(self.pixel)
