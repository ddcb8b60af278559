"""The sample grids that show what a model has learnt: samples, reconstructions, interpolations between embeddings.

Shapes: C channels, H rows, W columns.
"""

import torch
from torch import Tensor

from pixelcnn.config import Given
from pixelcnn.data.dataset import Split, chosen
from pixelcnn.generation.interpolation import interpolate, reconstruct
from pixelcnn.generation.sampling import sample
from pixelcnn.model import Model
from pixelcnn.params import Sample
from pixelcnn.progress import progress

DRAWN_TOGETHER = 100  # images in a batch, which bounds the memory; the same seed draws the same images in any batches


def sample_grid(model: Model, images: Split, settings: Sample, name: str) -> Tensor:
    """The grid (rows, columns, C, H, W): samples, a row for each class or for each of some of the images.

    A row of a model given embeddings or codes begins with the image whose embedding or code it is. Below the rows of
    embeddings as many rows interpolate from one image's embedding to the next one's.
    """
    columns = settings.per_class
    match model.given:
        case Given.NONE:
            return _samples(model, None, columns, columns, settings, name)
        case Given.LABEL:
            labels = torch.arange(len(model.data.classes), device=model.device)
            return _samples(model, labels, len(labels), columns, settings, name)
    columns = max(columns, 4)  # an interpolation has two ends and their images
    shown = images.part(chosen(len(images.images), columns, settings.seed))
    if model.given is Given.CODE:
        rows = _reconstructions(model, shown.images, columns, settings)
        return rows if rows.shape[1] > 2 else _pairs(model, images, columns, settings)
    return _of_embeddings(model, shown, columns, settings, name)


def _reconstructions(model: Model, images: Tensor, columns: int, settings: Sample) -> Tensor:
    """Rows (N, columns, C, H, W) of an image and its reconstructions; (N, 2, C, H, W) where a code has but one."""
    drawn = reconstruct(model, images, columns - 1, settings.seed, settings.temperature)
    return torch.cat([images.unsqueeze(1), drawn], dim=1)


def _pairs(model: Model, images: Split, columns: int, settings: Sample) -> Tensor:
    """Images, each beside its one reconstruction: (rows, columns or one less, C, H, W), about as high as wide."""
    across = columns // 2
    shown = images.part(chosen(len(images.images), columns * across, settings.seed)).images
    whole = shown[: max(len(shown) // across, 1) * across]
    pairs = _reconstructions(model, whole, columns, settings)  # (N, 2, C, H, W)
    return pairs.flatten(0, 1).unflatten(0, (-1, 2 * min(across, len(whole))))


def _of_embeddings(model: Model, shown: Split, columns: int, settings: Sample, name: str) -> Tensor:
    embeddings, originals = model.conditions(shown), shown.images.unsqueeze(1)  # (columns, 1, C, H, W)
    assert embeddings is not None
    drawn = _samples(model, embeddings.to(model.device), columns, columns - 1, settings, name)
    ends = embeddings, embeddings.roll(-1, 0)
    lines = interpolate(model, *ends, columns - 2, settings.seed, settings.temperature)
    between = torch.cat([originals, lines, originals.roll(-1, 0)], dim=1)
    return torch.cat([torch.cat([originals, drawn], dim=1), between])


def _samples(model: Model, conds: Tensor | None, rows: int, columns: int, settings: Sample, name: str) -> Tensor:
    """Samples (rows, columns, C, H, W), a row sharing one condition."""
    cells = torch.arange(rows * columns, device=model.device) // columns  # each cell's row
    generator = torch.Generator().manual_seed(settings.seed)
    batches = cells.split(DRAWN_TOGETHER)
    drawn = []
    with progress(f"{name}, samples", len(batches) * model.shape[1], "rows") as bar:
        for batch in batches:
            cond = None if conds is None else conds[batch]
            drawn.append(sample(model, len(batch), generator, cond, settings.temperature, lambda _: bar.update(1)))
    return torch.cat(drawn).unflatten(0, (rows, columns)).cpu()
