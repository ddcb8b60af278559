"""A GPU computes what the CPU computes: `make test-gpu`, or PIXELCNN_TEST_DEVICE=cpu to run the tests on a CPU."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pixelcnn import checkpoint, device, recording
from pixelcnn.data.dataset import Split
from pixelcnn.device import arrange, has_bfloat16, prepare
from pixelcnn.evaluation.nll import nll
from pixelcnn.generation.sampling import Sampler, blank, in_float64, noise_of, sample, sample_full
from pixelcnn.model import Data, Model, build
from pixelcnn.params import Train
from pixelcnn.training import loop
from pixelcnn.training.distributed import World
from pixelcnn.training.loop import Step, train
from pixelcnn.training.state import Training
from pixelcnn.training.update import EAGER_STEPS, Update
from tests.conftest import sections

DEVICE = torch.device(os.environ.get("PIXELCNN_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
MODELS: dict[str, dict[str, Any]] = {
    "gated_pixelcnn": {
        "num_layers": 3, "hidden_channels": 24, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 24,
        "dropout": 0.1,
    },
    "pixelcnnpp": {"hidden_channels": 16, "num_resnets": 1, "num_resolutions": 2, "dropout": 0.1},
}  # fmt: skip
PLAIN: dict[str, dict[str, Any]] = {
    "pixelcnn": {
        "num_layers": 2, "hidden_channels": 12, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 12,
    },
    "row_lstm": {
        "num_layers": 2, "hidden_channels": 12, "kernel_size": 3, "first_kernel_size": 5, "head_channels": 12,
    },
    "diagonal_bilstm": {"num_layers": 2, "hidden_channels": 12, "first_kernel_size": 5, "head_channels": 12},
}  # fmt: skip
LIKELIHOODS: dict[str, dict[str, Any]] = {
    "gated_pixelcnn": {"name": "categorical"}, "pixelcnnpp": {"name": "logistic_mixture", "num_mixtures": 3},
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", MODELS)
SAMPLED: dict[str, dict[str, Any]] = {  # what changes for the tests of recorded sampling
    "gated_pixelcnn": {}, "pixelcnnpp": {"num_resolutions": 3}, "pixelcnn": {}, "row_lstm": {},
    "diagonal_bilstm": {},
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "seed": 3, "steps": 12, "batch_size": 16, "learning_rate": 0.003, "warmup_steps": 3, "optimizer": "muon",
    "betas": [0.95, 0.99], "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.9, "flips": True,
    "precision": "float32", "validate_every": 6, "schedule": {"name": "cosine"}, "initial": None,
}  # fmt: skip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),  # a prototype, it says
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of that machine's torch, which need not be the lock's
    pytest.mark.filterwarnings("default::UserWarning:torch._inductor"),
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture(autouse=True)
def prepared() -> None:
    prepare(DEVICE)


@pytest.fixture(autouse=True)
def eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles nothing, which takes minutes, but in tests marked so."""
    if "compiled" not in request.fixturenames:
        monkeypatch.setattr(device, "objective", lambda network, _: network.objective)


@pytest.fixture
def compiled() -> None:
    """For tests of what torch.compile makes."""


def model_of(name: str, **changed: Any) -> Model:
    """A fresh model on the device, the same at each call."""
    values = {"name": name, "condition": "none"} | (MODELS | PLAIN)[name] | changed
    height = 12 if changed.get("num_resolutions") == 3 else 8  # three rows of each kind
    data = Data("stripes", (3, height, 12), 16, (), {"train": "0", "validation": "1", "test": "2"})
    torch.manual_seed(0)
    model = build(*sections(values, LIKELIHOODS.get(name)), data)
    arrange(model.network, model.network.memory_format, 8 * 12, DEVICE)
    return model


def stripes(num: int) -> Split:
    """Images with something to learn: each row repeats one value."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 16, (num, 3, 8, 1), generator=generator, dtype=torch.uint8)
    return Split(rows.expand(-1, -1, -1, 12).contiguous(), None)


def begin(name: str, **changed: Any) -> Training:
    settings = {key: value for key, value in changed.items() if key in SETTINGS}
    sizes = {key: value for key, value in changed.items() if key not in SETTINGS}
    training = Training.begin(model_of(name, **sizes), Train.model_validate(SETTINGS | settings))
    torch.manual_seed(5)
    return training


def steps_of(training: Training) -> Iterator[Step]:
    data = stripes(40)
    return train(training, data.images, None, data, World(0, 1))


def losses(training: Training, steps: int = 12) -> list[float]:
    """Train for so many steps."""
    return [float(step.loss) for step in itertools.islice(steps_of(training), steps)]


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in training.ema.network.parameters()])


@NAMES
def test_steps_in_bfloat16_equal_those_in_float32_within_its_precision(name: str) -> None:
    if not has_bfloat16(DEVICE):
        pytest.skip("this device computes no bfloat16")
    exact, coarse = (losses(begin(name, precision=p, dropout=0.0)) for p in ("float32", "bfloat16"))
    assert coarse[0] == pytest.approx(exact[0], rel=0.01)
    assert coarse == pytest.approx(exact, rel=0.05)
    assert exact[-1] < exact[0]


@NAMES
def test_a_training_resumed_on_the_device_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    whole = begin(name)
    expected = losses(whole)
    first = begin(name)
    losses(first, 5)
    checkpoint.save_state(tmp_path / "state.pt", first.state_dict())
    resumed = begin(name)
    torch.manual_seed(99)
    state = checkpoint.load_state(tmp_path / "state.pt")
    assert state is not None
    resumed.load_state_dict(state)
    assert losses(resumed, 7) == pytest.approx(expected[5:], rel=1e-4)  # sums on a GPU have no fixed order
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=1e-2, atol=1e-3)


@NAMES
def test_recorded_steps_are_those_of_the_eager_update(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = begin(name)
    found = losses(recorded)
    monkeypatch.setattr(loop, "make_update", Update)
    expected = begin(name)
    assert found == pytest.approx(losses(expected), rel=1e-4)  # dropout's numbers included
    torch.testing.assert_close(weights(recorded), weights(expected), rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("compiled")
@NAMES
def test_compiled_recorded_steps_are_those_of_the_eager_update(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = losses(begin(name, dropout=0.0))
    monkeypatch.setattr(device, "objective", lambda network, _: network.objective)
    monkeypatch.setattr(loop, "make_update", Update)
    assert found == pytest.approx(losses(begin(name, dropout=0.0)), rel=1e-3)


@pytest.mark.skipif(not ON_GPU, reason="a CPU never waits for itself")
@NAMES
def test_nothing_waits_for_the_device_between_two_steps(name: str) -> None:
    steps = steps_of(begin(name, steps=40, validate_every=40))
    for _ in range(EAGER_STEPS + 2):
        next(steps)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(10):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not ON_GPU, reason="only CUDA records")
def test_a_step_that_cannot_be_recorded_goes_on_eagerly_after_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = begin("gated_pixelcnn")
    objective = training.objective

    def waiting(x: torch.Tensor, cond: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        nats = objective(x, cond, generator)
        assert nats.sum().item() > 0
        return nats

    training.objective = waiting
    found = losses(training)
    said = capsys.readouterr().out
    assert said.startswith("CUDA graph: ")
    assert said.count("\n") == 1
    monkeypatch.setattr(loop, "make_update", Update)
    assert found == pytest.approx(losses(begin("gated_pixelcnn")), rel=1e-4)


@NAMES
def test_an_evaluation_on_the_device_equals_that_on_the_cpu(name: str) -> None:
    model, data = model_of(name), stripes(40)
    here = nll(model, data, batch_size=16)
    model.network.cpu()
    there = nll(model, data, batch_size=16)
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-3)


@NAMES
def test_the_incremental_sampler_on_the_device_draws_what_the_full_one_draws(name: str) -> None:
    model = in_float64(model_of(name))
    model.network.eval()
    quick, full = (draw(model, 3, torch.Generator().manual_seed(7)) for draw in (sample, sample_full))
    assert torch.equal(quick, full)
    model.network.cpu()
    assert torch.equal(sample(model, 3, torch.Generator().manual_seed(7)), quick.cpu())


@pytest.mark.parametrize("name", SAMPLED)
def test_recorded_rows_draw_what_the_definition_draws(name: str) -> None:
    model = in_float64(model_of(name, **SAMPLED[name]))
    model.network.eval()
    defined = sample_full(model, 7, torch.Generator().manual_seed(7))
    drawn = sample(model, 7, torch.Generator().manual_seed(7), batch_size=3)  # three batches, the last one filled up
    assert torch.equal(drawn, defined)
    assert len(defined.unique()) > 8
    warm = sample(model, 7, torch.Generator().manual_seed(7), temperature=0.7, batch_size=7)
    assert torch.equal(warm, sample_full(model, 7, torch.Generator().manual_seed(7), temperature=0.7))


@pytest.mark.parametrize("name", SAMPLED)
def test_recorded_rows_wait_for_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = in_float64(model_of(name, **SAMPLED[name]))
    model.network.eval()
    stepper = model.network.stepper(3, *model.shape[1:])
    sampler = Sampler(model, stepper, 1.0, recorder=recording.recorder(DEVICE))
    images, noise = blank(model, 3), noise_of(model, 3, torch.Generator().manual_seed(1))
    sampler.fill(images, None, noise)
    first = images.clone()
    assert sampler.records == ON_GPU, capsys.readouterr().out
    assert len(sampler.rows.repeat) == (stepper.period if ON_GPU else 0)
    stepper.reset()
    try:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("error")
        sampler.fill(images, None, noise)
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(images, first)


@pytest.mark.skipif(not ON_GPU, reason="the memory of a CPU cannot be limited here")
def test_a_batch_too_large_for_the_memory_is_split_into_micro_batches() -> None:
    expected = losses(begin("gated_pixelcnn", dropout=0.0, batch_size=512), 2)
    training = begin("gated_pixelcnn", dropout=0.0, batch_size=512)
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    allowed = torch.cuda.memory_reserved() + 150 * 2**20  # a batch of 512 needs more than twice as much
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        found = losses(training, 2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert training.micro_batch < 512
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def group() -> Iterator[World]:
    """A process group of one rank with the device's own backend, which takes the code path of several."""
    backend = "nccl" if ON_GPU else "gloo"
    dist.init_process_group(backend, init_method="tcp://127.0.0.1:29511", rank=0, world_size=1)
    world = World(0, 1)
    world.host = dist.new_group(backend="gloo")
    world.size = 2  # so that no collective is skipped; the sum over one rank is its own value
    try:
        yield world
    finally:
        dist.destroy_process_group()


def test_gradients_are_all_reduced_by_the_device_s_own_backend(group: World) -> None:
    gradients = [torch.full((3, 2), 2.0, device=DEVICE), torch.ones(5, device=DEVICE)]
    loss = group.all_reduce_sum(gradients, torch.tensor(4.0, device=DEVICE))
    assert float(loss) == 4.0
    assert gradients[0].tolist() == [[2.0, 2.0]] * 3
    assert gradients[1].tolist() == [1.0] * 5
    assert group.all_reduce_max(7) == 7
    assert group.all_gather("rank 0") == ["rank 0", None]
