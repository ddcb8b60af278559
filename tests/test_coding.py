"""An archive restores its pixels exactly, is as large as their NLL, and is refused where it is damaged."""

import dataclasses
import hashlib
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelcnn import architectures, checkpoint
from pixelcnn.checkpoint import identity
from pixelcnn.generation import compression
from pixelcnn.generation.compression import compress, decompress, pack, shares, unpack
from pixelcnn.generation.sampling import sample
from pixelcnn.model import Model
from tests.conftest import Build, images
from tests.hostile import memory_below
from tests.test_architectures import SIZES, model_of

FOLDER = Path(__file__).parent / "archives"  # of earlier formats
CODED = [name for name in architectures.NAMES if "condition" not in SIZES[name]]  # without the auto-encoders


def sharp(model: Model, factor: float = 3.0) -> Model:
    """The model in evaluation mode with larger weights: distributions far from uniform, and different ones."""
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(factor)
    model.network.eval()
    return model


def named(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{n}": image for n, image in enumerate(x)}


def assert_same(found: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(given)
    for name, image in given.items():
        assert torch.equal(found[name], image), name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CODED)
def test_every_architecture_restores_what_it_compressed(name: str, channels: int) -> None:
    model = sharp(model_of(name, channels))
    given = named(images(model, 5))
    assert_same(decompress(model, compress(model, given, batch_size=2)), given)


@pytest.mark.parametrize("condition", ["label", "label-map"])
def test_a_class_conditional_model_codes_images_of_one_class(condition: str) -> None:
    model = sharp(model_of("gated_pixelcnn", 1, condition))
    given = named(images(model, 3))
    archive = compress(model, given, 64, label=1)
    assert_same(decompress(model, archive), given)
    header, payload = unpack(archive)
    with pytest.raises(ValueError, match="decodes to other pixels"):
        decompress(model, pack(header.model_copy(update={"label": 0}), payload))
    with pytest.raises(ValueError, match="needs a label"):
        compress(model, given, 64)


@pytest.mark.parametrize(("name", "condition"), [("gated_pixelcnn", "embedding"), ("pixelcnn_autoencoder", "none")])
def test_a_model_that_needs_more_than_a_label_is_refused(name: str, condition: str) -> None:
    model = model_of(name, 1, condition)
    model.network.eval()
    with pytest.raises(ValueError, match=r"archive: this model needs the (embedding|code) of each image"):
        compress(model, named(images(model, 1)), 64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["gated_pixelcnn", "pixelcnnpp"])
def test_an_archive_is_as_large_as_the_nll(name: str, channels: int) -> None:
    model = sharp(model_of(name, channels), 1.5)
    model.network.double()
    x = sample(model, 400, torch.Generator().manual_seed(0))
    _, payload = unpack(compress(model, named(x), batch_size=200))
    with torch.no_grad():
        nll = float(model.nll(x).sum()) / math.log(2)
    assert 8 * len(payload) == pytest.approx(nll, rel=0.005)
    assert nll < 0.98 * 400 * model.dims * 3, "the distributions are not nearly uniform"


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (3, 7), (5, 6), (9, 20)])
def test_images_of_any_size_are_coded_in_tiles(size: tuple[int, int]) -> None:
    model = sharp(model_of("gated_pixelcnn", 3))
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randint(0, 8, (3, *size), generator=generator, dtype=torch.uint8) for name in ("a", "b")}
    rows: list[int] = []
    archive = compress(model, given | named(images(model, 1)), 3, on_row=rows.append)
    assert_same(decompress(model, archive), given | named(images(model, 1)))
    assert len(rows) == compression.num_rows(model, [size, size, (4, 6)], 3)


def test_the_last_tiles_repeat_the_edge(small_model: Build) -> None:
    model = small_model(1, height=2, width=2)
    tiles = compression.cut(torch.tensor([[[0, 1, 2], [3, 0, 1], [2, 3, 1]]], dtype=torch.uint8), model, "x")
    assert tiles[:, 0].tolist() == [[[0, 1], [3, 0]], [[2, 2], [1, 1]], [[2, 3], [2, 3]], [[1, 1], [1, 1]]]


# Damage


@pytest.fixture(scope="module")
def made() -> tuple[Model, bytes, dict[str, torch.Tensor]]:
    model = sharp(model_of("gated_pixelcnn", 1))
    given = named(images(model, 4))
    return model, compress(model, given, batch_size=2), given


Made = tuple[Model, bytes, dict[str, torch.Tensor]]


def test_an_archive_with_any_byte_changed_is_refused(made: Made) -> None:
    model, archive, _ = made
    for n in range(len(archive)):
        damaged = bytearray(archive)
        damaged[n] ^= 1 << n % 8
        with pytest.raises(ValueError, match="archive: "):
            decompress(model, bytes(damaged))


def test_an_archive_of_any_other_length_is_refused(made: Made) -> None:
    model, archive, _ = made
    for length in range(len(archive)):
        with pytest.raises(ValueError, match="archive: "):
            decompress(model, archive[:length])
    with pytest.raises(ValueError, match="archive: is damaged or truncated"):
        decompress(model, archive + b"\0")


def test_pixels_are_checked_even_where_the_archive_is_whole(made: Made) -> None:
    """As on a machine whose arithmetic differs: the range coder's words decode to other symbols."""
    model, archive, given = made
    header, payload = unpack(archive)
    refused = 0
    for n in range(len(payload)):
        other = bytearray(payload)
        other[n] ^= 1 << n % 8
        try:
            assert_same(decompress(model, pack(header, bytes(other))), given)  # the last bits may be unused
        except ValueError as error:
            assert "decodes to other pixels than were compressed" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 0.8 * len(payload)


def test_decoding_stops_at_the_first_wrong_batch(made: Made) -> None:
    model, archive, _ = made
    header, payload = unpack(archive)
    rows: list[int] = []
    with pytest.raises(ValueError, match="decodes to other pixels"):
        decompress(model, pack(header.model_copy(update={"crc32": (0, header.crc32[1])}), payload), rows.append)
    assert len(rows) == model.shape[1]


def test_the_checksum_of_all_pixels_is_checked_where_every_batch_passes(made: Made) -> None:
    model, archive, _ = made
    header, payload = unpack(archive)
    with pytest.raises(ValueError, match=r"decodes to other pixels .* Made by pixelcnn .*; here is pixelcnn"):
        decompress(model, pack(header.model_copy(update={"sha256": "0" * 64}), payload))


def test_another_model_is_refused_by_its_sha256(made: Made) -> None:
    model, archive, _ = made
    other = sharp(model_of("gated_pixelcnn", 1), 2.0)
    both = f"{identity(model)}, this one is {identity(other)}"
    with pytest.raises(ValueError, match=f"archive: was made with the model {both}"):
        decompress(other, archive)


def test_other_files_and_formats_are_refused(made: Made) -> None:
    model, archive, _ = made
    with pytest.raises(ValueError, match="archive: is not an archive of pixelcnn"):
        decompress(model, b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match="archive: has the format b'3', this pixelcnn reads b'1', b'2'"):
        decompress(model, b"PXC3" + archive[4:])


def test_a_header_of_other_keys_is_refused(made: Made) -> None:
    _, archive, _ = made
    body = archive[36:40] + b"no header" + archive[40:]
    with pytest.raises(ValueError, match="archive: its header cannot be read"):
        unpack(archive[:4] + hashlib.sha256(body).digest() + body)


def test_the_header_has_the_sha256_that_config_json_has(made: Made, tmp_path: Path) -> None:
    model, archive, _ = made
    sha256 = checkpoint.save(tmp_path, model, model.network.state_dict())
    header, _ = unpack(archive)
    assert header.model == sha256 == identity(checkpoint.load(tmp_path))


# Foreign headers: the outer checksum can be computed anew by whoever changes an archive


FOREIGN = {
    "swapped names": (lambda h: {"names": h["names"][::-1]}, "decodes to other pixels"),
    "another name": (lambda h: {"names": ["x", *h["names"][1:]]}, "decodes to other pixels"),
    "a smaller size": (lambda h: {"sizes": [[3, 6], *h["sizes"][1:]]}, "decodes to other pixels"),
    "one name for two": (
        lambda h: {"names": [h["names"][0]] * len(h["names"])},
        "4 names .1 different ones. of 4 images",
    ),
    "a name too few": (lambda h: {"names": h["names"][1:]}, "3 names .3 different ones. of 4 images"),
    "no images": (lambda _: {"names": [], "sizes": [], "crc32": []}, "names: "),
    "a size of 0": (lambda h: {"sizes": [[0, 6], *h["sizes"][1:]]}, r"sizes\.0\.0: "),
    "a negative size": (lambda h: {"sizes": [[-4, -6], *h["sizes"][1:]]}, r"sizes\.0\.0: "),
    "a huge image": (lambda h: {"sizes": [[60_000, 60_000], *h["sizes"][1:]]}, "3,600,000,000 pixels, at most"),
    "huge batches": (
        lambda h: {"sizes": [[8192, 8192], *h["sizes"][1:]], "batch_size": 10**9, "crc32": [0]},
        "batch_size: 1,000,000,000 tiles, at most 10,000",
    ),
    "batches of nothing": (lambda _: {"batch_size": 0}, "batch_size: "),
    "too few checksums": (lambda h: {"crc32": h["crc32"][1:]}, "4 tiles in batches of 2, but 1 checksums"),
    "a label": (lambda _: {"label": 10**30}, "its label is 1000"),
    "another device": (lambda _: {"device": "\x1b[31mcuda"}, "device: "),
    "a version that acts on the terminal": (lambda _: {"torch": "\x1b[2J"}, "version: "),
    "an unknown key": (lambda _: {"more": 1}, "more: "),
}
NAMES = ["", ".", "..", "/etc/x", "../x", "a/b", "a\\b", "a\nb", "\x1b[31m", "a\0b", "\u202eb", "x" * 300]


def rewritten(archive: bytes, changed: dict[str, object], number: bytes = b"2") -> bytes:
    """An archive with other values in its header and the checksum of the whole computed anew."""
    header, payload = unpack(archive)
    text = zlib.compress(json.dumps(header.model_dump(mode="json") | changed).encode())
    body = len(text).to_bytes(4, "little") + text + payload
    return b"PXC" + number + hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(("change", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_header_that_does_not_fit_the_pixels_is_refused(made: Made, change: Any, message: str) -> None:
    model, archive, given = made
    header = unpack(archive)[0].model_dump(mode="json")
    with pytest.raises(ValueError, match=f"^archive: .*{message}") as error:
        decompress(model, rewritten(archive, change(header)))
    assert str(error.value).isprintable()
    assert_same(decompress(model, rewritten(archive, {})), given)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_names_of_files_are_refused_on_both_sides(made: Made, name: str) -> None:
    model, archive, given = made
    names = [name, *unpack(archive)[0].names[1:]]
    with pytest.raises(ValueError, match="archive: its header cannot be read: names: ") as error:
        decompress(model, rewritten(archive, {"names": names}))
    assert str(error.value).isprintable()
    with pytest.raises(ValueError, match="archive: its header cannot be read: names: "):
        compress(model, {name: given["0"]}, 64)


def test_an_archive_of_the_first_format_decodes_and_covers_its_pixels_only() -> None:
    model = checkpoint.load(FOLDER.parent / "model_folders" / "format2" / "gated_pixelcnn")
    archive, generator = (FOLDER / "format1.pxc").read_bytes(), torch.Generator().manual_seed(0)
    sizes = {"first": (4, 6), "second": (2, 7), "third": (9, 5)}
    given = {name: torch.randint(0, 8, (3, *s), generator=generator, dtype=torch.uint8) for name, s in sizes.items()}
    assert_same(decompress(model, archive), given)
    with pytest.raises(ValueError, match="archive: decodes to other pixels"):
        decompress(model, rewritten(archive, {}, b"2"))


def test_a_header_is_unpacked_to_a_limit_only(made: Made) -> None:
    _, archive, _ = made
    text = zlib.compress(bytes(2**28), 9)
    body = len(text).to_bytes(4, "little") + text
    with memory_below(2**26), pytest.raises(ValueError, match="it is longer than 16,777,216 bytes"):
        unpack(archive[:4] + hashlib.sha256(body).digest() + body)
    for body in (b"", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0"):
        with pytest.raises(ValueError, match="its header cannot be read"):
            unpack(archive[:4] + hashlib.sha256(body).digest() + body)


def test_images_that_no_archive_can_hold_are_refused_before_they_are_coded(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, given = made
    rows: list[int] = []
    monkeypatch.setattr(compression, "MAX_HEADER", 300)
    with pytest.raises(ValueError, match="images: 4 are too many for one archive"):
        compress(model, given, 64, on_row=rows.append)
    monkeypatch.setattr(compression, "MAX_BATCH", 3)
    with pytest.raises(ValueError, match="batch_size: 64 tiles, at most 3"):
        compress(model, given, 64, on_row=rows.append)
    assert not rows


# What is refused before coding


def test_images_that_are_not_the_models_are_refused_by_name(made: Made) -> None:
    model, _, _ = made
    for image, message in {
        torch.full((1, 4, 6), 8, dtype=torch.uint8): "cat: values must be 0 ... 7, but there is 8",
        torch.zeros(3, 4, 6, dtype=torch.uint8): "cat: uint8 (3, 4, 6) is not uint8 (N, 1, H, W)",
        torch.zeros(1, 4, 6): "cat: float32 (1, 4, 6) is not uint8 (N, 1, H, W)",
        torch.zeros(1, 0, 6, dtype=torch.uint8): "cat: uint8 (1, 0, 6) holds no pixels",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            compress(model, {"cat": image}, 64)
    with pytest.raises(ValueError, match="images: none were given"):
        compress(model, {}, 64)


def test_a_model_that_states_no_probabilities_is_refused(made: Made) -> None:
    broken = dataclasses.replace(made[0], network=model_of("gated_pixelcnn", 1).network)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(math.nan)
    broken.network.eval()
    with pytest.raises(ValueError, match="the model states no probabilities"):
        compress(broken, made[2], 64)


# The range coder's weights


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_shares_are_integers_that_leave_one_unit_to_every_level(levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, levels, generator=generator, dtype=torch.float64) * 20
    logits[0, 0], logits[1] = 1e9, 0
    log_pmf = logits.log_softmax(1)
    given = shares(log_pmf).astype(np.float64)
    assert (given == given.round()).all()
    assert (given >= 0).all()
    assert (given.sum(1) == compression.TOTAL - levels).all()
    pmf = torch.from_numpy((given + 1) / compression.TOTAL)
    cost = (log_pmf.exp() * (log_pmf - pmf.log())).sum(1)
    assert float(cost.max()) < 1e-3, "nats per sub-pixel"


def test_the_coder_uses_the_shares_without_rounding_them() -> None:
    """Otherwise the size would not be the one that they state, and other versions of the coder might disagree."""
    rng = np.random.default_rng(0)
    given = shares(torch.from_numpy(np.log(rng.dirichlet(np.full(256, 0.05), 5000) + 1e-30)))
    symbols = rng.integers(0, 256, 5000).astype(np.int32)
    encoder = compression.constriction.stream.queue.RangeEncoder()
    encoder.encode(symbols, compression.CODED, given)
    stated = -np.log2((given[np.arange(5000), symbols] + 1) / compression.TOTAL).sum()
    assert 0 <= 32 * len(encoder.get_compressed()) - stated < 64


def test_the_table_of_exponentials_is_the_same_with_any_libm() -> None:
    exact = 2.0**32 * np.exp(-np.arange(len(compression.WEIGHTS)) / compression.STEPS)
    assert compression.WEIGHTS[-1] == 0
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-4
