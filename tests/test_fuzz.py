"""Seeded fuzzing: foreign files, damaged at random, give what they held or one ValueError of a few short lines.

A few hundred cases of each class here, thousands in the tests marked slow. The cases follow from the seed alone.
"""

import hashlib
import io
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelcnn
from pixelcnn import checkpoint, files, params
from pixelcnn.data.decoding import FORMATS, decode
from pixelcnn.data.pickles import load_batch
from pixelcnn.generation.compression import compress, decompress, unpack
from pixelcnn.model import Model
from tests import publishers
from tests.conftest import DEMO, images
from tests.publishers import IMAGES, tiny
from tests.test_architectures import model_of

FEW, MANY = 150, 4000
NUMBERS = [0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 1e308, -0.5, True]
VALUES: list[Any] = [
    *NUMBERS,
    None,
    "",
    "x" * 5000,
    "\x1b[31m",
    "a\nb",
    "../../x",
    [],
    {},
    [[[]]],
    {"a": None},
    [None] * 50,
]
Case = Callable[[random.Random], None]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, removed, repeated, inserted, or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 40)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 40))
            case 3:
                data[at:at] = data[at : at + rng.randrange(1, 200)]
            case 4 if rng.random() < 0.3:
                del data[at:]
    return bytes(data)


def altered(content: Any, rng: random.Random) -> Any:
    """JSON or YAML with a value somewhere replaced, removed, or added."""
    content = json.loads(json.dumps(content))
    place, key = content, None
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or rng.random() < 0.2:
            break
        place = place[key]
    match rng.randrange(4):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[rng.choice(["x" * 3000, "\x1b[2J", "", "name", "a.b"])] = rng.choice(VALUES)
        case _:
            place[key] = rng.choice(VALUES)
    return content


def survives(case: Case, num: int, errors: tuple[type[Exception], ...] = (ValueError,)) -> int:
    """Run a case with each of `num` seeds; how many were refused. Anything but these errors fails, with its seed."""
    refused = 0
    for seed in range(num):
        try:
            case(random.Random(seed))
        except errors as error:
            said = files.message(error)
            assert len(said) < 100_000, seed
            assert all(line.isprintable() for line in said.splitlines()), (seed, said)
            refused += 1
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return refused


def image_case(rng: random.Random) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    kind, file = rng.choice([*FORMATS]), io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    found = decode(damaged(file.getvalue(), rng), "a", 3)
    if kind == "PNG":
        np.testing.assert_array_equal(found, pixels)


def pickle_case(rng: random.Random) -> None:
    batch = publishers.python3_batch(IMAGES["test"], list(range(10)), rng.choice([2, 3, 4]))
    load_batch(damaged(batch, rng), 2**22)


def tar_case(folder: Path) -> Case:
    def case(rng: random.Random) -> None:
        members = publishers.pngs(IMAGES["test"])
        publishers.write_tar(folder / "valid_32x32.tar", members)
        path = folder / "valid_32x32.tar"
        path.write_bytes(damaged(path.read_bytes(), rng))
        source = tiny("imagenet32_vdo2016")
        for name, png, _ in source.read(source, folder, "test"):
            assert isinstance(png, bytes)
            decode(png, name, 3, (4, 4))

    return case


def coded(model: Model, archive: bytes, given: dict[str, torch.Tensor]) -> Case:
    """An archive with another header or payload, and the checksum of the whole computed anew."""
    header, payload = unpack(archive)
    content = header.model_dump(mode="json")

    def case(rng: random.Random) -> None:
        other = altered(content, rng) if rng.random() < 0.7 else content
        words = payload if rng.random() < 0.7 else damaged(payload, rng)
        text = zlib.compress(json.dumps(other).encode())
        text = text if rng.random() < 0.9 else damaged(text, rng)
        body = len(text).to_bytes(4, "little") + text + words
        found = decompress(model, archive[:4] + hashlib.sha256(body).digest() + body)
        assert list(found) == list(given)
        assert all(torch.equal(found[name], given[name]) for name in given)

    return case


def folder_case(folder: Path) -> Case:
    """A model's folder with another config.json, or with other weights whose hash is right."""
    model = model_of("gated_pixelcnn", 1)
    checkpoint.save(folder, model, model.network.state_dict())
    content, weights = json.loads((folder / "config.json").read_text()), (folder / "model.safetensors").read_bytes()

    def case(rng: random.Random) -> None:
        other, told = weights, content
        if rng.random() < 0.5:
            head = int.from_bytes(weights[:8], "little") + 8
            other = damaged(weights[:head], rng) + weights[head:] if rng.random() < 0.7 else damaged(weights, rng)
            told = content | {"weights_sha256": hashlib.sha256(other).hexdigest()}
        else:
            told = altered(content, rng)
        (folder / "model.safetensors").write_bytes(other)
        text = json.dumps(told).encode()
        (folder / "config.json").write_bytes(text if rng.random() < 0.8 else damaged(text, rng))
        pixelcnn.load(folder).sample(1)

    return case


def params_case(folder: Path) -> Case:
    text = DEMO.read_bytes()
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(text)

    def case(rng: random.Random) -> None:
        path = folder / "params.yaml"
        altered_text = json.dumps(altered(content, rng)).encode()  # JSON is YAML
        path.write_bytes(damaged(text, rng) if rng.random() < 0.3 else altered_text)
        params.load(path)

    return case


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, tuple[type[Exception], ...], float]]:
    """By class: the case, the errors it may end with, and its share of the number of cases."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("tar", "model", "params"):
        (folder / name).mkdir()
    model = model_of("gated_pixelcnn", 1)
    model.network.eval()
    given = {str(n): image for n, image in enumerate(images(model, 3))}
    unpickled = (Exception,)  # the reader of archives turns all of them into ValueErrors
    return {
        "images": (image_case, (ValueError,), 2),
        "pickles": (pickle_case, unpickled, 2),
        "tars": (tar_case(folder / "tar"), (ValueError,), 1),
        "coded files": (coded(model, compress(model, given, 2), given), (ValueError,), 1),
        "model folders": (folder_case(folder / "model"), (ValueError,), 1),
        "params.yaml": (params_case(folder / "params"), (ValueError,), 0.3),
    }


CLASSES = ["images", "pickles", "tars", "coded files", "model folders", "params.yaml"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_few_hundred_damaged_files_are_refused_or_unharmed(name: str, cases: Any) -> None:
    case, errors, share = cases[name]
    num = int(FEW * share)
    assert survives(case, num, errors) > num // 4


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_thousands_of_damaged_files_are_refused_or_unharmed(name: str, cases: Any) -> None:
    case, errors, share = cases[name]
    num = int(MANY * share)
    assert survives(case, num, errors) > num // 4


def test_the_cases_follow_from_the_seed() -> None:
    assert damaged(bytes(500), random.Random(3)) == damaged(bytes(500), random.Random(3))
