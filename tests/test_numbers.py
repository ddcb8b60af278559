"""No number is believed that is none: weights, NLLs, scores, temperatures, claims."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from pixelcnn import api, checkpoint, files, params
from pixelcnn.cli import main
from pixelcnn.data.dataset import CARD, Split, image_hash, write_info
from pixelcnn.data.writer import SplitWriter
from pixelcnn.evaluation.nll import nll
from pixelcnn.evaluation.scores import score
from pixelcnn.likelihoods.base import bits_per_dim, check_nll
from pixelcnn.model import Data, Model
from pixelcnn.schemas import EvaluateReport, Score
from pixelcnn.training import loop
from tests.conftest import DEMO, images
from tests.test_architectures import model_of
from tests.test_datasets import card

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    from pixelcnn.tracking.model_package import ModelPackage, read_nll, remeasure

NO_NLL = [math.nan, math.inf, -math.inf, -5.0]


def saved(folder: Path, change: Any = lambda w: w) -> Model:
    """A tiny model, saved with changed weights."""
    model = model_of("gated_pixelcnn", 1)
    model.network.eval()
    checkpoint.save(folder, model, {name: change(w.clone()) for name, w in model.network.state_dict().items()})
    return model


@pytest.mark.parametrize(
    "verb",
    [
        "score m given",
        "sample m --num 1 -o a.png",
        "complete m given --keep top-half -o a.png",
        "compress m given -o a.png",
    ],
)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e30])
def test_a_model_whose_weights_are_none_is_refused_by_every_verb(
    verb: str, wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("m"), lambda w: w.fill_(wrong) if w.is_floating_point() else w)
    with pytest.raises(SystemExit) as end:
        main(verb.split())
    assert end.value.code == 2
    assert "error: m/model.safetensors: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("wrong", NO_NLL)
def test_nlls_that_are_none_are_refused_by_evaluation_and_by_the_api(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats = torch.tensor([1.0, 2.0, wrong, 3.0])
    for check in (check_nll, lambda n: score(n, 24)):
        with pytest.raises(ValueError, match=r"the NLL of image 2 is .* nats, which is impossible"):
            check(nats)
    model = model_of("gated_pixelcnn", 1)
    monkeypatch.setattr(type(model.network), "nll", lambda *_: nats[2:3])
    with pytest.raises(ValueError, match="the NLL of image 0"):
        api.Model(model).bits_per_dim(images(model, 1))


def test_rounding_below_zero_is_zero() -> None:
    assert score(torch.tensor([-1e-4, -1e-4]), 24).bits_per_dim == 0


def test_the_score_of_one_image_has_no_standard_error_in_json(tmp_path: Path) -> None:
    one = score(torch.tensor([3.0]), 24)
    assert one.standard_error is None
    EvaluateReport(test=one, validation=one, train=one).write(tmp_path / "a.json")
    assert "standard_error" not in json.loads((tmp_path / "a.json").read_text())["test"]
    assert EvaluateReport.read(tmp_path / "a.json", "").test == one


def test_json_is_written_and_read_without_nan(tmp_path: Path) -> None:
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "a.json", {"a": wrong})
        with pytest.raises(ValueError, match="finite number"):
            Score(bits_per_dim=wrong, standard_error=1, num_images=2)
        (tmp_path / "b.json").write_text(json.dumps({"a": wrong}))
        with pytest.raises(ValueError, match=r"b\.json: not JSON: (NaN|Infinity) is not JSON"):
            files.read_json(tmp_path / "b.json", "")
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Score(bits_per_dim=-5, standard_error=1, num_images=2)
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("best", [math.inf, math.nan, 1e25, 30.0])
def test_a_training_that_has_diverged_ends_with_an_error(best: float) -> None:
    model = model_of("gated_pixelcnn", 1)  # of 8 levels
    training: Any = SimpleNamespace(model=model, best_bits_per_dim=best, step=9)
    with pytest.raises(FloatingPointError, match=r"step 9: the training has diverged: .* uniform distribution has 3"):
        loop._check_best(training)
    loop._check_best(SimpleNamespace(model=model, best_bits_per_dim=3.5, step=9))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf", "0", "-1", "1e-320", "1e-9", "1e9", "1e400"])
def test_temperatures_at_which_nothing_can_be_drawn_are_refused_at_every_door(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in ("sample m -o a.png", "complete m x --keep top-half -o a.png", "reconstruct m x -o a.png"):
        with pytest.raises(SystemExit) as end:
            main([*verb.split(), f"--temperature={wrong}"])
        assert end.value.code == 2
        assert "is not a number from 0.001 to 1000" in capsys.readouterr().err
    model = api.Model(model_of("gated_pixelcnn", 1))
    with pytest.raises(ValueError, match=r"temperature: .* is not a number from 0\.001 to 1000"):
        model.sample(1, temperature=float(wrong))
    with pytest.raises(ValueError, match="temperature: "):
        model.complete(images(model.inner, 1), torch.ones(4, 6, dtype=torch.bool), temperature=float(wrong))
    content = YAML(typ="safe").load(DEMO)
    content["sample"]["temperature"] = float(wrong)
    with pytest.raises(ValueError, match=r"p: sample\.temperature: "):
        params.parse(content, "p")


@pytest.mark.parametrize("key", ["learning_rate", "weight_decay", "gradient_clip"])
def test_rates_that_are_not_finite_are_refused(key: str) -> None:
    content = YAML(typ="safe").load(DEMO)
    for wrong in (math.inf, math.nan):
        content["shared"]["train"][key] = wrong
        with pytest.raises(ValueError, match=rf"p: shared\.train\.{key}: "):
            params.parse(content, "p")


# Claims of model packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelPackage:
    """A package whose scores are true, in a folder with the prepared data set they were measured on."""
    monkeypatch.chdir(tmp_path)
    model = model_of("gated_pixelcnn", 1)
    x, folder = images(model, 40), Path("data/prepared/mine")
    with SplitWriter(folder, "test", model.shape, False, 100) as writer:
        for image in x:
            writer.add(image.numpy().tobytes(), None, image_hash(image.numpy().tobytes()))
    info = card(splits={"test": writer.info}, shape=model.shape, levels=8, classes=())
    write_info(info, folder / CARD)
    model = replace(model, data=replace(Data.of(info), dataset="theirs"))
    model.network.eval()
    checkpoint.save(Path("run"), model, model.network.state_dict())
    bits = bits_per_dim(nll(model, Split(x, None), 64), model.dims).numpy()
    pd.DataFrame({"split": "test", "image": range(40), "bits_per_dim": bits}).to_parquet("nll.parquet")
    one = Score(bits_per_dim=float(bits.mean()), standard_error=0.1, num_images=40)
    scores = EvaluateReport(test=one, validation=one, train=one)
    return ModelPackage(Path("run"), "run", 0, "A card", scores, Path("nll.parquet"), Path("nll.parquet"))


def test_true_claims_are_confirmed_and_others_need_the_images(package: ModelPackage) -> None:
    assert remeasure(package, Path("data/prepared")) == ""
    assert "no data set in elsewhere has its test images" in remeasure(package, Path("elsewhere"))


@pytest.mark.parametrize("row", [0, 31])
def test_a_claim_that_is_not_true_is_refused(package: ModelPackage, row: int) -> None:
    table = pd.read_parquet(package.nll)
    table.loc[row, "bits_per_dim"] -= 0.5
    table.to_parquet(package.nll)
    with pytest.raises(ValueError, match=rf"nll\.parquet: claims .* bits/dim for test image {row}, which has"):
        remeasure(package, Path("data/prepared"))
    table[:20].to_parquet(package.nll)
    with pytest.raises(ValueError, match="does not have one row for each test image"):
        remeasure(package, Path("data/prepared"))


@pytest.mark.parametrize("wrong", NO_NLL)
def test_a_table_of_numbers_that_are_no_nlls_is_refused(tmp_path: Path, wrong: float) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"split": "test", "image": range(3), "bits_per_dim": [1.0, wrong, 2.0]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"a\.parquet: the NLL of image 1"):
        read_nll(path)
    for damaged in (b"", b"PAR1", path.read_bytes()[:-9], np.arange(100).tobytes()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.parquet: is not a table of NLLs"):
            read_nll(path)
