"""baseline NAME: what no network is needed for, on the splits that the networks are measured on."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelcnn import config
from pixelcnn.data import dataset as datasets
from pixelcnn.data import texture
from pixelcnn.evaluation import baselines
from pixelcnn.likelihoods.categorical import bits_per_dim
from pixelcnn.stages import run


def measure(train: Tensor, test: Tensor, levels: int) -> dict[str, dict[str, Any]]:
    """Bits per dimension of both baselines on uint8 images (N, C, H, W); the Gaussian is fitted to all of `train`."""
    uniform = baselines.uniform_bits_per_dim(levels)
    gaussian, dims = baselines.fit_gaussian(train), train[0].numel()
    return {
        "uniform": {"test": {"bits_per_dim": uniform, "standard_error": 0.0, "num_images": len(test)}},
        "gaussian": {
            "test": _mean(baselines.gaussian_nll(gaussian, test), dims),
            "train": _mean(baselines.gaussian_nll(gaussian, train), dims),
            "num_parameters": baselines.num_gaussian_parameters(dims),
        },
    }


def truth(test: Tensor) -> dict[str, Any]:
    """Bits per dimension of the texture's test images under their own distribution: no model can be better."""
    return {"test": _mean(torch.from_numpy(texture.nll(test.numpy())), test[0].numel()), "num_parameters": 0}


def spread(total: int, limit: int) -> Tensor:
    """At most `limit` of a split's `total` images, evenly spaced: publishers may sort what they publish."""
    count = min(limit, total)
    return torch.arange(count) * total // count


def _mean(nats: Tensor, dims: int) -> dict[str, float | int]:
    standard_error = nats.std().item() / math.sqrt(len(nats))
    return {
        "bits_per_dim": float(bits_per_dim(nats.mean().item(), dims)),
        "standard_error": float(bits_per_dim(standard_error, dims)),
        "num_images": len(nats),
    }


def main() -> None:
    """`python -m pixelcnn.stages.baseline NAME --data FOLDER --out FILE`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="an entry of `datasets` in params.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    params = config.load(Path("params.yaml"))
    if arguments.name not in params.datasets:
        raise ValueError(f"{arguments.name!r} is not one of params.yaml's datasets: {', '.join(params.datasets)}")
    card = datasets.read_card(arguments.data)
    some = spread(card.splits["train"].num_images, params.baseline.max_train_images)
    train = datasets.read_rows(arguments.data, "train", some).images
    test = datasets.read_split(arguments.data, "test").images
    result = measure(train, test, card.levels)
    if card.source == "texture":
        result["truth"] = truth(test)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
