"""Data-parallel training: the losses of one process, resumption by any number, and the loss of a rank."""

from pathlib import Path

import pytest
import torch

from pixelcnn import checkpoint
from pixelcnn.training import distributed
from pixelcnn.training.distributed import World
from tests.processes import Outcome, run_processes


def trained(num: int, state: Path, last: int, dropout: float = 0.0) -> Outcome:
    """The outcome of rank 0 of `num` processes, after asserting that all have the same weights and losses."""
    outcomes = [outcome for outcome in run_processes(num, state, last, dropout) if outcome is not None]
    assert len(outcomes) == num
    assert all(outcome.weights == outcomes[0].weights for outcome in outcomes), "the ranks' weights differ"
    assert all(outcome.losses == outcomes[0].losses for outcome in outcomes)
    return outcomes[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The outcome of 50 steps by one process."""
    return trained(1, tmp_path_factory.mktemp("alone") / "state.pt", 50)


@pytest.mark.parametrize("num", [2, 4])
def test_several_processes_have_the_losses_of_one(alone: Outcome, tmp_path: Path, num: int) -> None:
    several = trained(num, tmp_path / "state.pt", 50)
    assert len(several.losses) == 50
    assert several.losses[:5] == pytest.approx(alone.losses[:5], rel=1e-5)
    assert several.losses == pytest.approx(alone.losses, rel=1e-3)
    assert several.validations == pytest.approx(alone.validations, rel=1e-3)


def test_a_checkpoint_can_be_resumed_by_any_number_of_processes(alone: Outcome, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    losses = [loss for num, last in ((2, 20), (4, 35), (1, 50)) for loss in trained(num, state, last).losses]
    assert len(losses) == 50
    assert losses == pytest.approx(alone.losses, rel=1e-3)


def test_resuming_with_the_same_number_of_processes_is_exact_even_with_dropout(tmp_path: Path) -> None:
    whole = trained(2, tmp_path / "whole.pt", 8, dropout=0.5)
    parts = [trained(2, tmp_path / "parts.pt", last, dropout=0.5) for last in (3, 8)]
    assert parts[0].losses + parts[1].losses == whole.losses
    assert parts[1].weights == whole.weights


def test_dropout_draws_different_numbers_on_each_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "new_group", lambda **_: None)
    drawn = []
    for rank, step in ((0, 1), (1, 1), (0, 2), (0, 1)):
        World(rank, 2).seed_dropout(0, step)
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]


@pytest.mark.parametrize("killed", [1, 2])
def test_a_killed_process_is_reported_by_the_others_and_their_checkpoint_is_complete(
    alone: Outcome, tmp_path: Path, killed: int
) -> None:
    state = tmp_path / "state.pt"
    outcomes = run_processes(3, state, 50, killed=killed)
    assert outcomes[killed] is None
    survivors = [outcome for outcome in outcomes if outcome is not None]
    assert all("lost another process of this training" in outcome.error for outcome in survivors)
    saved = checkpoint.load_state(state)
    assert saved is not None
    assert saved["step"] == 3
    assert survivors[0].losses + trained(1, state, 50).losses == pytest.approx(alone.losses, rel=1e-3)


def test_a_single_process_communicates_nothing() -> None:
    world, gradient, loss = World(0, 1), torch.ones(2), torch.tensor(3.0)
    assert world.all_reduce_sum([gradient], loss) is loss
    assert torch.equal(gradient, torch.ones(2))
    assert (world.all_reduce_max(7), world.all_gather("a"), world.is_rank0) == (7, ["a"], True)
    assert world.shard(torch.arange(3)).tolist() == [0, 1, 2]
    assert not distributed.started_by_torchrun()
