"""What several test files need: small models on small images, float64, with a fixed seed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import pixelcnn
from pixelcnn import architectures, cli, likelihoods
from pixelcnn.config import Architecture, Likelihood
from pixelcnn.data.dataset import Split
from pixelcnn.likelihoods import base
from pixelcnn.model import Data, Model, build
from pixelcnn.nn.conditioning import Condition, NoCondition
from pixelcnn.nn.interfaces import Network, Spec
from pixelcnn.params import ModelSections
from pixelcnn.training.distributed import World
from pixelcnn.training.loop import Step, train
from pixelcnn.training.state import Training

Build = Callable[..., Model]
Refused = Callable[..., None]
DEMO = Path(pixelcnn.__file__).parent / "suites" / "demo.yaml"  # params.yaml is the user's, so no test reads it
LIKELIHOODS: dict[str, dict[str, Any]] = {  # one small section of each
    "categorical": {"name": "categorical"},
    "logistic_mixture": {"name": "logistic_mixture", "num_mixtures": 2},
}
CATEGORICAL, MIXTURE = LIKELIHOODS["categorical"], LIKELIHOODS["logistic_mixture"]

# Files that take longest begin first, so that the workers of `make test` end at about the same time
LONGEST = [
    "test_pipeline", "test_pipelines_flow", "test_pretrained", "test_latent_variables", "test_environment",
    "test_tracking", "test_old_project", "test_distributed", "test_pipelines", "test_texture", "test_models_command",
]  # fmt: skip

torch.set_num_threads(1)  # networks this small run slower on more


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`pytest -m gpu` reads the tests of a GPU alone: a machine that lends one may have little more than PyTorch."""
    alone = config.option.markexpr == "gpu" and collection_path.name.startswith("test_")
    return True if alone and collection_path.name != "test_gpu.py" else None


def sections(model: dict[str, Any], likelihood: dict[str, Any] | None = None) -> tuple[Architecture, Likelihood]:
    """The sections of a run's model; the likelihood is the one that goes with it, if none is given."""
    default = MIXTURE if model["name"] == "pixelcnnpp" else CATEGORICAL
    checked = ModelSections.model_validate({"model": model, "likelihood": likelihood or default})
    return checked.model, checked.likelihood


def network_of(
    model: dict[str, Any],
    shape: tuple[int, int, int],
    levels: int = 4,
    condition: Condition | None = None,
    num_outputs: int | None = None,
) -> Any:
    """A fresh network of a section with any condition module; num_outputs: K, without a likelihood that reads them."""
    section, likelihood = sections({"condition": "none"} | model)
    made = likelihoods.build(likelihood, levels, shape[0], section.whole_pixels)
    if num_outputs is not None:
        made = cast(base.Likelihood, SimpleNamespace(num_outputs=num_outputs, float32_outputs=False, levels=levels))
    torch.manual_seed(0)
    return architectures.build(section, Spec(shape, levels, condition or NoCondition(), made))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by LONGEST; the order of tests in a file stays."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which DVC finds everything done, with placeholders for what its stages make. Copy it."""
    from tests import finished_project  # imports DVC

    folder = tmp_path_factory.mktemp("finished")
    finished_project.make(folder)
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, which take seconds to create, for tests to copy."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def small_model() -> Build:
    """A float64 model in evaluation mode: small_model(data_channels, condition="none", height=5, width=8, ...sizes)."""

    def make(
        data_channels: int,
        condition: str = "none",
        height: int = 5,
        width: int = 8,
        likelihood: dict[str, Any] = CATEGORICAL,
        **changed: object,
    ) -> Model:
        sizes = {"num_layers": 2, "hidden_channels": 12, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 12}
        section = {"name": "gated_pixelcnn", "condition": condition, "dropout": 0.0} | sizes | changed
        classes = ("cat", "dog", "emu") if condition.startswith("label") else ()
        data = Data("noise", (data_channels, height, width), 4, classes, {"train": "0", "validation": "1", "test": "2"})
        torch.manual_seed(0)
        model = build(*sections(section, likelihood), data)
        model.network.double().eval()
        return model

    return make


def steps(training: Training, data: Split, validation: Split) -> Iterator[Step]:
    """The steps of a training by one process, its data in memory."""
    return train(training, data.images, training.model.conditions(data), validation, World(0, 1))


def images(model: Model, num: int, seed: int = 0) -> torch.Tensor:
    """Random integer images (num, C, H, W) of the model's shape and levels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.data.levels, (num, *model.shape), generator=generator, dtype=torch.uint8)


def labels(model: Model, num: int) -> torch.Tensor | None:
    """A label for each image, for models that want one."""
    return None if model.config.condition == "none" else torch.arange(num) % len(model.data.classes)


def full_pass_only(model: Model) -> Network:
    """A network with the same outputs that has no stepper of its own."""
    network = model.network

    class FullPassOnly(Network):
        whole_pixels = network.whole_pixels

        def __init__(self) -> None:
            super().__init__()
            self.inner = network
            self.data_channels, self.likelihood, self.condition = (
                network.data_channels, network.likelihood, network.condition,
            )  # fmt: skip

        def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
            return self.inner(x, cond)

    return FullPassOnly()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """refused(message, *arguments): the command ends with code 2 and this message, without a traceback."""

    def check(message: str, *arguments: str) -> None:
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert "Traceback" not in said

    return check
