"""The likeliest and the least likely images: which they are, and the bits of their pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixelcnn.data.dataset import Split
from pixelcnn.evaluation import extremes
from pixelcnn.evaluation.nll import nll
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.reporting.reports import read_extremes
from tests.conftest import Build, images, labels


@pytest.mark.parametrize(("num", "shown"), [(40, 16), (5, 5)])
@pytest.mark.parametrize("condition", ["none", "label"])
def test_the_bits_of_the_pixels_of_an_extreme_image_add_up_to_its_nll(
    small_model: Build, tmp_path: Path, condition: str, num: int, shown: int
) -> None:
    model = small_model(3, condition)
    split = Split(images(model, num), labels(model, num), None)
    bits = bits_per_dim(nll(model, split, 8), model.dims)
    (tmp_path / "evaluate").mkdir()
    extremes.write(tmp_path / "evaluate" / "run.npz", model, split, bits)
    found = read_extremes(tmp_path, "run")
    ordered = bits.sort().values.numpy()
    np.testing.assert_array_equal(
        found.bits_per_dim, np.r_[ordered[: shown // 2], ordered[num - (shown - shown // 2) :]]
    )
    assert found.bits is not None
    assert found.pixels.shape == (shown, *model.shape)
    np.testing.assert_allclose(found.bits.sum((1, 2)) / model.dims, found.bits_per_dim, rtol=1e-5)


def test_the_file_is_the_same_for_the_same_images(small_model: Build, tmp_path: Path) -> None:
    model = small_model(1)
    split = Split(images(model, 9), None, None)
    for name in ("a", "b"):
        extremes.write(tmp_path / name, model, split, torch.arange(9.0))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
