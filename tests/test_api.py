"""The model that users get: `pixelcnn.load` returns it, and images that are not the model's are refused everywhere."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pixelcnn
from pixelcnn import checkpoint
from pixelcnn.api import Model
from pixelcnn.config import Given
from pixelcnn.data.images import check_images
from pixelcnn.generation import completion, sampling
from pixelcnn.generation.compression import compress
from tests.conftest import Build, images, labels

BAD: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda x: x.float() / 3, r"float32 \(2, 3, 5, 8\) is not uint8 \(N, 3, 5, 8\) with integers 0 ... 3"),
    (lambda x: (x.float() / 3).numpy(), r"float32 \(2, 3, 5, 8\) is not uint8"),
    (lambda x: x.long(), r"int64 \(2, 3, 5, 8\) is not uint8"),
    (lambda x: x.permute(0, 2, 3, 1), r"uint8 \(2, 5, 8, 3\) is not uint8 \(N, 3, 5, 8\)"),
    (lambda x: x[:, :1], r"uint8 \(2, 1, 5, 8\) is not uint8 \(N, 3, 5, 8\)"),
    (lambda x: x + 200, "values are 0 ... 3, but 203 is among them"),
    (lambda x: x[:0], r"uint8 \(0, 3, 5, 8\) holds no pixels"),
    (lambda x: x.tolist(), r"a list is no tensor or array of uint8"),
]


@pytest.fixture
def model(small_model: Build) -> Model:
    return Model(small_model(3))


@pytest.fixture
def of_classes(small_model: Build) -> Model:
    return Model(small_model(3, "label"))


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_images_that_are_not_the_model_s_are_refused_and_never_answered(
    model: Model, spoil: Callable[[Tensor], Any], message: str
) -> None:
    x = images(model.inner, 2)
    x[0, 0, 0, 0] = 3
    spoilt = spoil(x)
    known = torch.zeros(5, 8, dtype=torch.bool)
    for call in (model.nll, model.bits_per_dim, lambda bad: model.complete(bad, known)):
        with pytest.raises(ValueError, match=message):
            call(spoilt)


@pytest.mark.parametrize(("spoil", "message"), [BAD[0], BAD[5]])
def test_completion_and_compression_refuse_the_same_images_in_the_same_words(
    model: Model, spoil: Callable[[Tensor], Any], message: str
) -> None:
    x = images(model.inner, 2)
    x[0, 0, 0, 0] = 3
    known, generator = torch.zeros(5, 8, dtype=torch.bool), torch.Generator()
    with pytest.raises(ValueError, match=message):
        completion.complete(model.inner, spoil(x), known, generator)
    with pytest.raises(ValueError, match=message.replace("2, 3, 5, 8", "3, 5, 8").replace("N, 3, 5, 8", "N, 3, H, W")):
        compress(model.inner, {"bad": spoil(x)[0]}, 1)


def test_a_numpy_array_and_a_single_image_have_one_meaning(model: Model) -> None:
    x = images(model.inner, 3)
    expected = model.inner.nll(x).detach()
    torch.testing.assert_close(model.nll(x), expected)
    torch.testing.assert_close(model.nll(x.numpy()), expected)
    torch.testing.assert_close(model.nll(np.asfortranarray(x.numpy())), expected)
    torch.testing.assert_close(model.nll(x[1]), expected[1:2])
    torch.testing.assert_close(model.bits_per_dim(x), expected / (120 * math.log(2)))


def test_nothing_has_a_gradient(model: Model) -> None:
    assert not model.nll(images(model.inner, 1)).requires_grad


def test_without_a_label_a_class_conditional_model_answers_for_the_mean_over_its_classes(of_classes: Model) -> None:
    x = images(of_classes.inner, 2)
    each = torch.stack([of_classes.nll(x, label=name) for name in of_classes.classes])
    torch.testing.assert_close(of_classes.nll(x), -torch.log(torch.exp(-each.double()).mean(0)).to(each.dtype))
    torch.testing.assert_close(of_classes.nll(x, label=[2, 0]), torch.stack([each[2, 0], each[0, 1]]))


def test_a_label_is_a_name_or_a_number(of_classes: Model, model: Model) -> None:
    assert of_classes.label("dog") == of_classes.label("1") == of_classes.label(1) == 1
    with pytest.raises(ValueError, match=r"label: 'wolf' is neither of 0 ... 2 nor one of cat, dog, emu"):
        of_classes.label("wolf")
    with pytest.raises(ValueError, match="label: this model is not class-conditional"):
        model.nll(images(model.inner, 1), label=0)
    with pytest.raises(ValueError, match=r"cond: 3 conditions for 2 images"):
        of_classes.nll(images(of_classes.inner, 2), label=[0, 1, 2])


def test_samples_are_those_of_the_sampler_for_the_seed(of_classes: Model) -> None:
    inner = of_classes.inner
    expected = sampling.sample(inner, 3, torch.Generator().manual_seed(4), labels(inner, 3))
    assert torch.equal(of_classes.sample(3, seed=4, label=range(3)), expected)
    with pytest.raises(ValueError, match="needs a label per image"):
        of_classes.sample(3)


def test_a_completion_keeps_what_is_known(model: Model) -> None:
    known = torch.zeros(5, 8, dtype=torch.bool)
    known[:2] = True
    x = images(model.inner, 2)
    drawn = model.complete(x, known, seed=1)
    assert torch.equal(drawn[..., :2, :], x[..., :2, :])
    assert not torch.equal(drawn, x)


def test_only_an_auto_encoder_encodes(model: Model) -> None:
    with pytest.raises(ValueError, match="has no encoder"):
        model.encode(images(model.inner, 1))


def test_load_returns_it_and_its_repr_says_what_it_is(small_model: Build, tmp_path: Path) -> None:
    saved = small_model(3, "label")
    checkpoint.save(tmp_path, saved, saved.network.state_dict())
    loaded = pixelcnn.load(tmp_path)
    assert isinstance(loaded, Model)
    assert loaded.given is Given.LABEL
    assert loaded.exact
    assert repr(loaded) == "<pixelcnn model gated_pixelcnn of noise 3x5x8, given its label, on cpu>"
    assert repr(loaded.to("cpu")) == repr(loaded)


def test_the_check_takes_any_size_where_none_is_asked_for() -> None:
    assert check_images(torch.zeros(3, 7, 9, dtype=torch.uint8), channels=3, levels=256).shape == (1, 3, 7, 9)
