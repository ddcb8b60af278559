"""Reconstructions from codes, and interpolations between two embeddings or codes.

After van den Oord et al. 2016 (arXiv:1606.05328): figure 5 interpolates linearly between the embeddings of two
portraits, figure 6 reconstructs images from the codes of an auto-encoder.

Shapes: N images, C channels, H rows, W columns, D dimensions of a code or embedding.
"""

import torch
from torch import Tensor

from pixelcnn.generation.sampling import OnRow, sample
from pixelcnn.model import Model


def reconstruct(
    model: Model,
    images: Tensor,
    num: int,
    seed: int,
    temperature: float = 1.0,
    on_row: OnRow = lambda _: None,
    batch_size: int | None = None,
) -> Tensor:
    """`num` reconstructions of each of N images (N, C, H, W) uint8, sampled given its code: (N, num, C, H, W).

    A deterministic decoder has one per code, (N, 1, C, H, W). Raises ValueError for a model without encoder.
    """
    with torch.inference_mode():
        codes = model.network.encode(images.to(model.device))  # (N, D)
        decoded = model.decode(codes)
    if decoded is not None:
        return decoded.unsqueeze(1).cpu()
    generator = torch.Generator().manual_seed(seed)
    conds = codes.repeat_interleave(num, 0)
    drawn = sample(model, len(conds), generator, conds, temperature, on_row, batch_size)
    return drawn.unflatten(0, (len(codes), num)).cpu()


def interpolate(
    model: Model,
    first: Tensor,
    last: Tensor,
    steps: int,
    seed: int,
    temperature: float = 1.0,
    on_row: OnRow = lambda _: None,
    batch_size: int | None = None,
) -> Tensor:
    """Images (N, steps, C, H, W) at equal steps from codes or embeddings `first` to `last` (N, D), both included.

    All images of a line are drawn with the same noise, so that what changes along it is due to the vector; each line
    has noise of its own.
    """
    if steps < 2:
        raise ValueError(f"steps: {steps} is not at least 2, the two ends")
    drawn = []
    for part in torch.linspace(0, 1, steps).tolist():
        vectors = torch.lerp(first, last, part).to(model.device)
        with torch.inference_mode():
            decoded = model.decode(vectors)
        if decoded is None:
            generator = torch.Generator().manual_seed(seed)
            decoded = sample(model, len(vectors), generator, vectors, temperature, on_row, batch_size)
        drawn.append(decoded.cpu())
    return torch.stack(drawn, dim=1)
