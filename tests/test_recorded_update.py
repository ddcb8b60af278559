"""A recorded update: the same numbers as the eager one, from tensors that keep their addresses."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pixelcnn.params import Train
from pixelcnn.training import loop
from pixelcnn.training.distributed import World
from pixelcnn.training.loop import train
from pixelcnn.training.state import Training
from pixelcnn.training.update import EAGER_STEPS, Inputs, RecordedUpdate, Update
from tests.conftest import Build
from tests.test_training import settings, stripes, weights

T = TypeVar("T")


class Repeating:
    """Takes a Recorder's place on a CPU: a replay repeats the function, and returns a tensor of one address."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.generators: list[torch.Generator] = []

    def run(self, function: Callable[[], T]) -> T:
        return function()

    def record(self, function: Callable[[], T], generators: Iterable[torch.Generator] = ()) -> Callable[[], T]:
        self.recorded += 1
        self.generators += generators
        result = torch.zeros(())

        def replay() -> Any:
            self.replayed += 1
            return result.copy_(function())  # type: ignore[arg-type]

        return replay


class Failing(Repeating):
    def record(self, *_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand a long explanation")


def begin(small_model: Build, **changed: Any) -> Training:
    model = small_model(3, "label", dropout=0.3)
    model.network.float()
    given: Train = settings(**changed)
    torch.manual_seed(5)
    return Training.begin(model, given)


def losses(training: Training, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Update]) -> list[float]:
    monkeypatch.setattr(loop, "make_update", make)
    data = stripes(10, label=True)
    torch.manual_seed(5)
    steps = train(training, data.images, training.model.conditions(data), data, World(0, 1))
    found = [step.loss for step in steps]
    return [float(loss) for loss in found]  # read at the end: a replay must not overwrite an earlier loss


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_recorded_steps_are_those_of_the_eager_update(
    small_model: Build, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    eager, recorded = (begin(small_model, optimizer=optimizer) for _ in range(2))
    recorder = Repeating()
    expected = losses(eager, monkeypatch, Update)
    found = losses(recorded, monkeypatch, lambda *which: RecordedUpdate(*which, recorder))  # type: ignore[arg-type]
    assert (recorder.recorded, recorder.replayed) == (1, eager.settings.steps - EAGER_STEPS)
    assert recorder.generators == [recorded.generator]
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(weights(recorded), weights(eager), rtol=1e-4, atol=1e-6)


def addresses(training: Training, inputs: Inputs) -> list[int]:
    """Of all that a recorded step reads or writes, but for what it allocates itself."""
    networks = [t for net in (training.model.network, training.ema.network) for t in net.state_dict().values()]
    moments = [m for o in training.optimizers for state in o.state.values() for m in state.values()]
    stacks = [t for stack in training.optimizers[1].stacks for t in (stack.weights, stack.momentum)]  # type: ignore[attr-defined]
    given = [inputs.x, inputs.cond, inputs.flipped, inputs.learning_rate]
    return [t.data_ptr() for t in [*networks, *moments, *stacks, *given] if isinstance(t, torch.Tensor)]


def test_nothing_that_a_recorded_step_reads_or_writes_moves(
    small_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, seen = begin(small_model, optimizer="muon"), list[list[int]]()

    class Watching(RecordedUpdate):
        def descend(self, loss: torch.Tensor, inputs: Inputs) -> torch.Tensor:
            result = super().descend(loss, inputs)
            seen.append(addresses(training, inputs))
            return result

    losses(training, monkeypatch, lambda *which: Watching(*which, Repeating()))  # type: ignore[arg-type]
    assert len(seen) == training.settings.steps
    assert all(step == seen[EAGER_STEPS - 1] for step in seen[EAGER_STEPS:])
    assert len(set(seen[-1])) > 20


def test_a_recording_that_fails_leaves_the_eager_steps_and_one_line(
    small_model: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    eager, failing = (begin(small_model) for _ in range(2))
    expected = losses(eager, monkeypatch, Update)
    found = losses(failing, monkeypatch, lambda *which: RecordedUpdate(*which, Failing()))  # type: ignore[arg-type]
    assert found == pytest.approx(expected, rel=1e-5)
    said = capsys.readouterr().out
    assert said == "CUDA graph: operation not permitted when stream is capturing; continuing without it\n"


class Counting(TorchDispatchMode):
    """Counts the operators that are dispatched, views left out."""

    VIEWS = ("view", "permute", "unbind", "detach", "flatten", "expand", "unsqueeze", "transpose", "slice", "alias")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not any(view in name for view in self.VIEWS):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def test_the_operators_after_the_gradients_do_not_grow_with_the_number_of_layers(small_model: Build) -> None:
    """They are what a GPU is given one by one in eager steps. A kernel of its own took Muon five of them."""
    counts = {}
    for num_layers in (4, 8):
        model = small_model(3, "label", num_layers=num_layers)
        model.network.float()
        training = Training.begin(model, settings(optimizer="muon"))
        update, data = Update(training, World(0, 1)), stripes(4, label=True)
        inputs = Inputs(data.images, data.labels, None, 0.01)
        update(inputs)
        loss = update.gradients(inputs)
        with Counting() as counting:
            update.descend(loss, inputs)
        counts[num_layers] = counting.found.total()
    assert counts[8] == counts[4]
    assert counts[4] < 40 * len(training.optimizers[1].stacks)  # type: ignore[attr-defined]
