"""Download and preprocess the real archives of CIFAR-10 and ImageNet, or samples of them, in PIXELCNN_ARCHIVES."""

import os
from pathlib import Path

import numpy as np
import pytest

from pixelcnn import checkpoint, pretrained
from pixelcnn.data import sources
from pixelcnn.data.config import Dataset
from pixelcnn.data.dataset import DatasetInfo, join_fingerprints, read_split
from pixelcnn.data.download import download
from pixelcnn.data.preprocess import preprocess
from pixelcnn.evaluation.nll import nll
from pixelcnn.evaluation.scores import score
from pixelcnn.tracking import model_package

ARCHIVES = os.environ.get("PIXELCNN_ARCHIVES", "")

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not ARCHIVES, reason="PIXELCNN_ARCHIVES does not name a folder of archives"),
    pytest.mark.skipif(not Path(ARCHIVES).is_dir(), reason=f"PIXELCNN_ARCHIVES: {ARCHIVES} is not a folder"),
]


def prepare(name: str, folder: Path) -> DatasetInfo:
    """Both stages, as dvc.yaml runs them."""
    settings = Dataset.model_validate(
        {
            "download": {"source": name, "origin": ARCHIVES, "verify": "any"},
            "preprocess": {"validation_fraction": 0.1, "seed": 0, "images_per_shard": 10000, "class_names": None},
        }
    )
    try:
        download(settings.download, folder / "raw", folder / "partial")
    except ValueError as error:
        if "looked for" in str(error):
            pytest.skip(str(error))
        raise
    return preprocess(name, sources.load(name), settings, folder / "raw", folder / "prepared", workers=2)


def test_cifar10_has_the_published_fingerprint(tmp_path: Path) -> None:
    card = prepare("cifar10", tmp_path)
    known, splits = sources.load("cifar10").fingerprints, card.splits
    assert card.comparable
    assert splits["test"].num_images == 10_000
    assert splits["test"].fingerprint == known["test"]
    assert splits["train"].num_images + splits["validation"].num_images == 50_000
    assert join_fingerprints(splits["train"].fingerprint, splits["validation"].fingerprint) == known["train"]
    np.testing.assert_allclose(np.array(card.channel_means) / 255, [0.4914, 0.4822, 0.4465], atol=0.001)
    np.testing.assert_allclose(np.array(card.channel_deviations) / 255, [0.2470, 0.2435, 0.2616], atol=0.001)
    test = read_split(tmp_path / "prepared", "test")
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels is not None
    assert test.labels.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("release", ["vdo2016", "box2017"])
def test_imagenet_is_comparable_only_if_complete(release: str, size: int, tmp_path: Path) -> None:
    name = f"imagenet{size}_{release}"
    card = prepare(name, tmp_path)
    published = sources.load(name).num_images["test"]
    test = read_split(tmp_path / "prepared", "test")
    assert test.images.shape == (card.splits["test"].num_images, 3, size, size)
    assert (test.labels is None) == (release == "vdo2016")
    if len(test.images) < published:
        assert not card.comparable
        assert card.comparable_reason.startswith("a sample")
    assert 0.05 < card.splits["validation"].num_images / card.splits["train"].num_images < 0.15


@pytest.mark.parametrize("size", [32, 64])
def test_both_releases_of_the_sample_hold_the_same_images(size: int, tmp_path: Path) -> None:
    """The two formats are read by different code; on a sample in both formats they must agree."""
    cards = [prepare(f"imagenet{size}_{release}", tmp_path / release) for release in ("vdo2016", "box2017")]
    if cards[0].splits["test"].num_images == sources.load(f"imagenet{size}_vdo2016").num_images["test"]:
        pytest.skip("these are the complete releases, whose images differ")
    assert cards[0].splits["test"].fingerprint == cards[1].splits["test"].fingerprint
    assert cards[0].splits["validation"].fingerprint == cards[1].splits["validation"].fingerprint


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", pretrained.folders())
def test_a_bundled_model_reproduces_its_reported_score_on_all_test_images(name: str, tmp_path: Path) -> None:
    model, claimed = checkpoint.load(pretrained.folders()[name]), model_package.unpack(pretrained.folders()[name])
    card = prepare(model.data.dataset, tmp_path)
    assert card.splits["test"].fingerprint == model.data.fingerprints["test"]
    test = read_split(tmp_path / "prepared", "test")
    found = score(nll(model, test, batch_size=50), model.dims)
    assert found.num_images == claimed.scores.test.num_images == 10_000
    assert found.bits_per_dim == pytest.approx(claimed.scores.test.bits_per_dim, abs=5e-4)
