"""Every architecture is trained, evaluated, sampled, saved and loaded by the same code."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pixelcnn import architectures, checkpoint, likelihoods
from pixelcnn.config import Given
from pixelcnn.data.dataset import Split
from pixelcnn.evaluation.nll import nll
from pixelcnn.generation.sampling import sample, sample_full
from pixelcnn.model import Data, Model, build
from pixelcnn.params import Cosine, Train
from pixelcnn.training.state import Training
from tests.conftest import LIKELIHOODS, MIXTURE, sections, steps

SIZES: dict[str, dict[str, Any]] = {
    "gated_pixelcnn": {"num_layers": 2, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6, "dropout": 0.1},
    "pixelcnn": {"num_layers": 1, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6},
    "row_lstm": {"num_layers": 1, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6},
    "diagonal_bilstm": {"num_layers": 1, "first_kernel_size": 3, "head_channels": 6},
    "pixelcnnpp": {"num_resnets": 1, "num_resolutions": 2, "dropout": 0.1},
    "squared_error_autoencoder": {"condition": "code-map", "code": 2, "encoder_channels": 4},
}
SIZES["pixelcnn_autoencoder"] = SIZES["gated_pixelcnn"] | SIZES["squared_error_autoencoder"]


def fits(name: str, likelihood: dict[str, Any]) -> bool:
    """Whether params.yaml accepts the likelihood beside the architecture."""
    section = next(each for each in architectures.sections() if each.__module__.split(".")[-2] == name)
    joint = likelihoods.section(likelihood["name"]).joint
    return section.only_likelihood in (None, likelihood["name"]) and (joint or not section.whole_pixels)


SYSTEMS = [(name, likelihood) for name in SIZES for likelihood in LIKELIHOODS.values() if fits(name, likelihood)]
SYSTEM = pytest.mark.parametrize(
    ("name", "likelihood"), SYSTEMS, ids=[f"{name}-{likelihood['name']}" for name, likelihood in SYSTEMS]
)
SETTINGS = Train(
    seed=0, steps=12, batch_size=8, learning_rate=0.01, warmup_steps=1, optimizer="adamw",
    betas=[0.9, 0.99], weight_decay=0.0, gradient_clip=1.0, ema_decay=0.5, flips=False, precision="float32",
    validate_every=4, schedule=Cosine(name="cosine"), initial=None,
)  # fmt: skip


def model_of(name: str, channels: int, condition: str = "none", likelihood: dict[str, Any] | None = None) -> Model:
    values = {"name": name, "condition": condition, "hidden_channels": 6} | SIZES[name]
    torch.manual_seed(0)
    fingerprints = {"train": "0", "validation": "1", "test": "2"}
    data = Data("flat", (channels, 4, 6), 8, ("cat", "dog"), fingerprints, 3)
    return build(*sections(values, likelihood), data)


def flat_images(channels: int) -> Split:
    """Eight images of one constant value each: much structure, learned quickly."""
    values = torch.arange(8, dtype=torch.uint8).view(-1, 1, 1, 1)
    embeddings = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    return Split(values.expand(-1, channels, 4, 6).contiguous(), torch.arange(8) % 2, embeddings)


@pytest.mark.parametrize("channels", [1, 3])
@SYSTEM
def test_the_loss_falls_and_the_nll_survives_saving_and_loading(
    name: str, likelihood: dict[str, Any] | None, channels: int, tmp_path: Path
) -> None:
    data = flat_images(channels)
    training = Training.begin(model_of(name, channels, likelihood=likelihood), SETTINGS)
    losses = [float(step.loss) for step in steps(training, data, data)]
    assert losses[-1] < losses[0]
    assert training.best_weights is not None
    sha256 = checkpoint.save(tmp_path, training.model, training.best_weights)
    loaded = checkpoint.load(tmp_path)
    assert (loaded.config, loaded.likelihood_config) == (training.model.config, training.model.likelihood_config)
    assert loaded.weights_sha256 == checkpoint.identity(loaded) == sha256
    bits = float(nll(loaded, data, batch_size=3).mean()) / (loaded.dims * torch.log(torch.tensor(2.0)))
    assert float(bits) == pytest.approx(training.best_bits_per_dim, rel=1e-5)


@SYSTEM
def test_incremental_and_full_sampling_draw_the_same_images(name: str, likelihood: dict[str, Any] | None) -> None:
    model = model_of(name, 3, likelihood=likelihood)
    model.network.double().eval()
    codes = torch.tensor([[0.5, -1.0], [2.0, 0.0]]) if model.given is Given.CODE else None
    drawn, defined = (draw(model, 2, torch.Generator().manual_seed(1), codes) for draw in (sample, sample_full))
    assert torch.equal(drawn, defined)
    assert int(drawn.max()) < 8
    assert len(drawn.unique()) > 2


@pytest.mark.parametrize("condition", ["label", "label-map", "embedding", "embedding-map"])
@pytest.mark.parametrize("name", ["gated_pixelcnn", "pixelcnnpp"])
def test_a_conditional_architecture_depends_on_its_condition_and_requires_one(
    name: str, condition: str, tmp_path: Path
) -> None:
    model, data = model_of(name, 3, condition), flat_images(3)
    model.standardise(data)
    model.network.double().eval()
    conds, x = model.conditions(data), data.images[:1]
    assert conds is not None
    assert model.nll(*model.example()).shape == (1,)
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


def test_every_architecture_and_likelihood_is_covered_here() -> None:
    assert set(architectures.NAMES) == set(SIZES)
    assert set(likelihoods.NAMES) == set(LIKELIHOODS)


@pytest.mark.parametrize(
    "name", [name for name, likelihood in SYSTEMS if likelihood is MIXTURE and name != "pixelcnnpp"]
)
def test_the_number_of_outputs_need_not_be_the_number_of_levels(name: str) -> None:
    model = model_of(name, 3, likelihood=MIXTURE)  # 2 components: 2 weights, 2 means, 2 log-scales per sub-pixel
    assert model.network(flat_images(3).images).shape == (8, 6, 3, 4, 6)
