"""A Gated PixelCNN evaluated sub-pixel by sub-pixel: a whole image at about the price of one forward pass.

Per row, the vertical stacks and their links run once, by the layers' own method. Per colour of a pixel, what is known
already (the columns to the left, the earlier colours) reaches all layers in one batched product; then comes the only
sequential part, a small product and a gate for each layer; then the head's slice for that colour. The arithmetic is
that of `packed`. Buffers and their views are made once and updated in place, and nothing waits for the device.

State: O(layers x W x F) per image. Zeros, the padding of `forward`, are the state of an image not yet begun.

Shapes: B batch, C data channels, W columns, F hidden features, G = F / C, N layers, p = kernel_size // 2, L levels.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from pixelcnn.nn.gated_pixelcnn.layer import GatedLayer
from pixelcnn.nn.gated_pixelcnn.packed import PackedColour, pack
from pixelcnn.nn.head import Head, Scale


class VerticalState:
    """The input rows of one layer's vertical stack, as many as its kernel is high, with p columns on both sides.

    Channels last, and so is its copy of the layer: the convolution of a single row is faster that way.
    """

    def __init__(self, layer: GatedLayer, batch: int, width: int):
        self.layer = copy.deepcopy(layer).to(memory_format=torch.channels_last)
        inputs, rows, p = layer.vertical.in_channels, layer.vertical.kernel_size[0], layer.reach
        self.window = layer.vertical.weight.new_zeros(batch, rows, p + width + p, inputs).permute(0, 3, 1, 2)
        self.rows = self.window.unbind(2)
        self.here = self.rows[-1][..., p : p + width]

    def step(self, row: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor]:
        """The next input row (B, I, W) -> features (B, F, W), and the link to the horizontal stack (B, 2F, 1, W)."""
        for above, below in zip(self.rows, self.rows[1:], strict=False):
            above.copy_(below)
        self.here.copy_(row)
        features, link = self.layer.step_vertical(self.window, bias)
        return features[:, :, 0], link


class ImageRow:
    """The current row of the scaled image, with the first layer's p columns of context on its left."""

    def __init__(self, like: Tensor, batch: int, colours: int, width: int, reach: int):
        flat = like.new_zeros(batch, (reach + width) * colours)  # column after column, C values each
        starts = range(0, width * colours, colours)
        self.values = flat[:, reach * colours :].view(batch, width, colours).transpose(1, 2)  # (B, C, W)
        self.here = [column.unbind(1) for column in self.values.unbind(2)]
        self.left = [[flat[:, j : j + reach * colours + c] for c in range(colours)] for j in starts]


class Bases:
    """What the rows [a | b | h] of a pixel begin with: the biases and, for a and b, links and condition of its row."""

    def __init__(self, packed: Sequence[PackedColour], batch: int, width: int):
        biases = torch.stack([colour.bias for colour in packed])[:, :, None]  # (C, N+1, 1, 3G)
        buffer = biases.repeat(width, 1, 1, batch, 1)  # (W, C, N+1, B, 3G)
        group = biases.shape[-1] // 3
        self.biases, self.gates = (x[..., : 2 * group].unflatten(-1, (2, group)) for x in (biases, buffer))
        self.scale = biases.new_tensor([[2.0], [1.0]])  # 2a and b, as packed
        self.at = [[(rows[0, :, : 2 * group], rows[1:]) for rows in colours] for colours in buffer]

    def begin_row(self, n: int, link: Tensor) -> None:
        """What layer n's horizontal stack gets from link and condition, (B, 2F, 1, W), for the whole row."""
        width, colours, _, batch, _, group = self.gates.shape
        gates = link.view(batch, 2, colours, group, width).permute(4, 2, 0, 1, 3)
        torch.addcmul(self.biases[:, n], gates, self.scale, out=self.gates[:, :, n])


class Known:
    """What all layers know of a row to the left of a colour: p columns of h, then [act | h] of each earlier colour.

    A colour sees a prefix of `buffer` (N, B, p*F + 2G*(C-1)).
    """

    def __init__(self, like: Tensor, layers: int, batch: int, colours: int, group: int, reach: int):
        left = reach * colours * group
        self.buffer = like.new_zeros(layers, batch, left + (colours - 1) * 2 * group)
        self.columns = self.buffer[..., :left].view(layers, batch, reach, colours, group).unbind(2)
        self.earlier = [pair.split(group, 2) for pair in self.buffer[..., left:].split(2 * group, 2)]

    def begin_row(self) -> None:
        """Nothing is to the left of the first column."""
        for column in self.columns:
            column.zero_()

    def begin_pixel(self, h: Sequence[Tensor]) -> None:
        """The pixel whose colours have these h (N, B, G) is the nearest column to the left from now on."""
        for column, nearer in zip(self.columns, self.columns[1:], strict=False):
            column.copy_(nearer)
        for c, features in enumerate(h if self.columns else ()):
            self.columns[-1][:, :, c].copy_(features)


class ColourState:
    """All layers at one colour of a pixel: rows [a | b | h], (N+1, B, 3G), between the image and that colour's logits.

    The head's inputs (B, its features) are common to the colours, each of which adds its own.
    """

    def __init__(self, packed: PackedColour, known: Tensor, head_inputs: Sequence[Tensor]):
        group = packed.chain.shape[1] // 2
        self.packed, self.known = packed, known[..., : packed.known.shape[1]]
        rows = known.new_zeros(len(packed.bias), known.shape[1], 3 * group)
        gates, a, act_h = rows[..., : 2 * group], rows[..., :group], rows[..., group:]
        self.first, self.later = gates[0], rows[1:]
        self.act, self.h = rows[:-1, :, group : 2 * group], rows[1:, :, 2 * group :]
        self.chain = list(zip(gates[:-1], a[:-1], self.act, act_h[:-1], packed.chain, self.later, strict=True))
        self.head = []
        own = group
        for inputs, (weight, bias) in zip(head_inputs, packed.head, strict=True):
            seen = inputs[:, : len(weight)]
            self.head.append((seen[:, -own:], seen, weight, bias))
            own = len(bias)

    def logits(self, left: Tensor, base_first: Tensor, base_later: Tensor) -> Tensor:
        """(B, L), of the image to the left (B, p*C + c) and what the rows begin with (see Bases)."""
        torch.addmm(base_first, left, self.packed.first, out=self.first)
        torch.baddbmm(base_later, self.known, self.packed.known, out=self.later)
        for gates, a, b, act_h, weight, below in self.chain:
            gates.sigmoid_()
            b.addcmul_(a, b, value=-2)
            below.addmm_(act_h, weight)
        out = self.h[-1]
        for own, seen, weight, bias in self.head:
            torch.clamp_min(out, 0, out=own)
            out = torch.addmm(bias, seen, weight)
        return out


class Stepper:
    """The state of a batch of images not yet begun (see pixelcnn.generation.sampling.walk), with the weights as they are now.

    A colour is evaluated by `outputs` before it is fed: later colours and pixels build on its features.
    """

    @torch.no_grad()
    def __init__(
        self,
        layers: Sequence[GatedLayer],
        head: Head,
        scale: Scale,
        cond_map: Tensor | None,
        shape: tuple[int, int, int, int],
    ):
        self.shape, self.scale, self.cond_map = shape, scale, cond_map
        batch, colours, _, width = shape
        packed = pack(layers, head, colours)
        like, hidden = packed[0].bias, layers[0].out.in_channels
        self.vertical = [VerticalState(layer, batch, width) for layer in layers]
        self.image = ImageRow(like, batch, colours, width, layers[0].reach)
        self.bases = Bases(packed, batch, width)
        reach = layers[-1].reach if len(layers) > 1 else 0
        self.known = Known(like, len(layers), batch, colours, hidden // colours, reach)
        head_inputs = [like.new_zeros(batch, len(weight)) for weight, _ in packed[-1].head]
        self.colours = [ColourState(colour, self.known.buffer, head_inputs) for colour in packed]
        self.is_map = cond_map is not None and cond_map.shape[2] > 1
        self.biases = [] if self.is_map else [layer.biases(cond_map) for layer in layers]
        self.column, self.asked = 0, -1

    @torch.no_grad()
    def begin_row(self, i: int) -> None:
        """Run the vertical stacks on the rows above i."""
        row = self.image.values
        for n, (vertical, (bias_v, bias_h)) in enumerate(zip(self.vertical, self._biases(i), strict=True)):
            row, link = vertical.step(row, bias_v)
            self.bases.begin_row(n, link + bias_h if isinstance(bias_h, Tensor) else link)
        self.known.begin_row()

    def _biases(self, i: int) -> list[tuple[Tensor | float, Tensor | float]]:
        """Of the condition, for row i. Those of a map are not kept: they would be larger than all the rest."""
        if not self.is_map:
            return self.biases
        assert self.cond_map is not None
        row = self.cond_map[:, :, i : i + 1]
        return [vertical.layer.biases(row) for vertical in self.vertical]

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column = j

    def outputs(self, c: int) -> Tensor:
        """(B, L, C): the logits of colour c of the current pixel, in every one of the C places."""
        j, self.asked = self.column, c
        logits = self.colours[c].logits(self.image.left[j][c], *self.bases.at[j][c])
        return logits[:, :, None].expand(-1, -1, self.shape[1])

    def feed(self, c: int, value: Tensor) -> None:
        """Colour c of the current pixel is `value` (B,) integers."""
        assert self.asked == c, f"colour {c} is fed before its outputs were evaluated"
        self.image.here[self.column][c].copy_(self.scale(value))
        if c + 1 < len(self.colours):
            act, h = self.known.earlier[c]
            act.copy_(self.colours[c].act)
            h.copy_(self.colours[c].h)
        else:
            self.known.begin_pixel([colour.h for colour in self.colours])
