"""Sampling by fixed-point iteration: any network, no stepper, fewer forward passes than one for each sub-pixel.

The noise u of an image fixes what is drawn: group k of its sub-pixels, in the one order, is x_k = f_k(x_<k, u_k), a
draw from the outputs given the earlier groups. Ancestral sampling solves these equations one after the other. Jacobi's
iteration draws all groups at once from a guess of the image, then again from what it has drawn:

    x'_k = f_k(x_<k, u_k) for all k

If the groups before k are right, then groups 0 to k are right after one more pass. So after k passes at least k groups
are right whatever the first guess was, and after one pass for each group all are: the same image, not an approximation.
It is reached sooner, since a draw seldom changes with small changes of its distribution. A leading part that a pass
left as it was is right: each of its groups is f_k of groups before it that are unchanged, and the solution is unique.

Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (arXiv:2002.03629),
section 4; for PixelCNNs Wiggers and Hoogeboom 2020, "Predictive Sampling with Forecasting Autoregressive Models"
(arXiv:2002.09928).

Shapes: B batch, C channels, H rows, W columns, h rows not yet final, K outputs of a group of channels, G groups,
D = C / G channels of a group, U uniform numbers that draw a group, N = B h W G groups of all these pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pixelcnn.model import Model

DRAWN_AT_ONCE = 2**14  # groups; of 256 levels each in float64 that is 32 MiB


@torch.inference_mode()
def fill(
    model: Model,
    images: Tensor,
    known: Tensor | None,
    noise: Tensor,
    cond: Tensor | None,
    temperature: float,
    on_row: Callable[[int], object] = lambda _: None,
) -> None:
    """Draw, in place, the pixels of images (B, C, H, W) that are not known (B, H, W); noise (B, U, G, H, W).

    Calls on_row once a row is final in all images. What is at the unknown pixels is the first guess.
    """
    height, final = images.shape[2], 0
    for _ in range(noise[0, 0].numel()):
        outputs = model.network(images, cond)
        drawn = draw(model, outputs[..., final:, :], noise[..., final:, :], temperature)
        if known is not None:
            drawn = torch.where(known[:, None, final:], images[:, :, final:], drawn)
        changed = (drawn != images[:, :, final:]).any(3).any(1).any(0).nonzero()  # (rows, 1)
        images[:, :, final:] = drawn
        unchanged = int(changed[0]) if len(changed) else height - final
        for i in range(final, final + unchanged):
            on_row(i)
        final += unchanged
        if final == height:
            return
    for i in range(final, height):  # a pass for each group has made all right, though none was seen to change nothing
        on_row(i)


def draw(model: Model, outputs: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Every sub-pixel (B, C, h, W) uint8 drawn from outputs (B, K, G, h, W) with noise (B, U, G, h, W)."""
    b, _, _, height, width = outputs.shape
    rows, uniforms = (x.permute(0, 3, 4, 2, 1).flatten(0, 3).split(DRAWN_AT_ONCE) for x in (outputs, noise))
    parts = zip(rows, uniforms, strict=True)  # of (N, K) and (N, U)
    drawn = [model.likelihood.draw(part, u, temperature).to(torch.uint8) for part, u in parts]
    return torch.cat(drawn).view(b, height, width, -1).permute(0, 3, 1, 2)  # (N, D) -> (B, h, W, C) -> (B, C, h, W)
