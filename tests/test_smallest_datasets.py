"""A data set of one class and a single image in each split goes through the stages, and its model is no champion."""

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from pixelcnn.data.dataset import CARD, SPLITS, image_hash, write_info
from pixelcnn.data.writer import SplitWriter
from pixelcnn.evaluation.comparison import compare
from pixelcnn.schemas import EvaluateReport
from pixelcnn.tracking import runs
from tests.conftest import DEMO
from tests.test_datasets import card
from tests.test_tracking import store_is_down

RUN, DATA = "digits-gated-label", "data/prepared/digits"


def prepare() -> None:
    """A digit of the one class in each split, in the working folder."""
    splits, pixels = {}, np.random.default_rng(0).integers(0, 17, (1, 8, 8), np.uint8).tobytes()
    for split in SPLITS:
        with SplitWriter(Path(DATA), split, (1, 8, 8), True, 100) as writer:
            writer.add(pixels, 0, image_hash(pixels))
        splits[split] = writer.info
    info = card(dataset="digits", source="digits", shape=(1, 8, 8), levels=17, classes=("only",), splits=splits)
    for path in (f"{DATA}/{CARD}", "reports/preprocess/digits.json"):
        write_info(info, Path(path))


def stage(name: str, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        importlib.import_module(f"pixelcnn.stages.{name}").main()


def test_it_is_trained_evaluated_sampled_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "_live", lambda _: nullcontext())
    prepare()
    params = YAML(typ="safe").load(DEMO)
    run = params["runs"][RUN]
    run["model"] |= {"num_layers": 2, "hidden_channels": 8, "head_channels": 8}
    run["train"] = {"steps": 2, "batch_size": 4, "warmup_steps": 1, "validate_every": 1}
    params["runs"], params["train"]["pictures_every"], params["sample"]["per_class"] = {RUN: run}, 1, 2
    with Path("params.yaml").open("w") as file:
        YAML().dump(params, file)
    model = ["--model", f"models/{RUN}", "--data", DATA]
    with store_is_down():
        stage("baseline", "digits", "--data", DATA, "--out", "reports/baseline/digits.json")
        stage("train", RUN, "--data", DATA, "--out", f"models/{RUN}", "--report", f"reports/train/{RUN}")
        stage("evaluate", RUN, *model, "--out", f"reports/evaluate/{RUN}")
        stage("sample", RUN, *model, "--out", f"reports/sample/{RUN}.png")
        stage("report", "--reports", "reports", "--out", "reports/report")
    test = EvaluateReport.read(Path(f"reports/evaluate/{RUN}.scores.json"), "").test
    assert (test.num_images, test.standard_error) == (1, None)
    assert f"{test.bits_per_dim:.3f} <small>bits/dim" in Path("reports/report/index.html").read_text()


def test_a_single_test_image_lets_no_version_replace_the_champion() -> None:
    comparison = compare(np.array([3.0]), np.array([1.0]), 0.95)
    assert comparison.gain == 2
    assert not comparison.exceeds(0.0)
    assert str(comparison) == "gain +2.0000 bits/dim (-inf to +inf at an error of 5%, 1 images)"
