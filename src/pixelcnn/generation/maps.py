"""Pictures of where in an image a model spends its bits.

Shapes: C channels, H rows, W columns.
"""

import matplotlib
import torch
from torch import Tensor

from pixelcnn.data.image_files import greys

COLOURS = "inferno"  # from black over red and yellow to white: perceptually uniform


def beside(image: Tensor, bits: Tensor, levels: int, most: float) -> Tensor:
    """An image (C, H, W) of integers 0 ... levels-1 and the picture of its bits per pixel (H, W), (2, 3, H, W) uint8.

    most: the bits of the brightest colour; those above have it too, and zero is black.
    """
    shares = (bits / most).clamp(0, 1).numpy()
    picture = torch.from_numpy(matplotlib.colormaps[COLOURS](shares, bytes=True))[..., :3].permute(2, 0, 1)  # (3, H, W)
    return torch.stack([greys(levels)[image.long()].expand(3, -1, -1), picture])
