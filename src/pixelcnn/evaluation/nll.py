"""The NLL of a model on each image of a split. Float32 at least, never autocast.

Shapes: N images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pixelcnn.data.dataset import Split
from pixelcnn.model import Model


def nll(model: Model, split: Split, batch_size: int, on_batch: Callable[[int], object] = lambda _: None) -> Tensor:
    """-log p in nats of each image of a split, (N,) float64 on the CPU. Calls on_batch with each batch's size.

    Evaluates in evaluation mode (no dropout) and restores the network's mode.
    """
    conditions, device = model.conditions(split), model.device
    was_training = model.network.training
    model.network.eval()
    nats = []
    try:
        with torch.inference_mode():
            for start in range(0, len(split.images), batch_size):
                part = slice(start, start + batch_size)
                cond = None if conditions is None else conditions[part].to(device)
                nats.append(model.nll(split.images[part].to(device), cond).double().cpu())
                on_batch(len(nats[-1]))
    finally:
        model.network.train(was_training)
    return torch.cat(nats)
