"""The pictures that show what a model has learnt: samples, reconstructions, lines between embeddings.

Shapes: C channels, H rows, W columns.
"""

import torch
from torch import Tensor

from pixelcnn import config
from pixelcnn.data.dataset import Split
from pixelcnn.generation.interpolation import interpolate, reconstruct
from pixelcnn.generation.sampling import sample
from pixelcnn.model import Model
from pixelcnn.progress import progress


def draw_pictures(model: Model, images: Split, settings: config.Evaluate, name: str) -> Tensor:
    """The grid (rows, columns, C, H, W): samples, a row for each class or for each of some of the images.

    A row of a model given embeddings or codes begins with the image whose embedding or code it is. Below those of
    embeddings as many rows lead from one image to the next, along the line between their embeddings.
    """
    columns, device = settings.samples_per_class, model.device
    if model.given == "none":
        return draw_samples(model, None, columns, columns, settings, name)
    if model.given == "label":
        labels = torch.arange(len(model.data.classes), device=device)
        return draw_samples(model, labels, len(labels), columns, settings, name)
    columns = max(columns, 4)  # two ends of a line and their images
    shown = images.part(chosen(len(images.images), columns, settings.seed))
    if model.given == "code":
        drawn = reconstruct(model, shown.images, columns - 1, settings.seed, settings.temperature)
        return torch.cat([shown.images.unsqueeze(1), drawn], dim=1)
    embeddings = model.conditions(shown)
    assert embeddings is not None
    drawn = draw_samples(model, embeddings.to(device), columns, columns - 1, settings, name)
    ends = embeddings, embeddings.roll(-1, 0)
    lines = interpolate(model, *ends, columns - 2, settings.seed, settings.temperature)
    originals = shown.images.unsqueeze(1)
    between = torch.cat([originals, lines, originals.roll(-1, 0)], dim=1)
    return torch.cat([torch.cat([originals, drawn], dim=1), between])


def draw_samples(
    model: Model, conds: Tensor | None, rows: int, columns: int, settings: config.Evaluate, name: str
) -> Tensor:
    """Samples (rows, columns, C, H, W), the condition of each row's being its own."""
    cells = torch.arange(rows * columns, device=model.device) // columns
    generator = torch.Generator().manual_seed(settings.seed)
    batches = cells.split(settings.batch_size)
    drawn = []
    with progress(f"{name}, samples", len(batches) * model.shape[1], "rows") as bar:
        for batch in batches:
            cond = None if conds is None else conds[batch]
            drawn.append(sample(model, len(batch), generator, cond, settings.temperature, lambda _: bar.update(1)))
    return torch.cat(drawn).unflatten(0, (rows, columns)).cpu()


def chosen(total: int, num: int, seed: int) -> Tensor:
    """At most `num` of a split's `total` images, chosen by seed."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:num]
