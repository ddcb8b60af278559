"""The model that users get: `pixelcnn.load` returns it, and images that are not the model's are refused everywhere."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pixelcnn
from pixelcnn import api
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
    (lambda x: x.permute(0, 3, 1, 2), r"uint8 \(2, 8, 3, 5\) is not uint8 \(N, 3, 5, 8\)"),
    (lambda x: x[:, :1], r"uint8 \(2, 1, 5, 8\) is not uint8 \(N, 3, 5, 8\)"),
    (lambda x: x + 200, "values must be 0 ... 3, but there is 203"),
    (lambda x: x[:0], r"uint8 \(0, 3, 5, 8\) holds no pixels"),
    (lambda x: x.tolist(), r"a list is not a tensor or array of uint8"),
    (lambda _: [], r"images: an empty list is not a tensor or array of uint8"),
    (lambda x: x.float() / 3, r"of floats in \[0, 1\] \(x \* 3\).round\(\).to\(torch.uint8\) makes them"),
    (lambda x: x[0, 0], r"uint8 \(5, 8\) is not uint8 \(N, 3, 5, 8\)"),
    (lambda x: [x[0], x[0, :, :, :7]], r"images\[1\]: uint8 \(3, 5, 7\) is not uint8 \(N, 3, 5, 8\)"),
    (lambda x: [x[0], x], r"images\[1\]: \(2, 3, 5, 8\) is not a single image like the others"),
    (lambda _: Image.new("RGB", (7, 5)), r"a PIL image of 7 x 5 is not uint8 \(N, 3, 5, 8\)"),
    (lambda _: Image.new("RGBA", (8, 5)), "a PIL image of mode 'RGBA' is not one of 'RGB'; convert it first"),
    (lambda _: Image.new("RGB", (8, 5), (7, 0, 0)), "the grey value 7 is not one of the 4 levels"),
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
    for one in (x[1], x[1].permute(1, 2, 0), x[1].permute(1, 2, 0).numpy(), picture(x[1])):
        torch.testing.assert_close(model.nll(one), expected[1:2])
    torch.testing.assert_close(model.nll(x.permute(0, 2, 3, 1)), expected)
    torch.testing.assert_close(model.nll([x[0], picture(x[1]), x[2]]), expected)
    torch.testing.assert_close(model.bits_per_dim(x), expected / (120 * math.log(2)))


def picture(image: Tensor) -> Image.Image:
    """An image (3, H, W) of 4 levels as a PIL image, whose grey values are 0, 85, 170 and 255."""
    return Image.fromarray((image * 85).permute(1, 2, 0).contiguous().numpy())


def test_grey_images_may_lack_the_axis_of_their_channel(small_model: Build) -> None:
    model = Model(small_model(1))
    x = images(model.inner, 3)
    expected = model.nll(x)
    torch.testing.assert_close(model.nll(x[:, 0].numpy()), expected)
    torch.testing.assert_close(model.nll(x[2, 0]), expected[2:])


def test_gradients_are_those_of_the_weights_and_only_if_asked_for(model: Model) -> None:
    x = images(model.inner, 3)
    assert not model.nll(x).requires_grad
    model.nll(x, grad=True).mean().backward()  # in one piece or several
    expected = torch.autograd.grad(model.inner.nll(x).mean(), [*model.network.parameters()])
    for weight, gradient in zip(model.network.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    drawn = model.sample(1)
    drawn[0] = 0  # no inference tensor, which could not be changed
    assert not drawn.any()


def test_however_many_images_are_asked_for_few_are_evaluated_at_a_time(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, batches = images(model.inner, 5), []
    expected, forward = model.nll(x), model.network.forward
    monkeypatch.setattr(api, "POSITIONS", 2 * 5 * 8 + 1)
    monkeypatch.setattr(model.network, "forward", lambda x, cond: (batches.append(len(x)), forward(x, cond))[1])
    torch.testing.assert_close(model.nll(x), expected)
    assert batches == [2, 2, 1]


@pytest.mark.parametrize("given", ["none", "label"])
def test_the_map_sums_to_the_nll_and_has_nothing_of_later_sub_pixels(small_model: Build, given: str) -> None:
    model = Model(small_model(3, given))
    x = images(model.inner, 3)
    nats = model.nll_map(x)
    torch.testing.assert_close(nats.sum((1, 2, 3)), model.nll(x))
    x[:, 2, 3, 4] = 3 - x[:, 2, 3, 4]
    same = (model.nll_map(x) - nats).abs().amax(0).permute(1, 2, 0).flatten() < 1e-9  # in raster-scan order
    place = (3 * 8 + 4) * 3 + 2
    assert same[:place].all()
    assert not same[place]
    if given == "label":
        torch.testing.assert_close(model.nll_map(x, label=1).sum((1, 2, 3)), model.nll(x, label=1))


def test_an_auto_encoder_reconstructs_and_interpolates(small_model: Build) -> None:
    coder = Model(small_model(1, "code-map", 8, name="pixelcnn_autoencoder", code=2, encoder_channels=4))
    x = images(coder.inner, 2)
    codes = coder.encode(x)
    assert codes.shape == (2, 2)
    drawn = coder.reconstruct(x, num=3, seed=5)
    assert torch.equal(drawn.flatten(0, 1), coder.sample(6, seed=5, cond=codes.repeat_interleave(3, 0)))
    line = coder.interpolate(x[:1], x[1:], steps=3, seed=2)
    assert torch.equal(line, coder.interpolate(codes[:1], codes[1:], steps=3, seed=2))
    assert torch.equal(line[0, 2:], coder.sample(1, seed=2, cond=codes[1]))
    torch.testing.assert_close(coder.nll_map(x).sum((1, 2, 3)), coder.nll(x))
    with pytest.raises(ValueError, match=r"first, last: \(1, 2\) and \(2, 2\) are not pairs"):
        coder.interpolate(x[:1], x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "num: 0 is not a whole number of 1 ... 1,000,000,000"),
        (lambda m: m.sample(10**12), "num: 1000000000000 is not a whole number of 1 ... 1,000,000,000"),
        (lambda m: m.reconstruct(m.sample(1), num=-1), "num: -1 is not a whole number"),
        (lambda m: m.sample(1, cond="cat"), "cond: a str is not a tensor"),
        (lambda m: m.sample(1, temperature="hot"), "temperature: 'hot' is not a number"),
        (lambda m: m.sample(1, temperature=True), "temperature: True is not a number"),
        (lambda m: m.complete(m.sample(1), None), "known: a NoneType is not a tensor"),
        (lambda m: m.picture(m.sample(1), columns=0), "columns: 0 is not a whole number"),
        (lambda m: m.nll(m.sample(1).to_sparse()), "images: uint8 .* without dense values is not"),
        (lambda m: m.nll(m.sample(1).to("meta")), "images: uint8 .* without dense values is not"),
        (
            lambda m: m.nll(np.ma.masked_array(m.sample(1), mask=True)),
            "images: an array with a mask, which would be lost",
        ),
        (lambda m: m.to("gpu"), "device: 'gpu': "),
        (lambda m: m.sample(1, seed=-1), r"seed: -1 is not a whole number of 0 ... 2147483647"),
        (lambda m: m.sample(1, temperature=0), "temperature: 0 is not a number"),
        (lambda m: m.complete(m.sample(2), np.ones((5, 8))), r"known: float64 \(5, 8\) is not bool \(5, 8\) or"),
        (lambda m: m.interpolate(torch.ones(1, 2), torch.ones(1, 2)), "a model given none has no codes or embeddings"),
        (lambda m: m.save("models/mine"), r"folder: models/mine is not safe for your files"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(model: Model, call: Callable[[Model], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_picture_is_a_grid_of_the_images(model: Model) -> None:
    x = images(model.inner, 6)
    shown, enlarged = model.picture(x, columns=3), 23
    assert shown.size == (28 * enlarged, 13 * enlarged)  # 3 x 2 images of 8 x 5 with a line around each
    assert shown.getpixel((enlarged * 1, enlarged * 1)) == tuple((x[0, :, 0, 0] * 85).tolist())


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
    with pytest.raises(ValueError, match=r"label: 3 conditions for 2 images"):
        of_classes.nll(images(of_classes.inner, 2), label=[0, 1, 2])


def test_samples_are_those_of_the_sampler_for_the_seed(of_classes: Model) -> None:
    inner = of_classes.inner
    expected = sampling.sample(inner, 3, torch.Generator().manual_seed(4), labels(inner, 3))
    for several in (range(3), np.arange(3), ["cat", "dog", "emu"]):
        assert torch.equal(of_classes.sample(3, seed=4, label=several), expected)
    assert torch.equal(of_classes.sample(2, seed=4, label=np.int64(1)), of_classes.sample(2, seed=4, label=["dog"] * 2))
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


def test_load_returns_what_was_saved_and_its_repr_says_what_it_is(small_model: Build, tmp_path: Path) -> None:
    Model(small_model(3, "label")).save(tmp_path)
    loaded = pixelcnn.load(tmp_path)
    assert isinstance(loaded, Model)
    assert loaded.given is Given.LABEL
    assert loaded.exact
    assert repr(loaded) == "<pixelcnn model gated_pixelcnn of noise 3x5x8, given its label, on cpu>"
    assert repr(loaded.to("cpu")) == repr(loaded)


def test_the_check_takes_any_size_where_none_is_asked_for() -> None:
    assert check_images(torch.zeros(3, 7, 9, dtype=torch.uint8), channels=3, levels=256).shape == (1, 3, 7, 9)
