"""Training: exact resumption, batches, schedules, EMA, best weights, running out of memory, and compilation."""

import copy
import os
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pixelcnn import checkpoint
from pixelcnn.data.dataset import Split
from pixelcnn.data.sampler import BatchSampler, flip, flip_mask
from pixelcnn.device import CompiledObjective, peak
from pixelcnn.model import Model
from pixelcnn.nn.interfaces import Network
from pixelcnn.params import Train, TrainProcess
from pixelcnn.training import loop
from pixelcnn.training.distributed import LostRank, World
from pixelcnn.training.fit import Fit, Logger, _signals
from pixelcnn.training.loop import Step, finite_mean, steps_within, train
from pixelcnn.training.optimizers import Muon
from pixelcnn.training.schedules import ema_weight, learning_rate
from pixelcnn.training.setup import start_from
from pixelcnn.training.state import Training
from pixelcnn.training.update import make_update
from tests.conftest import Build, images

SETTINGS: dict[str, Any] = {
    "seed": 3, "steps": 12, "batch_size": 4, "learning_rate": 0.01, "warmup_steps": 3, "optimizer": "adamw",
    "betas": [0.9, 0.99], "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.9, "flips": True,
    "precision": "float32", "validate_every": 5, "schedule": {"name": "cosine"}, "initial": None,
}  # fmt: skip


WSD = {"name": "wsd", "cooldown": 0.25}


def settings(**changed: Any) -> Train:
    return Train.model_validate(SETTINGS | changed)


def stripes(num: int, label: bool = False) -> Split:
    """Images that can be learned: each row repeats one value."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 4, (num, 3, 5, 1), generator=generator, dtype=torch.uint8)
    return Split(rows.expand(-1, -1, -1, 8).contiguous(), torch.arange(num) % 3 if label else None)


def begin(small_model: Build, **changed: Any) -> Training:
    model: Model = small_model(3, "label", dropout=0.3)
    model.network.float()
    torch.manual_seed(5)
    return Training.begin(model, settings(**changed))


def run(training: Training, data: Split) -> Iterator[Step]:
    """Train by one process on images in memory, and validate on the same images."""
    return train(training, data.images, training.model.conditions(data), data, World(0, 1))


def without_dropout(training: Training) -> Training:
    for module in training.model.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return training


def losses_of(training: Training, data: Split) -> list[float]:
    """The losses of all steps, with the random numbers of dropout seeded."""
    torch.manual_seed(5)
    return [float(step.loss) for step in run(training, data)]


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.ema.network.parameters()])


@pytest.mark.parametrize(
    ("stop", "optimizer", "precision"),
    [
        (1, "adamw", "float32"),
        (5, "adamw", "float32"),
        (7, "adamw", "float32"),
        (1, "muon", "float32"),
        (7, "muon", "float32"),
        (7, "muon", "bfloat16"),
    ],
)
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    small_model: Build, tmp_path: Any, stop: int, optimizer: str, precision: str
) -> None:
    data, choices = stripes(10, label=True), {"optimizer": optimizer, "precision": precision}
    whole = begin(small_model, **choices)
    losses = [float(step.loss) for step in run(whole, data)]

    first = begin(small_model, **choices)
    for step in run(first, data):
        if step.step == stop:
            checkpoint.save_state(tmp_path / "state.pt", first.state_dict())
            break
    resumed = begin(small_model, **choices)
    torch.manual_seed(99)  # another process has another random state
    state = checkpoint.load_state(tmp_path / "state.pt")
    assert state is not None
    resumed.load_state_dict(state)
    assert [float(step.loss) for step in run(resumed, data)] == losses[stop:]
    assert torch.equal(weights(resumed), weights(whole))
    assert (resumed.best_step, resumed.best_bits_per_dim) == (whole.best_step, whole.best_bits_per_dim)
    assert resumed.best_weights is not None
    assert whole.best_weights is not None
    assert all(torch.equal(w, whole.best_weights[name]) for name, w in resumed.best_weights.items())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss(small_model: Build, optimizer: str) -> None:
    data = stripes(30, label=True)
    training = begin(small_model, steps=200, learning_rate=0.02, flips=False, optimizer=optimizer)
    losses = [float(step.loss) for step in run(training, data)]
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]


def test_the_best_weights_are_those_of_the_best_validation(small_model: Build) -> None:
    data = stripes(10, label=True)
    training = begin(small_model, learning_rate=0.3, warmup_steps=0, steps=20, gradient_clip=100.0)
    at = {}
    for step in run(training, data):
        if step.validation is not None:
            at[step.validation] = copy.deepcopy(training.ema.network.state_dict())
    best = min(at)
    assert training.best_bits_per_dim == best
    assert training.best_weights is not None
    assert all(torch.equal(w, at[best][name]) for name, w in training.best_weights.items())


def test_each_epoch_visits_every_image_once_in_a_new_order() -> None:
    batches = BatchSampler(num_images=10, batch_size=4, seed=0)
    taken = torch.cat([batches(step) for step in range(1, 11)]).view(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in taken)
    assert not torch.equal(taken[0], taken[1])


def test_batches_depend_on_seed_and_step_alone() -> None:
    asked_in_order = BatchSampler(10, 4, seed=1)
    in_order = [asked_in_order(step) for step in range(1, 9)]
    assert all(torch.equal(BatchSampler(10, 4, seed=1)(step), in_order[step - 1]) for step in (8, 3, 5))
    assert not torch.equal(BatchSampler(10, 4, seed=2)(1), in_order[0])


def test_a_batch_may_be_larger_than_the_data_set() -> None:
    assert BatchSampler(3, 8, seed=0)(2).bincount().tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_flips_mirror_about_half_of_the_images() -> None:
    x = torch.arange(64 * 3 * 2 * 5).view(64, 3, 2, 5)
    which = flip_mask(64, seed=0, step=4)
    flipped = flip(x, which)
    assert all(torch.equal(a, b.flip(2) if m else b) for a, b, m in zip(flipped, x, which, strict=True))
    assert 16 < int(which.sum()) < 48
    assert not torch.equal(which, flip_mask(64, seed=0, step=5))
    assert torch.equal(which, flip_mask(64, seed=0, step=4))


def test_the_learning_rate_warms_up_to_its_peak_and_anneals_to_zero() -> None:
    plan = [learning_rate(settings(steps=100, warmup_steps=10), step) for step in range(1, 101)]
    assert plan[0] == pytest.approx(0.001)
    assert plan[9] == max(plan) == 0.01
    assert plan == plan[:10] + sorted(plan[10:], reverse=True)
    assert 0 < plan[-1] < 0.01 * 0.001


def test_wsd_stays_at_its_peak_and_then_cools_down() -> None:
    decaying = settings(steps=100, warmup_steps=10, schedule=WSD)
    plan = [learning_rate(decaying, step) for step in range(1, 101)]
    assert decaying.trunk_steps == 75
    assert set(plan[9:75]) == {0.01}
    assert plan[75:] == sorted(plan[75:], reverse=True)
    assert plan[87] == pytest.approx(0.01 * (1 - (13 / 26) ** 0.5))
    assert 0 < plan[-1] < 0.01 * 0.03


def test_a_longer_training_from_the_end_of_a_trunk_equals_an_uninterrupted_one(
    small_model: Build, tmp_path: Path
) -> None:
    data, path = stripes(10, label=True), tmp_path / "state.pt"
    short, longer = {"steps": 8, "schedule": WSD}, {"steps": 16, "schedule": WSD}
    trunk, losses = begin(small_model, **short), []
    for step in run(trunk, data):
        losses.append(float(step.loss))
        if step.step == trunk.settings.trunk_steps:
            assert step.validation is not None
            checkpoint.save_state(path, trunk.state_dict())
            break
    whole, branch = begin(small_model, **longer), begin(small_model, **longer)
    torch.manual_seed(5)
    uninterrupted = [float(step.loss) for step in run(whole, data)]
    state = checkpoint.load_state(path)
    assert state is not None
    assert state["best"][2] is None, "the EMA is the best, so it is saved once"
    branch.load_state_dict(state)
    assert branch.best_weights is not None
    assert all(torch.equal(weight, state["ema"][name]) for name, weight in branch.best_weights.items())
    assert losses + [float(step.loss) for step in run(branch, data)] == uninterrupted
    assert torch.equal(weights(branch), weights(whole))


def fitted(small_model: Build, folder: Path, steps: int, key: str) -> tuple[Fit, list[tuple[int, dict[str, float]]]]:
    """A training run to its end, with its checkpoints in a folder; and what it has logged."""
    training, data = begin(small_model, steps=steps, schedule=WSD), stripes(10, label=True)
    process = TrainProcess(log_every=1, checkpoint_every=1e9, pictures_every=10**9, processes=1)
    path, logged = folder / f"run-{key}.pt", []
    fit = Fit(training, process, path, "run", World(0, 1), lambda _: data.images, lambda _: True, folder / "run.trunk")
    fit.restore()
    logger = Logger(lambda metrics, step: logged.append((step, dict(metrics))), lambda *_: None)
    fit.run(data.images, training.model.conditions(data), data, logger)
    return fit, logged


def test_more_steps_continue_the_trunk_and_the_same_ones_start_anew(small_model: Build, tmp_path: Path) -> None:
    short, longer = "0" * 12, "1" * 12
    fitted(small_model, tmp_path, 8, short)
    again, logged = fitted(small_model, tmp_path, 8, short)
    assert not again.continues_trunk, "the same training is asked for anew, perhaps by other code"
    assert [step for step, _ in logged] == list(range(1, 9))
    branch, logged = fitted(small_model, tmp_path, 16, longer)
    assert branch.continues_trunk
    assert [step for step, _ in logged] == list(range(1, 17)), "its curve is whole"
    assert logged[5][1].keys() > {"validation_bits_per_dim"}
    assert [row["step"] for row in branch.rows] == list(range(1, 17))
    seconds = [row["seconds"] for row in branch.rows]
    rates = [4 / max(after - before, 0.01) for before, after in pairwise([0.0, *seconds])]
    assert [metrics["images_per_second"] for _, metrics in logged] == pytest.approx(rates), "each since the one before"
    (tmp_path / "whole").mkdir()
    whole, _ = fitted(small_model, tmp_path / "whole", 16, longer)
    assert torch.equal(weights(branch.training), weights(whole.training))
    shorter, _ = fitted(small_model, tmp_path, 8, "2" * 12)
    assert not shorter.continues_trunk, "the trunk there is longer"


def test_a_training_starts_from_the_weights_of_another_model(small_model: Build) -> None:
    trained, model = small_model(3), small_model(3)
    for weight in trained.network.parameters():
        weight.data.add_(0.1)
    assert start_from(model, trained) == []
    x = images(model, 2)
    assert torch.equal(model.nll(x), trained.nll(x))


@pytest.mark.parametrize("condition", ["label", "label-map"])
def test_a_conditional_model_starts_with_the_outputs_of_an_unconditional_one(
    small_model: Build, condition: str
) -> None:
    trained, model = small_model(3), small_model(3, condition)
    for weight in trained.network.parameters():
        weight.data.add_(0.1)
    new = start_from(model, trained)
    assert new == [name for name in model.network.state_dict() if "cond" in name]
    x, labels = images(model, 2), torch.tensor([0, 2])
    assert torch.equal(model.nll(x, labels), trained.nll(x))
    model.nll(x, labels).sum().backward()
    learning = [
        name for name, weight in model.network.named_parameters() if weight.grad is not None and weight.grad.any()
    ]
    assert any("cond" in name for name in learning)


def test_a_condition_with_another_map_starts_without_what_layers_made_of_the_old_one(small_model: Build) -> None:
    trained, model = small_model(3, "label-map", height=16, width=16), small_model(3, "label-map")
    assert all(name.startswith("condition.") for name in start_from(model, trained)), "layers take in as many features"
    x = images(model, 2)
    assert torch.equal(model.nll(x, torch.tensor([0, 1])), model.nll(x, torch.tensor([2, 2])))


def test_other_weights_than_those_of_the_condition_are_refused_with_their_names(small_model: Build) -> None:
    wider, deeper = small_model(3, hidden_channels=24), small_model(3, num_layers=3)
    with pytest.raises(ValueError, match=r"layers\.0\.vertical\.weight \(\(48, 3, 2, 5\), not .* and [0-9]+ more"):
        start_from(wider, small_model(3))
    with pytest.raises(ValueError, match=r"layers\.2\.vertical\.weight \(missing there\)"):
        start_from(deeper, small_model(3))
    with pytest.raises(ValueError, match=r"layers\.2\.vertical\.weight \(missing here\)"):
        start_from(small_model(3), deeper)
    with pytest.raises(ValueError, match="its images have 1 channels and 4 levels, not 3 and 4"):
        start_from(small_model(3), small_model(1))


def test_the_ema_decay_is_low_at_first_and_then_as_configured() -> None:
    assert ema_weight(decay=0.9995, step=1) == pytest.approx(9 / 11)
    assert ema_weight(decay=0.99, step=10**6) == pytest.approx(0.01)


def test_the_ema_covers_parameters_and_float_buffers(small_model: Build) -> None:
    training = Training.begin(small_model(1, num_layers=1), settings())
    training.model.network.register_buffer("codebook", torch.zeros(2))
    training = Training.begin(training.model, settings())
    with torch.no_grad():
        for weight in training.model.network.state_dict().values():
            weight.add_(1.0)
    before = {name: weight.clone() for name, weight in training.ema.network.state_dict().items()}
    training.update_ema(0.25)
    for name, weight in training.ema.network.state_dict().items():
        torch.testing.assert_close(weight, before[name] + 0.25)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_kernels_have_the_configured_optimizer_and_biases_have_adamw_without_weight_decay(
    small_model: Build, optimizer: str
) -> None:
    training = begin(small_model, optimizer=optimizer)
    theirs = [(p, type(o), g["weight_decay"]) for o in training.optimizers for g in o.param_groups for p in g["params"]]
    parameters = list(training.model.network.parameters())
    assert sorted(id(p) for p, _, _ in theirs) == sorted(map(id, parameters))
    of_kernels = Muon if optimizer == "muon" else torch.optim.AdamW
    for p, kind, decay in theirs:
        assert (kind, decay) == ((of_kernels, 0.01) if p.ndim > 1 else (torch.optim.AdamW, 0.0))


def test_a_time_budget_covers_the_steps_and_their_share_of_validations(
    small_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def lasting(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            clock[0] += seconds
            return work(*arguments)

        return timed

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop, "make_update", lambda *which: lasting(2.0, make_update(*which)))
    monkeypatch.setattr(loop, "_validate", lasting(10.0, loop._validate))
    data, fresh = stripes(10, label=True), begin(small_model, validate_every=5)
    steps = steps_within(400.0, fresh, data.images, fresh.model.conditions(data), data, World(0, 1))
    assert steps == 400 / (2 + 10 / 5)


def test_a_loss_that_is_not_finite_is_an_error_with_its_step() -> None:
    losses = [torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(2.0)]
    with pytest.raises(FloatingPointError, match="step 9: the loss is nan"):
        finite_mean(losses, last_step=10)


def test_finite_mean_is_the_mean_of_finite_losses() -> None:
    assert finite_mean([torch.tensor(1.0), torch.tensor(4.0)], last_step=2) == 2.5


class LimitedMemory:
    """The objective of a network on a device with memory for `most` images at a time."""

    def __init__(self, network: Network, most: int):
        self.network, self.most, self.sizes = network, most, list[int]()

    def __call__(self, x: torch.Tensor, cond: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        self.sizes.append(len(x))
        nats = self.network.objective(x, cond, generator)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return nats


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_too_large_for_memory_is_split_and_has_the_same_gradients(small_model: Build, most: int) -> None:
    data = stripes(10, label=True)
    whole, split = (without_dropout(begin(small_model, batch_size=6, steps=6)) for _ in range(2))
    limited = LimitedMemory(split.model.network, most)
    split.objective = limited
    pairs = list(zip(run(whole, data), run(split, data), strict=True))
    assert [float(b.loss) for _, b in pairs] == pytest.approx([float(a.loss) for a, _ in pairs], rel=1e-5)
    torch.testing.assert_close(weights(split), weights(whole), rtol=1e-4, atol=1e-5)
    assert max(limited.sizes[4:]) <= most, "a batch size that ran out of memory was tried again"


def test_running_out_of_memory_does_not_change_the_numbers_of_dropout(small_model: Build) -> None:
    data = stripes(10, label=True)
    micro_batched, limited = (begin(small_model, steps=4) for _ in range(2))
    micro_batched.micro_batch = 2
    limited.objective = LimitedMemory(limited.model.network, 2)
    assert losses_of(limited, data) == losses_of(micro_batched, data)


def test_too_little_memory_for_one_image_is_an_error(small_model: Build) -> None:
    training = begin(small_model)
    training.objective = LimitedMemory(training.model.network, 0)
    with pytest.raises(ValueError, match="model: the device's memory does not suffice for one image at a time"):
        next(run(training, stripes(10, label=True)))


def test_a_compiled_network_has_the_losses_of_an_eager_one(small_model: Build) -> None:
    data = stripes(10, label=True)
    eager, compiled = (without_dropout(begin(small_model, steps=4)) for _ in range(2))
    compiled.objective = CompiledObjective(compiled.model.network, "aot_eager")
    assert losses_of(compiled, data) == pytest.approx(losses_of(eager, data), rel=1e-5)


def test_when_compilation_fails_training_continues_eagerly_after_one_line(
    small_model: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    def compiler(*_: Any) -> None:
        raise RuntimeError("no C++ compiler found\nand a long explanation")

    data = stripes(10, label=True)
    eager, compiled = (begin(small_model, steps=4) for _ in range(2))
    compiled.objective = CompiledObjective(compiled.model.network, compiler)
    assert losses_of(compiled, data) == losses_of(eager, data)
    said = capsys.readouterr().out
    assert said.startswith("torch.compile: ")
    assert said.endswith("; continuing without it\n")
    assert said.count("\n") == 1


def test_optimizer_moments_are_loaded_in_the_memory_format_of_their_weight(small_model: Build) -> None:
    data = stripes(10, label=True)
    saved, resumed = begin(small_model), begin(small_model)
    next(run(saved, data))
    state = saved.state_dict()
    for moments in state["optimizers"][0]["state"].values():
        moments["exp_avg"] = moments["exp_avg"].transpose(0, -1).contiguous().transpose(0, -1)
    resumed.load_state_dict(state)
    before, after = saved.optimizers[0].state, resumed.optimizers[0].state
    for weight, moments in after.items():
        assert moments["exp_avg"].stride() == weight.stride()
        assert torch.equal(moments["exp_avg"], before[saved_weight(saved, resumed, weight)]["exp_avg"])


def saved_weight(saved: Training, resumed: Training, weight: torch.Tensor) -> torch.Tensor:
    """The parameter of `saved` with the name that `weight` has in `resumed`."""
    names = {id(p): name for name, p in resumed.model.network.named_parameters()}
    return dict(saved.model.network.named_parameters())[names[id(weight)]]


def test_peak_flops_are_looked_up_by_the_name_of_the_device() -> None:
    assert peak("NVIDIA H200", "bfloat16") == 989e12
    assert peak("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak("2 CPU cores (x86_64)", "bfloat16") is None


@pytest.mark.parametrize("size", [1, 2])
def test_the_signal_that_torchrun_sends_for_a_lost_rank_does_not_end_the_one_that_reports_it(
    size: int,
) -> None:
    ended: list[int] = []
    fit: Any = SimpleNamespace(world=SimpleNamespace(size=size), stop_signal=0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        with pytest.raises(LostRank), _signals(fit):
            raise LostRank
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended == ([signal.SIGTERM] if size == 1 else [])
