"""The registry: who becomes champion, who does not and why, the way back, and fetching a version's files."""

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pixelcnn import checkpoint
from pixelcnn.evaluation.nll import Score

from .conftest import Build

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    from pixelcnn.tracking import registry

CHAMPION = np.random.default_rng(0).normal(3, 0.5, 200)
Arrive = Callable[..., registry.Receipt]


@pytest.fixture(scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an MLflow store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(tmp_path_factory.mktemp("store"))
        yield Path.cwd()


@pytest.fixture
def arrive(_store: Path, tmp_path: Path, small_model: Build, request: pytest.FixtureRequest) -> Arrive:
    """arrive(gain, seed): register a model whose test images take so much less than CHAMPION; a name per test."""
    model = small_model(1)
    fingerprints = {"train": "0", "validation": "1", "test": "2"}
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name)

    def make(gain: float, seed: int = 0, noise: float = 0.01, test: str = "2") -> registry.Receipt:
        data = replace(model.data, dataset=name, fingerprints=fingerprints | {"test": test})
        folder = tmp_path / f"{gain}-{seed}" / "run"
        weights = {key: value + 1e-3 * seed for key, value in model.network.state_dict().items()}
        checkpoint.save(folder, replace(model, data=data), weights)
        bits = CHAMPION - gain + np.random.default_rng(seed + 1).normal(0, noise, len(CHAMPION))
        nll = folder.parent / "run.parquet"
        pd.DataFrame({"split": "test", "image": range(len(bits)), "bits_per_dim": bits}).to_parquet(nll)
        scores = dict.fromkeys(("test", "validation"), asdict(Score(float(bits.mean()), 0.01, len(bits))))
        candidate = registry.Candidate(folder, "run", seed, "A card", scores, nll, nll)
        return registry.register(candidate, min_gain=0.005, confidence=0.95)

    return make


def champion(name: str) -> int:
    return registry._aliases(registry.store.existing(), name)["champion"]


def tags(receipt: registry.Receipt) -> dict[str, str]:
    return dict(registry.store.existing().get_model_version(receipt.name, str(receipt.version)).tags)


def test_the_first_version_of_a_name_is_champion(arrive: Arrive) -> None:
    receipt = arrive(0, seed=3)
    assert (receipt.version, receipt.aliases, receipt.decision) == (1, ["champion"], "promoted")
    assert registry.seeds(receipt.name) == [3]


def test_a_better_challenger_is_promoted_and_its_tags_say_by_how_much(arrive: Arrive) -> None:
    first, better = arrive(0), arrive(0.1, seed=1)
    assert better.aliases == ["champion"]
    noted = tags(better)
    assert float(noted["comparison_gain"]) == pytest.approx(0.1, abs=0.005)
    assert 0.005 < float(noted["comparison_low"]) < float(noted["comparison_high"])
    assert (noted["compared_with"], noted["previous_champion"]) == ("1", "1")
    assert champion(first.name) == 2


@pytest.mark.parametrize(("gain", "noise"), [(0.0, 0.01), (-0.1, 0.01), (0.006, 0.05)])
def test_an_equal_a_worse_or_a_luckily_better_challenger_is_kept_as_such(
    arrive: Arrive, gain: float, noise: float
) -> None:
    first, second = arrive(0, noise=0), arrive(gain, seed=1, noise=noise)
    assert second.aliases == ["challenger"]
    assert "not surely above the margin of 0.005" in second.reason
    assert champion(first.name) == 1


def test_a_champion_of_other_test_images_is_not_compared(arrive: Arrive) -> None:
    first, second = arrive(0, test="aaaa"), arrive(1, seed=1, test="bbbb")
    assert second.aliases == ["challenger"]
    assert "champion 1 was measured on other test images (fingerprint aaaa, here bbbb)" in second.reason
    assert f"rollback {first.name} --to 2" in second.reason


def test_of_two_that_come_at_once_one_is_promoted(arrive: Arrive, monkeypatch: pytest.MonkeyPatch) -> None:
    name, judge, both = arrive(0).name, registry._judge, threading.Barrier(2)

    def slowly(*args: object) -> registry.Decision:
        decision = judge(*args)  # type: ignore[arg-type]
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)  # without the lock both would have met the old champion by now
        return decision

    monkeypatch.setattr(registry, "_judge", slowly)
    receipts: list[registry.Receipt] = []
    threads = [threading.Thread(target=lambda s=s: receipts.append(arrive(0.1, seed=s))) for s in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.decision for receipt in receipts) == ["kept as challenger", "promoted"]
    assert champion(name) == next(r.version for r in receipts if r.decision == "promoted")


def test_a_version_is_judged_once(arrive: Arrive) -> None:
    arrive(0)
    better = arrive(0.1, seed=1)
    registry.rollback(better.name, None)
    again = arrive(0.1, seed=1)
    assert (again.version, again.reason) == (2, better.reason)
    assert champion(better.name) == 1


def test_rollback_goes_to_the_champion_before_or_to_any_version(arrive: Arrive) -> None:
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
        assert checkpoint.read_config(registry.fetch(uri))["weights_sha256"] == receipt.weights_sha256
    model = checkpoint.load(registry.fetch(receipt.uri))
    assert isinstance(model.nll(torch.zeros(1, 1, 5, 8, dtype=torch.uint8)), torch.Tensor)


@pytest.mark.parametrize(
    ("end", "message"),
    [("@best", "which has models:/{name}@champion, models:/{name}/1"), ("/7", "which has"), ("", "NAME@ALIAS")],
)
def test_fetch_says_what_there_is(arrive: Arrive, end: str, message: str) -> None:
    name = arrive(0).name
    with pytest.raises(ValueError, match=f"models:/{name}") as error:
        registry.fetch(f"models:/{name}{end}")
    assert message.format(name=name) in str(error.value)


def test_without_a_store_nothing_is_fetched_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match=r"mlflow\.db: no such file"):
        registry.fetch("models:/digits@champion")
    assert registry.seeds("digits") == []
    assert not list(tmp_path.iterdir())
