"""Incremental evaluation of a Gated PixelCNN: a whole image, sub-pixel by sub-pixel, for about one forward pass.

Features that later sub-pixels depend on are cached, like keys and values in the KV cache of a Transformer. Per row, the
vertical stacks and their links run once, by the layers' own method. Per colour of a pixel:

  1. the causal context of the horizontal stacks (the columns to the left, the earlier colours) enters all layers in one
     batched matrix product, since all of it has been computed already;
  2. the sequential part is one small matrix product and one gate per layer;
  3. the head is evaluated for that colour alone.

The arithmetic is that of packed.py. Buffers and their views are made once and updated in place, and nothing
synchronises with the device.

State: O(N x W x F) per image. It starts with zeros, the padding of `forward`.

Shapes: B batch, C data channels, W columns, F hidden features, G = F / C features of a colour, N layers, I inputs of a
layer, p = kernel_size // 2, K outputs of a sub-pixel.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from pixelcnn.nn.conditioning import Condition
from pixelcnn.nn.gated_pixelcnn.layer import GatedLayer
from pixelcnn.nn.gated_pixelcnn.packed import PackedColour, pack
from pixelcnn.nn.head import Head, Scale


class VerticalState:
    """The window of one layer's vertical stack: as many input rows as its kernel is high, p columns on both sides.

    The window and a copy of the layer are channels-last, where the convolution of a single row is faster.
    """

    def __init__(self, layer: GatedLayer, batch: int, width: int):
        self.layer = copy.deepcopy(layer).to(memory_format=torch.channels_last)
        inputs, rows, p = layer.vertical.in_channels, layer.vertical.kernel_size[0], layer.reach
        # (B, rows, p+W+p, I) in memory, seen as (B, I, rows, p+W+p)
        self.window = layer.vertical.weight.new_zeros(batch, rows, p + width + p, inputs).permute(0, 3, 1, 2)
        self.rows = self.window.unbind(2)  # (B, I, p+W+p) each
        self.here = self.rows[-1][..., p : p + width]  # (B, I, W): the last row without its padding

    def reset(self) -> None:
        """Back to the zeros of the start."""
        self.window.zero_()

    def step(self, row: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor]:
        """The next input row (B, I, W) -> features (B, F, W), and the link to the horizontal stack (B, 2F, 1, W)."""
        for above, below in zip(self.rows, self.rows[1:], strict=False):
            above.copy_(below)
        self.here.copy_(row)
        features, link = self.layer.step_vertical(self.window, bias)  # (B, F, 1, W) and (B, 2F, 1, W)
        return features[:, :, 0], link


class ImageRow:
    """The current row of the scaled image, with the first layer's p columns of context on its left."""

    def __init__(self, like: Tensor, batch: int, colours: int, width: int, reach: int):
        flat = like.new_zeros(batch, (reach + width) * colours)  # column after column, C values each
        starts = range(0, width * colours, colours)
        self.values = flat[:, reach * colours :].view(batch, width, colours).transpose(1, 2)  # (B, C, W)
        self.here = [column.unbind(1) for column in self.values.unbind(2)]  # W times C times (B,)
        # W times C times (B, p*C + c): the p columns to the left, then the earlier colours of the pixel
        self.left = [[flat[:, j : j + reach * colours + c] for c in range(colours)] for j in starts]


class RowBiases:
    """The initial value of the rows [a | b | h] of each pixel: the biases and, in a and b, links and condition."""

    def __init__(self, packed: Sequence[PackedColour], batch: int, width: int):
        biases = torch.stack([colour.bias for colour in packed])[:, :, None]  # (C, N+1, 1, 3G)
        buffer = biases.repeat(width, 1, 1, batch, 1)  # (W, C, N+1, B, 3G)
        group = biases.shape[-1] // 3
        # The slots of a and b: (C, N+1, 1, 2, G) and (W, C, N+1, B, 2, G)
        self.biases, self.gates = (x[..., : 2 * group].unflatten(-1, (2, group)) for x in (biases, buffer))
        self.scale = biases.new_tensor([[2.0], [1.0]])  # 2a and b, as packed
        # W times C pairs: (B, 2G) of row 0, whose h is 0, and (N, B, 3G) of the later rows
        self.at = [[(rows[0, :, : 2 * group], rows[1:]) for rows in colours] for colours in buffer]

    def begin_row(self, n: int, link: Tensor) -> None:
        """Set what link and condition, (B, 2F, 1, W), add to layer n's gates, for all pixels of the row."""
        width, colours, _, batch, _, group = self.gates.shape
        gates = link.view(batch, 2, colours, group, width).permute(4, 2, 0, 1, 3)  # (W, C, B, 2, G)
        torch.addcmul(self.biases[:, n], gates, self.scale, out=self.gates[:, :, n])


class CausalContext:
    """The features of a row that a colour depends on, in all layers: h of p columns, [act | h] of each earlier colour.

    They lie in one buffer (N, B, p*F + 2G*(C-1)), of which colour c reads the first p*F + 2G*c features.
    """

    def __init__(self, like: Tensor, layers: int, batch: int, colours: int, group: int, reach: int):
        left = reach * colours * group  # p*F
        self.buffer = like.new_zeros(layers, batch, left + (colours - 1) * 2 * group)
        self.columns = self.buffer[..., :left].view(layers, batch, reach, colours, group).unbind(2)  # p of (N, B, C, G)
        # C-1 pairs act, h: (N, B, G) each
        self.earlier = [pair.split(group, 2) for pair in self.buffer[..., left:].split(2 * group, 2)]

    def begin_row(self) -> None:
        """Zeros on the left of the first column, the padding of `forward`."""
        for column in self.columns:
            column.zero_()

    def begin_pixel(self, h: Sequence[Tensor]) -> None:
        """Shift the columns by one; the pixel just finished, h (N, B, G) of each colour, is the nearest one."""
        for column, nearer in zip(self.columns, self.columns[1:], strict=False):
            column.copy_(nearer)
        for c, features in enumerate(h if self.columns else ()):
            self.columns[-1][:, :, c].copy_(features)


class ColourState:
    """One colour of a pixel in all layers: rows [a | b | h], (N+1, B, 3G), from the image to that colour's outputs.

    The inputs of the head's convolutions (B, features of all colours) are shared by the colours: each writes its own
    features and reads those of the earlier colours.
    """

    def __init__(self, packed: PackedColour, context: Tensor, head_inputs: Sequence[Tensor]):
        group = packed.chain.shape[1] // 2
        self.packed, self.context = packed, context[..., : packed.context.shape[1]]  # (N, B, p*F + 2G*c)
        rows = context.new_zeros(len(packed.bias), context.shape[1], 3 * group)  # (N+1, B, 3G)
        gates, a, act_h = rows[..., : 2 * group], rows[..., :group], rows[..., group:]
        self.first, self.later = gates[0], rows[1:]
        self.act, self.h = rows[:-1, :, group : 2 * group], rows[1:, :, 2 * group :]  # (N, B, G) each
        # Per layer: [a | b], a, b (act after the gate), [act | h], the weight to the next row, and the next row
        self.chain = list(zip(gates[:-1], a[:-1], self.act, act_h[:-1], packed.chain, self.later, strict=True))
        self.head = []
        own = group
        for inputs, (weight, bias) in zip(head_inputs, packed.head, strict=True):
            seen = inputs[:, : len(weight)]  # this colour's features and those of the earlier colours
            self.head.append((seen[:, -own:], seen, weight, bias))
            own = len(bias)

    def outputs(self, left: Tensor, base_first: Tensor, base_later: Tensor) -> Tensor:
        """(B, K): the outputs, of the image to the left (B, p*C + c) and the initial rows (B, 2G) and (N, B, 3G)."""
        torch.addmm(base_first, left, self.packed.first, out=self.first)
        # (N, B, 3G): the context of all layers at once
        torch.baddbmm(base_later, self.context, self.packed.context, out=self.later)
        for gates, a, b, act_h, weight, below in self.chain:
            gates.sigmoid_()
            b.addcmul_(a, b, value=-2)  # act = -tanh(a) sigmoid(b), in the slot of b
            below.addmm_(act_h, weight)  # (B, 2G) x (2G, 3G)
        out = self.h[-1]  # (B, G)
        for own, seen, weight, bias in self.head:
            torch.clamp_min(out, 0, out=own)  # ReLU
            out = torch.addmm(bias, seen, weight)
        return out


class GatedStepper:
    """The state of a batch of images not yet begun (pixelcnn.nn.interfaces.Stepper), on packed weights.

    A colour must be evaluated by `outputs` before it is fed: later colours and pixels depend on its features.
    """

    @torch.no_grad()
    def __init__(
        self,
        layers: Sequence[GatedLayer],
        head: Head,
        scale: Scale,
        condition: Condition,
        cond: Tensor | None,
        shape: tuple[int, int, int, int],
    ):
        self.shape, self.scale, self.condition, self.period = shape, scale, condition, 1
        batch, colours, _, width = shape
        packed = pack(layers, head, colours)
        like, hidden = packed[0].bias, layers[0].out.in_channels
        self.vertical = [VerticalState(layer, batch, width) for layer in layers]
        self.image = ImageRow(like, batch, colours, width, layers[0].reach)
        self.row_biases = RowBiases(packed, batch, width)
        reach = layers[-1].reach if len(layers) > 1 else 0  # the first layer's context is the image itself
        self.context = CausalContext(like, len(layers), batch, colours, hidden // colours, reach)
        head_inputs = [like.new_zeros(batch, len(weight)) for weight, _ in packed[-1].head]
        self.colours = [ColourState(colour, self.context.buffer, head_inputs) for colour in packed]
        self.cond_map = condition(cond)
        self.is_map = self.cond_map is not None and self.cond_map.shape[2] > 1
        # What the condition adds to the stacks of each layer: in all rows, or of a map in the row that was located
        self.biases = self._biases(0)
        self.column, self.evaluated = 0, -1

    @torch.no_grad()
    def reset(self, cond: Tensor | None = None) -> None:
        """Go back to images not begun, given other conditions."""
        cond_map = self.condition(cond)
        if self.cond_map is not None and cond_map is not None:
            self.cond_map.copy_(cond_map)
        for vertical in self.vertical:
            vertical.reset()
        self.image.values.zero_()
        if not self.is_map:
            self._take_biases(0)

    @torch.no_grad()
    def locate(self, i: int) -> None:
        """Evaluate what row i of a condition map adds: for all rows at once it would exceed all other state."""
        if self.is_map:
            self._take_biases(i)

    def _biases(self, i: int) -> list[tuple[Tensor | float, Tensor | float]]:
        """What the condition adds in row i, per layer; a condition that is no map has one row."""
        row = None if self.cond_map is None else self.cond_map[:, :, i : i + 1]  # (B, D, 1, 1 or W)
        return [vertical.layer.biases(row) for vertical in self.vertical]

    def _take_biases(self, i: int) -> None:
        """Update `biases` in place."""
        for ours, new in zip(self.biases, self._biases(i), strict=True):
            for bias, value in zip(ours, new, strict=True):
                if isinstance(bias, Tensor) and isinstance(value, Tensor):
                    bias.copy_(value)

    @torch.no_grad()
    def begin_row(self, i: int) -> None:  # noqa: ARG002
        """Go on to the next row: run the vertical stacks of all layers on the rows above it."""
        row = self.image.values  # (B, C, W): row i-1, zeros above the first
        for n, (vertical, (bias_v, bias_h)) in enumerate(zip(self.vertical, self.biases, strict=True)):
            row, link = vertical.step(row, bias_v)  # (B, F, W) and (B, 2F, 1, W)
            self.row_biases.begin_row(n, link + bias_h if isinstance(bias_h, Tensor) else link)
        self.context.begin_row()

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column = j

    def outputs(self, c: int) -> Tensor:
        """(B, K): the outputs of colour c of the current pixel."""
        j, self.evaluated = self.column, c
        return self.colours[c].outputs(self.image.left[j][c], *self.row_biases.at[j][c])

    def feed(self, c: int, value: Tensor) -> None:
        """Colour c of the current pixel is `value` (B,) or (B, 1) integers; follows `outputs(c)`."""
        assert self.evaluated == c, f"colour {c} is fed before its outputs were evaluated"
        self.scale.write(value.view(-1), self.image.here[self.column][c])
        if c + 1 < len(self.colours):
            act, h = self.context.earlier[c]
            act.copy_(self.colours[c].act)
            h.copy_(self.colours[c].h)
        else:
            self.context.begin_pixel([colour.h for colour in self.colours])
