"""The k x k masked convolution of PixelCNN and PixelRNN (arXiv:1601.06759, section 3.4), and its incremental form.

The kernel is cropped to the taps that the causal mask leaves: the rows above the pixel, and the pixel's row up to the
pixel itself. The result is that of the masked k x k convolution at about half the multiplications.

Shapes: B batch, I input features, O output features, H rows, W columns, p = kernel_size // 2 (the kernel's half-width).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from pixelcnn.nn.masked_conv import RowConv


class CausalConv(nn.Module):
    """Causal convolution: the p rows above, p pixels to the left, and the pixel itself under `centre_mask` (O, I)."""

    def __init__(self, centre_mask: Tensor, kernel_size: int):
        assert kernel_size % 2, f"{kernel_size} is not odd: a masked kernel has a centre"
        assert kernel_size >= 3, f"{kernel_size} is not at least 3: 1 is a RowConv"
        super().__init__()
        outputs, inputs = centre_mask.shape
        self.reach = kernel_size // 2  # half-width of the kernel
        self.above = nn.Conv2d(inputs, outputs, (self.reach, kernel_size), bias=False)
        self.row = RowConv(centre_mask, left=self.reach)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve whole images, zero-padded: (B, I, H, W) -> (B, O, H, W)."""
        p = self.reach
        # `above` ends one row above its output, hence no last row: (B, I, p+H-1, p+W+p) -> (B, O, H, W)
        above = self.above(F.pad(x[:, :, :-1], (p, p, p, 0)))
        return above + self.row(F.pad(x, (p, 0)))  # (B, I, H, p+W) -> (B, O, H, W)


class CausalState:
    """The state of a CausalConv evaluated pixel by pixel: its last p input rows, and the current row so far.

    It starts with zeros, the padding of `forward`, and is updated in place.
    """

    def __init__(self, conv: CausalConv, batch: int, width: int):
        self.conv, self.column = conv, 0
        p, inputs, zeros = conv.reach, conv.above.in_channels, conv.above.weight.new_zeros
        self.above = zeros(batch, inputs, p, p + width + p)
        self.left = zeros(batch, inputs, 1, p + width)
        self.rows = self.above[..., p : p + width].unbind(2)  # p times (B, I, W): the rows above without their padding

    def reset(self) -> None:
        """Back to the zeros of the start."""
        self.above.zero_()
        self.left.zero_()

    def begin_row(self) -> None:
        """Move the finished row to the rows above, and convolve those. (Before the first row it is zeros.)"""
        for higher, lower in zip(self.rows, self.rows[1:], strict=False):
            higher.copy_(lower)
        self.rows[-1].copy_(self.left[:, :, 0, self.conv.reach :])
        self.link = self.conv.above(self.above)  # (B, O, 1, W)

    def begin_pixel(self, j: int) -> None:
        """Go on to column j."""
        self.column = j

    def write(self, pixel: Tensor) -> None:
        """Set the input at the current column to `pixel` (B, I, 1, 1), in place."""
        here = self.conv.reach + self.column
        self.left[..., here : here + 1] = pixel

    def __call__(self, pixel: Tensor) -> Tensor:
        """Convolve at the current column, whose input is `pixel` (B, I, 1, 1): (B, O, 1, 1)."""
        self.write(pixel)
        j = self.column
        # The window (B, I, 1, p+1) ends at the current pixel
        return self.link[..., j : j + 1] + self.conv.row(self.left[..., j : j + self.conv.reach + 1])
