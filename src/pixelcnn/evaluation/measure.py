"""The NLL of every image of some splits as a table, and the scores of these splits."""

from collections.abc import Mapping

import pandas as pd
import torch

from pixelcnn.data.dataset import Split, SplitName
from pixelcnn.evaluation.nll import nll
from pixelcnn.evaluation.scores import score
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.model import Model
from pixelcnn.progress import progress
from pixelcnn.schemas import Score


def scores_of(table: pd.DataFrame, dims: int) -> dict[str, Score]:
    """The score of each split of a table of `measure`."""
    nats = {name: torch.from_numpy(rows.nats.to_numpy(copy=True)) for name, rows in table.groupby("split", sort=False)}
    return {str(name): score(values, dims) for name, values in nats.items()}


def measure(model: Model, splits: Mapping[SplitName, Split], batch_size: int, title: str) -> pd.DataFrame:
    """The NLL of every image of these splits: split, index there, nats, bits/dim, and its label if there are any."""
    tables = []
    for name, split in splits.items():
        with progress(f"{title}, NLL of {name}", len(split.images), "images") as bar:
            nats = nll(model, split, batch_size, bar.update)
        table = pd.DataFrame({"split": name, "image": range(len(nats)), "nats": nats.numpy()})
        table["bits_per_dim"] = bits_per_dim(nats, model.dims).numpy()
        if split.labels is not None:
            table["label"] = split.labels.numpy()
        tables.append(table)
    return pd.concat(tables)
