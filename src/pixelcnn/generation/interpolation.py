"""Images of vectors: reconstructions from codes, and what lies between two embeddings or codes.

After arXiv:1606.05328: figure 5 draws along the line between the embeddings of two portraits, figure 6 draws from the
code that an auto-encoder makes of an image.

Shapes: N images, C channels, H rows, W columns, D numbers of a vector.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pixelcnn.generation.sampling import sample
from pixelcnn.model import Model

OnRow = Callable[[int], object]


def reconstruct(
    model: Model, images: Tensor, num: int, seed: int, temperature: float = 1.0, on_row: OnRow = lambda _: None
) -> Tensor:
    """`num` images for each of N images (N, C, H, W) uint8, drawn given its code: (N, num, C, H, W).

    A decoder that has one image for each code gives that one, (N, 1, C, H, W). Raises ValueError for a model that is
    no auto-encoder.
    """
    with torch.inference_mode():
        codes = model.encode(images.to(model.device))
        decoded = model.decode(codes)
    if decoded is not None:
        return decoded.unsqueeze(1).cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = sample(model, len(codes) * num, generator, codes.repeat_interleave(num, 0), temperature, on_row)
    return drawn.unflatten(0, (len(codes), num)).cpu()


def interpolate(
    model: Model,
    first: Tensor,
    last: Tensor,
    steps: int,
    seed: int,
    temperature: float = 1.0,
    on_row: OnRow = lambda _: None,
) -> Tensor:
    """Images (N, steps, C, H, W) at equal steps from vectors `first` to `last` (N, D), each line with its own noise.

    The noise stays the same along a line, so what changes is due to the vector.
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
            decoded = sample(model, len(vectors), generator, vectors, temperature, on_row)
        drawn.append(decoded.cpu())
    return torch.stack(drawn, dim=1)
