"""The registry: which version becomes champion and why, rollback, and fetching the files of a version."""

import contextlib
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pixelcnn import checkpoint
from pixelcnn.schemas import EvaluateReport, RegisterReport, Score
from tests.conftest import Build

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    from pixelcnn.tracking import registry
    from pixelcnn.tracking.model_package import ModelPackage

CHAMPION = np.random.default_rng(0).normal(1.5, 0.1, 200)
Arrive = Callable[..., RegisterReport]


@pytest.fixture(scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A working folder with an empty MLflow store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(tmp_path_factory.mktemp("store"))
        shutil.copy(empty_store, "mlflow.db")
        yield Path.cwd()


@pytest.fixture
def arrive(_store: Path, tmp_path: Path, small_model: Build, request: pytest.FixtureRequest) -> Arrive:
    """arrive(gain, seed): register a model that saves `gain` bits/dim against CHAMPION, under a name of the test."""
    model = small_model(1)
    fingerprints = {"train": "0", "validation": "1", "test": "2"}
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name)[-60:].strip("-")

    def make(
        gain: float,
        seed: int = 0,
        noise: float = 0.01,
        test: str = "2",
        spoil: tuple[int, float] | None = None,
        doubt: str = "",
        card: str = "A card",
        run: str = "run",
    ) -> RegisterReport:
        data = replace(model.data, dataset=name, fingerprints=fingerprints | {"test": test})
        folder = tmp_path / f"{gain}-{seed}" / "run"
        weights = {key: value + 1e-3 * seed for key, value in model.network.state_dict().items()}
        checkpoint.save(folder, replace(model, data=data), weights)
        bits = CHAMPION - gain + np.random.default_rng(seed + 1).normal(0, noise, len(CHAMPION))
        score = Score(bits_per_dim=float(bits.mean()), standard_error=0.01, num_images=len(bits))
        if spoil:
            bits[spoil[0]] = spoil[1]
        nll = folder.parent / "run.parquet"
        pd.DataFrame({"split": "test", "image": range(len(bits)), "bits_per_dim": bits}).to_parquet(nll)
        scores = EvaluateReport(test=score, validation=score, train=score)
        package = ModelPackage(folder, run, seed, card.format(name=name), scores, nll, nll)
        return registry.register(package, min_gain=0.005, confidence=0.95, doubt=doubt)

    return make


def champion(name: str) -> int:
    return registry._aliases(registry.store.existing(), name)["champion"]


def tags(receipt: RegisterReport) -> dict[str, str]:
    return dict(registry.store.existing().get_model_version(receipt.name, str(receipt.version)).tags)


def test_the_first_version_of_a_name_is_champion(arrive: Arrive) -> None:
    receipt = arrive(0, seed=3)
    assert (receipt.version, receipt.aliases, receipt.decision) == (1, ["champion"], "promoted")
    assert registry.seeds(receipt.name) == [3]


def test_a_better_challenger_is_promoted_and_its_tags_record_the_gain(arrive: Arrive) -> None:
    first, better = arrive(0), arrive(0.1, seed=1)
    assert better.aliases == ["champion"]
    recorded = tags(better)
    assert float(recorded["comparison_gain"]) == pytest.approx(0.1, abs=0.005)
    assert 0.005 < float(recorded["comparison_low"]) < float(recorded["comparison_high"])
    assert (recorded["compared_with"], recorded["previous_champion"]) == ("1", "1")
    assert champion(first.name) == 2


@pytest.mark.parametrize(("gain", "noise"), [(0.0, 0.01), (-0.1, 0.01), (0.006, 0.05)])
def test_a_challenger_without_a_significant_gain_stays_challenger(arrive: Arrive, gain: float, noise: float) -> None:
    first, second = arrive(0, noise=0), arrive(gain, seed=1, noise=noise)
    assert second.aliases == ["challenger"]
    assert "not significantly above the margin of 0.005" in second.reason
    assert champion(first.name) == 1


def test_the_k_th_challenger_is_compared_at_its_part_of_the_error(arrive: Arrive) -> None:
    first = arrive(0, noise=0)
    registry.store.existing().delete_model_version(first.name, str(arrive(0, seed=1).version))
    second = arrive(0.1, seed=2)  # the first was deleted, and its part of the error with it
    recorded = tags(second)
    assert (second.version, recorded["comparison_number"]) == (3, "2")
    assert float(recorded["comparison_confidence"]) == pytest.approx(1 - 0.05 * 6 / math.pi**2 / 4)
    assert "at an error of 0.76%" in second.reason


def test_another_run_of_the_same_weights_changes_nothing_of_a_version(arrive: Arrive) -> None:
    first = arrive(0, card="load models:/{name}@champion", run="first")
    again = arrive(0, run="second")
    assert (again.version, tags(again)["run"]) == (first.version, "first")
    version = registry.describe(f"models:/{first.name}/1")
    assert version.card == f"load models:/{first.name}/1"
    assert "Models p(x) of the images x of" in registry.store.existing().get_registered_model(first.name).description


def test_versions_measured_on_different_test_images_are_not_compared(arrive: Arrive) -> None:
    first, second = arrive(0, test="aaaa"), arrive(1, seed=1, test="bbbb")
    assert second.aliases == ["challenger"]
    assert "champion 1 was measured on other test images (fingerprint aaaa, here bbbb)" in second.reason
    assert f"rollback {first.name} --to 2" in second.reason


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -5.0])
def test_scores_that_are_none_are_registered_nowhere(arrive: Arrive, wrong: float) -> None:
    with pytest.raises(ValueError, match=r"the NLL of image 7 is .* nats, which is impossible"):
        arrive(0, spoil=(7, wrong))
    with pytest.raises(ValueError, match=r"mlflow\.db|not in the registry"):
        registry.fetch("models:/nobody@champion")


def test_a_champion_of_an_earlier_release_whose_scores_are_none_is_replaced(
    arrive: Arrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(registry, "read_nll", pd.read_parquet)
        first = arrive(0, spoil=(7, math.nan))
    second = arrive(0, seed=1)
    assert (first.version, second.aliases) == (1, ["champion"])
    assert "the scores of champion 1 are invalid" in second.reason


def test_a_model_worse_than_uniform_stays_challenger_and_says_so(arrive: Arrive) -> None:
    receipt = arrive(-1)
    assert receipt.aliases == ["challenger"]
    assert re.match(r"worse than the uniform distribution: 2\.5\d* bits/dim against 2\.0000; `python", receipt.reason)


def test_a_version_in_doubt_stays_challenger_even_as_the_first(arrive: Arrive) -> None:
    receipt = arrive(0, doubt="nobody measured it here")
    assert (receipt.aliases, receipt.decision) == (["challenger"], "kept as challenger")
    assert receipt.reason.startswith("nobody measured it here; `python -m pipelines.rollback")


def test_of_two_registered_concurrently_one_is_promoted(arrive: Arrive, monkeypatch: pytest.MonkeyPatch) -> None:
    name, decide, both = arrive(0).name, registry._decide, threading.Barrier(2)

    def slowly(*args: object) -> registry.Decision:
        decision = decide(*args)  # type: ignore[arg-type]
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)  # without the lock both would have been compared with the old champion by now
        return decision

    monkeypatch.setattr(registry, "_decide", slowly)
    receipts: list[RegisterReport] = []
    threads = [threading.Thread(target=lambda s=s: receipts.append(arrive(0.1, seed=s))) for s in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.decision for receipt in receipts) == ["kept as challenger", "promoted"]
    assert champion(name) == next(r.version for r in receipts if r.decision == "promoted")


def test_a_model_that_another_machine_registers_at_the_same_time_has_one_version(
    arrive: Arrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines share no lock, so that neither finds the other's version before it adds its own."""
    first, look = arrive(0), registry._version_of_weights
    looks = iter([lambda *_: None, look])
    monkeypatch.setattr(registry, "_version_of_weights", lambda *given: next(looks)(*given))
    second = arrive(0)
    assert (second.version, second.decision) == (first.version, "promoted")
    assert [int(v.version) for v in registry._versions(registry.store.existing(), first.name)] == [1]


KILLED_AT = """
import os, sys
from pathlib import Path
from pixelcnn.schemas import EvaluateReport, Score
from pixelcnn.tracking import registry
from pixelcnn.tracking.model_package import ModelPackage
setattr(registry, sys.argv[1], lambda *_: os.kill(os.getpid(), 9))
score = Score(bits_per_dim=1.5, standard_error=0.01, num_images=200)
scores = EvaluateReport(test=score, validation=score, train=score)
nll = Path(sys.argv[3])
registry.register(ModelPackage(Path(sys.argv[2]), "run", 0, "A card", scores, nll, nll), 0.005, 0.95)
"""


@pytest.mark.parametrize("moment", ["_describe", "_decide", "_promote"])
def test_killed_while_it_registers_the_next_start_completes_the_version(
    arrive: Arrive, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def in_a_killed_process(package: ModelPackage, **_: float) -> None:
        command = [sys.executable, "-c", KILLED_AT, moment, str(package.folder), str(package.nll)]
        assert subprocess.run(command).returncode == -signal.SIGKILL

    with monkeypatch.context() as patched:
        patched.setattr(registry, "register", in_a_killed_process)
        arrive(0)
    receipt = arrive(0)
    assert (receipt.version, receipt.aliases, receipt.decision) == (1, ["champion"], "promoted")
    assert receipt.reason.startswith("the first version of")
    assert set(tags(receipt)) >= {"seed", "test_bits_per_dim", "weights_sha256"}


def test_the_decision_about_a_version_is_made_once(arrive: Arrive) -> None:
    arrive(0)
    better = arrive(0.1, seed=1)
    registry.rollback(better.name, None)
    again = arrive(0.1, seed=1)
    assert (again.version, again.reason) == (2, better.reason)
    assert champion(better.name) == 1


def test_a_decision_says_how_to_undo_it_and_one_that_promoted_nothing_is_none_to_roll_back(arrive: Arrive) -> None:
    first, kept, better = arrive(0), arrive(0, seed=1), arrive(0.1, seed=2)
    rollback = f"`python -m pipelines.rollback {first.name}"
    assert registry.advice(first) == ""
    assert registry.advice(kept) == f"To promote it anyway: {rollback} --to 2`"
    assert registry.advice(better) == f"To restore the previous champion: {rollback}`"
    assert registry.advice(arrive(0.2, seed=3, doubt="nobody measured it here")) == ""  # the reason says how


def test_rollback_restores_the_previous_champion_or_any_version(arrive: Arrive) -> None:
    name = arrive(0).name
    arrive(0.1, seed=1)
    arrive(-0.1, seed=2)
    assert registry.rollback(name, None).aliases == ["champion"]
    assert champion(name) == 1
    assert registry.rollback(name, 3).version == 3
    assert registry.rollback(name, None).version == 1
    with pytest.raises(ValueError, match=rf"{name}: no earlier champion .*models:/{name}@champion"):
        registry.rollback(name, None)
    with pytest.raises(ValueError, match="no version 9"):
        registry.rollback(name, 9)


def test_fetch_gives_the_files_of_a_version_or_an_alias(arrive: Arrive) -> None:
    receipt = arrive(0)
    for uri in (f"models:/{receipt.name}@champion", f"models:/{receipt.name}/1"):
        assert checkpoint.read_config(registry.fetch(uri)).weights_sha256 == receipt.weights_sha256
    model = checkpoint.load(registry.fetch(receipt.uri))
    assert isinstance(model.nll(torch.zeros(1, 1, 5, 8, dtype=torch.uint8)), torch.Tensor)


@pytest.mark.parametrize(
    ("end", "message"),
    [("@best", "which has models:/{name}@champion, models:/{name}/1"), ("/7", "which has"), ("", "NAME@ALIAS")],
)
def test_fetching_an_unknown_version_lists_the_known_ones(arrive: Arrive, end: str, message: str) -> None:
    name = arrive(0).name
    with pytest.raises(ValueError, match=f"models:/{name}") as error:
        registry.fetch(f"models:/{name}{end}")
    assert message.format(name=name) in str(error.value)


def test_fetching_without_a_store_fails_and_creates_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match=r"mlflow\.db: no such file"):
        registry.fetch("models:/digits@champion")
    assert registry.seeds("digits") == []
    assert not list(tmp_path.iterdir())
