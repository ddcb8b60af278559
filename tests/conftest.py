"""What several test files need: small models on small images, float64, with a fixed seed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import pixelcnn
from pixelcnn import config as params
from pixelcnn.data.dataset import Split
from pixelcnn.model import Data, Model, build
from pixelcnn.training.distributed import Team
from pixelcnn.training.loop import Step, Training, train

Build = Callable[..., Model]

DEMO = Path(pixelcnn.__file__).parent / "suites" / "demo.yaml"  # params.yaml is the user's, so no test reads it

torch.set_num_threads(1)  # networks this small run slower on more


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`pytest -m gpu` reads the tests of a GPU alone: a machine that lends one may have little more than PyTorch."""
    alone = config.option.markexpr == "gpu" and collection_path.name.startswith("test_")
    return True if alone and collection_path.name != "test_gpu.py" else None


@pytest.fixture
def small_model() -> Build:
    """A float64 model in evaluation mode: small_model(data_channels, condition="none", height=5, width=8, ...sizes)."""

    def make(data_channels: int, condition: str = "none", height: int = 5, width: int = 8, **changed: object) -> Model:
        sizes = {"num_layers": 2, "hidden_channels": 12, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 12}
        section = {"name": "gated_pixelcnn", "condition": condition, "dropout": 0.0} | sizes | changed
        classes = ("cat", "dog", "emu") if condition.startswith("label") else ()
        data = Data("noise", (data_channels, height, width), 4, classes, {"train": "0", "validation": "1", "test": "2"})
        torch.manual_seed(0)
        model = build(params.GatedPixelCNN.model_validate(section), data)
        model.network.double().eval()
        return model

    return make


def steps(training: Training, data: Split, validation: Split) -> Iterator[Step]:
    """The steps of a training by one process, its data in memory."""
    return train(training, data.images, training.model.conditions(data), validation, Team(0, 1))


def images(model: Model, num: int, seed: int = 0) -> torch.Tensor:
    """Random integer images (num, C, H, W) of the model's shape and levels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.data.levels, (num, *model.shape), generator=generator, dtype=torch.uint8)


def labels(model: Model, num: int) -> torch.Tensor | None:
    """A label for each image, for models that want one."""
    return None if model.config.condition == "none" else torch.arange(num) % len(model.data.classes)
