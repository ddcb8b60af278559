"""Rows that were recorded once draw what the definition draws, in all later rows and batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pixelcnn import recording
from pixelcnn.config import Given
from pixelcnn.generation.completion import complete
from pixelcnn.generation.sampling import sample, sample_full
from pixelcnn.model import Data, Model, build
from tests.conftest import MIXTURE, sections
from tests.recorders import PretendedGraphs, Run

GATED = {
    "name": "gated_pixelcnn", "num_layers": 3, "hidden_channels": 12, "kernel_size": 5, "first_kernel_size": 5,
    "head_channels": 12, "dropout": 0.0,
}  # fmt: skip
PLUS = {"name": "pixelcnnpp", "hidden_channels": 6, "num_resnets": 1, "dropout": 0.0}
PLAIN = {
    "name": "pixelcnn", "num_layers": 2, "hidden_channels": 6, "kernel_size": 5, "first_kernel_size": 7,
    "head_channels": 6,
}  # fmt: skip
RNN = {"num_layers": 2, "hidden_channels": 6, "first_kernel_size": 5, "head_channels": 6, "condition": "none"}
MODELS: dict[str, dict[str, Any]] = {
    "gated": GATED | {"condition": "none"},
    "gated, label": GATED | {"condition": "label"},
    "gated, map": GATED | {"condition": "label-map"},
    "plain": PLAIN | {"condition": "none"},
    "rows": RNN | {"name": "row_lstm", "kernel_size": 3},
    "diagonals": RNN | {"name": "diagonal_bilstm"},
    "++, 1": PLUS | {"condition": "none", "num_resolutions": 1},
    "++, 3": PLUS | {"condition": "none", "num_resolutions": 3},
    "++, label": PLUS | {"condition": "label", "num_resolutions": 2},
    "++, map": PLUS | {"condition": "label-map", "num_resolutions": 3},
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    """A model of 12x4 pixels and 16 levels in float64, its weights large enough that pixels depend on each other."""
    section = MODELS[request.param]
    classes = () if section["condition"] == "none" else ("cat", "dog")
    likelihood = MIXTURE if request.param in ("gated, label", "++, 1", "++, 3", "++, label", "++, map") else None
    torch.manual_seed(0)
    built = build(*sections(section, likelihood), Data("noise", (3, 12, 4), 16, classes, {}))
    built.network.double().eval()
    with torch.no_grad():
        for weight in built.network.parameters():
            weight.mul_(1.5)
    return built


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> PretendedGraphs:
    pretended = PretendedGraphs()
    monkeypatch.setattr(recording, "recorder", lambda _: pretended)
    return pretended


def labels(model: Model, num: int) -> torch.Tensor | None:
    return torch.arange(num) % 2 if model.given is Given.LABEL else None


def test_recorded_rows_draw_what_the_definition_draws(model: Model, graphs: PretendedGraphs) -> None:
    cond, temperature = labels(model, 5), 1.0 if model.given is Given.NONE else 0.8
    defined = sample_full(model, 5, torch.Generator().manual_seed(1), cond, temperature)
    drawn = sample(model, 5, torch.Generator().manual_seed(1), cond, temperature, batch_size=2)
    assert torch.equal(drawn, defined)
    assert len(defined.unique()) > 8
    period = model.network.stepper(1, 12, 4, labels(model, 1)).period
    assert period is not None
    assert (graphs.recorded, graphs.repeated) == (period, 3 * 12 - period), "three batches, the last one filled up"


def test_recorded_rows_complete_what_others_complete(
    model: Model, graphs: PretendedGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = torch.randint(0, 16, (5, *model.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    known = torch.rand(5, 12, 4, generator=torch.Generator().manual_seed(6)) < 0.4

    def completed() -> torch.Tensor:
        return complete(model, given, known, torch.Generator().manual_seed(2), labels(model, 5), batch_size=2)

    recorded = completed()
    assert graphs.repeated
    monkeypatch.setattr(recording, "recorder", lambda _: None)
    assert torch.equal(completed(), recorded)


class Refusing(PretendedGraphs):
    """Records nothing after the first graph."""

    def record(self, run: Run, generators: Any = ()) -> Run:
        if self.recorded:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return super().record(run, generators)


def test_where_recording_fails_sampling_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "recorder", lambda _: Refusing())
    torch.manual_seed(0)
    model = build(*sections(MODELS["++, 3"], MIXTURE), Data("noise", (3, 12, 4), 16, (), {}))
    model.network.double().eval()
    runs: list[Callable[..., torch.Tensor]] = [sample, sample_full]
    drawn, defined = (run(model, 3, torch.Generator().manual_seed(1)) for run in runs)
    assert torch.equal(drawn, defined)
    said = capsys.readouterr().out
    assert said == "CUDA graph: operation not permitted when stream is capturing; continuing without it\n"
