"""`pixelcnn.fit`: training from Python, on tensors, arrays and data sets as torchvision has them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import pixelcnn
from pixelcnn import fitting

TINY: dict[str, Any] = {"num_layers": 2, "hidden_channels": 8, "head_channels": 8, "dropout": 0.0}
SHORT: dict[str, Any] = {"steps": 45, "warmup_steps": 5, "learning_rate": 0.02, "batch_size": 16, "validate_every": 15}
LIKE = {"like": "demo/digits-gated", "model": TINY, "train": SHORT, "levels": 4}


def stripes(num: int) -> tuple[Tensor, Tensor]:
    """Images (num, 1, 5, 6) of 4 levels with equal rows (label 0) or equal columns (label 1)."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 4, (num, 1, 5, 6), generator=generator, dtype=torch.uint8)
    labels = torch.arange(num) % 2
    rows, columns = values[..., :1].expand_as(values), values[..., :1, :].expand_as(values)
    return torch.where(labels[:, None, None, None] == 0, rows, columns), labels


class Pictures(Dataset[tuple[Image.Image, int]]):
    """A data set as torchvision has them: PIL images and their classes."""

    classes = ["rows", "columns"]

    def __init__(self, images: Tensor, labels: Tensor):
        self.pairs = list(zip(images[:, 0].numpy() * 85, labels.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, n: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pairs[n][0]), self.pairs[n][1]


def test_a_tensor_trains_a_model_that_is_saved_and_loaded(tmp_path: Path) -> None:
    x, _ = stripes(200)
    points: list[dict[str, float]] = []
    before = torch.get_rng_state()
    model = pixelcnn.fit(x, **LIKE, log=points.append, name="stripes")
    assert torch.equal(torch.get_rng_state(), before)
    assert [point["step"] for point in points] == [15, 30, 45]
    losses = [point["validation_bits_per_dim"] for point in points]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 1.9  # of the uniform distribution: 2
    model.save(tmp_path / "stripes")
    loaded = pixelcnn.load(tmp_path / "stripes")
    assert repr(loaded) == "<pixelcnn model gated_pixelcnn of stripes 1x5x6, on cpu>"
    assert torch.equal(loaded.nll(x[:4]), model.nll(x[:4]))
    again = pixelcnn.fit(x.numpy(), **LIKE, log=lambda _: None, name="stripes")
    torch.testing.assert_close(again.nll(x[:4]), model.nll(x[:4]))


def test_a_data_set_of_pictures_and_classes_trains_a_class_conditional_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = stripes(120)
    settings = LIKE | {"like": "demo/digits-gated-label", "train": SHORT | {"steps": 20}}
    model = pixelcnn.fit(Pictures(x[:100], y[:100]), **settings, validation=Pictures(x[100:], y[100:]))
    assert model.classes == ("rows", "columns")
    assert model.sample(2, label="rows").shape == (2, 1, 5, 6)
    assert "step 20 of 20: train " in capsys.readouterr().out
    same = pixelcnn.fit(x[:100], y[:100], **settings, validation=(x[100:], y[100:]))
    torch.testing.assert_close(same.nll(x[:2], label=y[:2]), model.nll(x[:2], label=y[:2]))
    assert same.classes == ("0", "1")


def test_images_are_read_alike_whatever_holds_them() -> None:
    x, y = torch.randint(0, 256, (6, 3, 5, 7), dtype=torch.uint8), torch.arange(6)
    last = x.permute(0, 2, 3, 1).numpy()
    pictures = [Image.fromarray(np.ascontiguousarray(image)) for image in last]
    for images in (x, x.numpy(), last, list(last), pictures, TensorDataset(x), iter(pictures)):
        read, labels, _ = fitting.read(images, None, 256, "images")
        assert torch.equal(read, x)
        assert labels is None
    read, labels, classes = fitting.read(TensorDataset(x, y), None, 256, "images")
    assert torch.equal(read, x)
    assert labels is not None
    assert labels.tolist() == y.tolist()
    assert classes == ("0", "1", "2", "3", "4", "5")


X, Y = stripes(200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": X.float() / 3}, r"images: float32 \(200, 1, 5, 6\) is not uint8 .* \(x \* 3\)"),
        ({"images": [X[0], X[1, :, :4]]}, r"images\[1\]: uint8 \(1, 4, 6\) is not uint8 \(N, 1, 5, 6\)"),
        ({"images": []}, "images: holds no image"),
        ({"images": 5}, "images: a int is no tensor, array, Dataset or list of images"),
        ({"labels": Y[:3]}, "labels: 3 for 200 images"),
        ({"labels": Y / 2}, r"labels: float32 \(200,\) is not whole numbers"),
        ({"labels": ["a", "b"] * 100}, r"labels: <U1 \(200,\) is not whole numbers"),
        ({"labels": [[0], [0, 1]] * 100}, "labels: .* is not whole numbers"),
        ({"labels": np.full(200, 10**12)}, "labels: 1000000000000 is not one of whole numbers .* 0 ... 32767"),
        ({"labels": Y, "classes": ["a", "\x1b[2J"]}, "classes: .* is not the name of a class: printable"),
        ({"levels": "4"}, "levels: '4' is not a number"),
        ({"initial": "cifar10"}, "initial: 'cifar10' is not a model; pixelcnn.load gives one"),
        ({"device": "gpu"}, "device: 'gpu': "),
        ({"labels": Y, "classes": ["rows"]}, r"classes: 1 names for labels of 0 ... 1"),
        ({"validation": 2}, "validation: 2 is not a fraction between 0 and 1, nor images"),
        ({"images": X[:1]}, "validation: 0.1 of 1 images leaves none for one of the two splits"),
        ({"validation": X[..., :5]}, r"validation: images of \(1, 5, 5\), those to train on \(1, 5, 6\)"),
        ({"labels": Y, "validation": X}, "validation: has labels, or lacks them"),
        ({"like": "demo/none"}, "like: 'demo/none' is not SUITE/RUN; the runs of demo are digits-gated,"),
        ({"like": None}, "fit: model.name: missing"),
        ({"train": {"step": 5}}, r"fit: train.step: unknown key \(value 5\)"),
        (
            {"like": "demo/digits-gated-label"},
            "model.condition: 'label' needs labels, but images has none",
        ),
        ({"levels": 300}, r"levels: 300 is not a number of 2 ... 256"),
        ({"name": "My Cats"}, "fit: dataset: 'My Cats' is refused"),
    ],
)
def test_what_is_not_right_is_refused_before_any_training(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixelcnn.fit(**({"images": X} | LIKE | change))
