"""Every architecture of the table goes through the same rooms: training, evaluation, sampling, saving and loading."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from pixelcnn import checkpoint, config
from pixelcnn.data.dataset import Split
from pixelcnn.evaluation.nll import nll
from pixelcnn.generation.sampling import sample, sample_full
from pixelcnn.model import ARCHITECTURES, Data, Model, build
from pixelcnn.training.loop import Training
from tests.conftest import steps

SIZES: dict[str, dict[str, Any]] = {
    "gated_pixelcnn": {"num_layers": 2, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6, "dropout": 0.1},
    "pixelcnn": {"num_layers": 1, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6},
    "row_lstm": {"num_layers": 1, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6},
    "diagonal_bilstm": {"num_layers": 1, "first_kernel_size": 3, "head_channels": 6},
    "pixelcnn++": {"num_resnets": 1, "num_resolutions": 2, "num_mixtures": 2, "dropout": 0.1},
    "squared_error_autoencoder": {"condition": "code-map", "code": 2, "encoder_channels": 4},
}
SIZES["pixelcnn_autoencoder"] = SIZES["gated_pixelcnn"] | SIZES["squared_error_autoencoder"]
SETTINGS = config.Train(
    seed=0, steps=12, batch_size=8, learning_rate=0.01, warmup_steps=1, optimizer="adamw",
    betas=[0.9, 0.99], weight_decay=0.0, gradient_clip=1.0, ema_decay=0.5, flips=False, precision="float32",
    validate_every=4,
)  # fmt: skip


def section(name: str, condition: str = "none") -> config.Architecture:
    values = {"name": name, "condition": condition, "hidden_channels": 6} | SIZES[name]
    return TypeAdapter(config.Model).validate_python(values)


def model_of(name: str, channels: int, condition: str = "none") -> Model:
    torch.manual_seed(0)
    fingerprints = {"train": "0", "validation": "1", "test": "2"}
    return build(section(name, condition), Data("flat", (channels, 4, 6), 8, ("cat", "dog"), fingerprints, 3))


def flat_images(channels: int) -> Split:
    """One grey value per image: much to learn, and quickly."""
    values = torch.arange(8, dtype=torch.uint8).view(-1, 1, 1, 1)
    embeddings = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    return Split(values.expand(-1, channels, 4, 6).contiguous(), torch.arange(8) % 2, embeddings)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_trains_is_saved_and_scores_as_before(name: str, channels: int, tmp_path: Path) -> None:
    data = flat_images(channels)
    training = Training.begin(model_of(name, channels), SETTINGS)
    losses = [float(step.loss) for step in steps(training, data, data)]
    assert losses[-1] < losses[0]
    assert training.best_weights is not None
    checkpoint.save(tmp_path, training.model, training.best_weights)
    loaded = checkpoint.load(tmp_path)
    assert loaded.config == training.model.config
    bits = float(nll(loaded, data, batch_size=3).mean()) / (loaded.dims * torch.log(torch.tensor(2.0)))
    assert float(bits) == pytest.approx(training.best_bits_per_dim, rel=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_samples_the_images_of_the_definition(name: str) -> None:
    model = model_of(name, 3)
    model.network.double().eval()
    codes = torch.tensor([[0.5, -1.0], [2.0, 0.0]]) if model.given == "code" else None
    drawn, defined = (draw(model, 2, torch.Generator().manual_seed(1), codes) for draw in (sample, sample_full))
    assert torch.equal(drawn, defined)
    assert int(drawn.max()) < 8
    assert len(drawn.unique()) > 2


@pytest.mark.parametrize("condition", ["label", "label-map", "embedding", "embedding-map"])
@pytest.mark.parametrize("name", ["gated_pixelcnn", "pixelcnn++"])
def test_a_conditional_architecture_depends_on_its_condition_and_refuses_to_go_without(
    name: str, condition: str, tmp_path: Path
) -> None:
    model, data = model_of(name, 3, condition), flat_images(3)
    model.standardise(data)
    model.network.double().eval()
    conds, x = model.conditions(data), data.images[:1]
    assert conds is not None
    assert model.nll(x, model.some_condition()).shape == (1,)
    one, other = (model.nll(x, conds[n : n + 1]) for n in (0, 1))
    assert float((one - other).abs().detach()) > 1e-6
    with pytest.raises(ValueError, match=r"cond: this model .* but none was given"):
        model.nll(x)
    drawn, defined = (draw(model, 2, torch.Generator().manual_seed(1), conds[:2]) for draw in (sample, sample_full))
    assert torch.equal(drawn, defined)
    checkpoint.save(tmp_path, model, model.network.state_dict())
    loaded = checkpoint.load(tmp_path)
    torch.testing.assert_close(
        loaded.nll(x, conds[:1]), model.nll(x, conds[:1]), rtol=1e-5, atol=1e-5, check_dtype=False
    )


def test_every_architecture_has_a_section_and_sizes_here() -> None:
    assert list(ARCHITECTURES) == config.ARCHITECTURES
    assert set(ARCHITECTURES) == set(SIZES)
