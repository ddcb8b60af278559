"""Foreign files cost little and are refused in a line: pickles, tars, YAML, JSON, model folders, names in them."""

import gzip
import io
import json
import os
import pickle
import tarfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

import pixelcnn
from pixelcnn import checkpoint, files, params
from pixelcnn.cli import main, models
from pixelcnn.config import quoted, read_yaml
from pixelcnn.data import archives, dataset
from pixelcnn.data.pickles import load_batch
from tests.hostile import memory_below
from tests.publishers import tiny
from tests.test_architectures import model_of

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    from pixelcnn.tracking import model_package, registry

LIMIT = 2**22

# Pickles


def nested(depth: int) -> bytes:
    return b"\x80\x02}U\x04data" + b")" + b"\x85" * depth + b"s."


BOMBS = {
    "a distant place of the memo": (b"\x80\x02}r\x00\x00\x00\x08.", "place 134,217,728, beyond all others"),
    "a deep tuple": (nested(100_000), "nests objects deeper than 8"),
    "a tuple slightly too deep": (nested(9), "nests objects deeper than 8"),
    "a shared list": (b"\x80\x02}]q\x00h\x00s.", "uses a list or dictionary twice"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "uses a list or dictionary twice"),
    "a tuple as a key": (b"\x80\x02}K\x01\x85K\x01s.", "a container as a key"),
    "objects filled in turn": (
        b"\x80\x02cnumpy\nndarray\nq\x00)Rq\x01h\x01\x85q\x02h\x01h\x02b.",
        "fills what it uses elsewhere",
    ),
    "many opcodes": (b"\x80\x02" + b"N0" * LIMIT, "opcode POP"),
    "many objects": (b"\x80\x02(" + b"N" * LIMIT + b"t.", "more than 65,536 opcodes"),
    "a persistent name": (b"\x80\x02U\x01aQ.", "opcode BINPERSID"),
    "an instance": (b"(ios\nsystem\n.", "opcode INST"),
    "a class with arguments": (b"\x80\x02cos\nsystem\n)\x81.", "opcode NEWOBJ"),
    "an extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "nothing to take": (b"\x80\x02\x85.", "takes an object where there is none"),
    "no mark": (b"\x80\x02]e.", "looks for a mark where there is none"),
    "a mark as an object": (b"\x80\x02](a.", "takes a mark for an object"),
    "a system call": (b"\x80\x02cos\nsystem\nU\x04true\x85R.", "names os.system"),
}


@pytest.mark.parametrize(("content", "message"), BOMBS.values(), ids=BOMBS.keys())
def test_a_pickle_is_refused_before_it_costs_anything(content: bytes, message: str) -> None:
    began = time.monotonic()
    with memory_below(10**8), pytest.raises(pickle.UnpicklingError, match=message):
        load_batch(content, LIMIT)
    assert time.monotonic() - began < 20


def test_shared_types_and_numbers_are_no_bombs() -> None:
    kind = np.dtype(np.int64)
    batch = {
        "data": np.zeros((3, 4), np.uint8),
        "labels": [kind.type(n) for n in range(3)],
        "more": np.zeros(3, np.int64),
    }
    for protocol in (2, 3, 4):
        read = load_batch(pickle.dumps(batch, protocol), LIMIT)
        assert read["labels"] == [0, 1, 2]
        np.testing.assert_array_equal(read["data"], batch["data"])


# Tars


def header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_of_a_gigabyte_in_a_tar_are_not_read(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(header("x", 2**30, kind))
        for _ in range(64):
            file.write(bytes(2**20))
    source = tiny("cifar10")
    with memory_below(2**26), pytest.raises(ValueError, match="a header declares 1,073,741,824 bytes"):
        list(source.read(source, tmp_path, "train"))


def test_a_label_of_any_kind_is_named_in_a_line() -> None:
    wrong: list[Any] = [[1] * 1000, {"a": 1}, "\x1b[31m" * 1000, 10**200, None]
    for label in wrong:
        with pytest.raises(ValueError, match=r"label .* is not one of 1 to 1000") as error:
            archives._labels(tiny("imagenet32_box2017"), "a", [label], 1)
        assert len(str(error.value)) < 400
        assert str(error.value).isprintable()


# YAML and JSON


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


YAMLS = {
    "aliases that stand for gigabytes": (laughs(12), "unknown key"),
    "deep sequences": ("a: " + "[" * 50_000, "nests deeper than 30 levels"),
    "deep mappings": ("a: " + "{a: " * 5_000, "nests deeper than 30 levels"),
    "a megabyte": ("a: " + "x" * 2**20, "at most 1,048,576 are read"),
    "a long key that acts on the terminal": ('"\\e[31m' + "k" * 900 + '": 1', "unknown key"),
    "ten thousand keys": ("\n".join(f"k{n}: 1" for n in range(10_000)), "unknown key"),
    "a date as the name of a run": ("runs: {2024-05-01: {}}", "runs"),
    "a number as the name of a run": ("runs: {1: {}}\nshared: {train: {steps: 1}}", "runs"),
    "null": ("", "dictionary"),
    "a list": ("[1, 2]", "dictionary"),
    "a tag": ("a: !!python/object/apply:os.system ['true']", "not YAML"),
    "a time that is none": ("a: 2024-13-45", "p.yaml"),
    "no UTF-8": (b"a: \xff\xfe\x00", "not YAML"),
    "a control character": (b"a: \x07", "not YAML"),
}


@pytest.mark.parametrize(("content", "message"), YAMLS.values(), ids=YAMLS.keys())
def test_yaml_that_is_no_params_is_refused_in_a_few_short_lines(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        params.load(path)
    assert time.monotonic() - began < 20
    printed = files.message(error.value)
    assert len(printed.splitlines()) <= 41
    assert all(line.isprintable() and len(line) <= 2000 for line in printed.splitlines())


def test_a_pipe_is_no_params_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    with pytest.raises(ValueError, match=r"p\.yaml: is not a plain file"):
        read_yaml(tmp_path / "p.yaml")


def test_a_quoted_value_is_short_whatever_it_is() -> None:
    value: Any = "x"
    for _ in range(40):
        value = [value] * 10
    assert len(quoted(value)) < 300
    assert quoted("\x1b[31m\n") == "'\\x1b[31m\\n'"


# Model folders


@pytest.fixture
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = model_of("gated_pixelcnn", 1)
    checkpoint.save(Path("m"), model, model.network.state_dict())
    return Path("m")


def changed(folder: Path, change: Callable[[Any], object]) -> None:
    """Change config.json, with the weights' hash as it was."""
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


CONFIGS: dict[str, tuple[Callable[[Any], object], str]] = {
    f"{section}.{key}={str(value)[:20]!r}": (lambda c, s=section, k=key, v=value: c[s].update({k: v}), f"{section}.{key}")  # noqa: E501
    for section, key, values in [
        ("data", "levels", [None, [], "8", 0, 1, -8, 257, 1e300]),
        ("data", "shape", [None, [], "1x2x3", [1, 2], [0, 4, 6], [1, -4, 6], [1, 10**9, 6], [None] * 3, [[1], 4, 6]]),
        ("data", "dataset", ["../../evil", "a\nb", "digits@champion", "_unsent", "", "a'b", "x" * 61, None, 5, "A", "a/b"]),  # noqa: E501
        ("data", "classes", [None, 5, ["\x1b[2Jcat"], ["a\nb"], [""], ["x" * 101]]),
        ("data", "fingerprints", [None, []]),
        ("data", "embedding_dims", [-1, 10**9]),
        ("model", "num_layers", [100_000, 10**20, 0, None, "2", []]),
        ("model", "hidden_channels", [10**6, 10**20, -1]),
        ("model", "kernel_size", [10**9 + 1, 2]),
        ("model", "dropout", [1, -1, None]),
    ]
    for value in values
}  # fmt: skip
CONFIGS |= {
    "large together": (lambda c: c["model"].update(num_layers=1000, hidden_channels=16384), "too many"),
    "larger than the weights": (lambda c: c["model"].update(num_layers=1000, hidden_channels=1024), "too few for the sizes"),  # noqa: E501
    "model: null": (lambda c: c.update(model=None), "model"),
    "model: a list": (lambda c: c.update(model=[1]), "model"),
    "data: null": (lambda c: c.update(data=None), "data"),
    "format: true": (lambda c: c.update(format=True), "format"),
    "format: a string": (lambda c: c.update(format="2"), "format"),
    "format: 1 without a model": (lambda c: c.update(format=1, model=None), "model"),
    "format: 1 with a nameless model": (lambda c: c.update(format=1, model={"name": []}), "model"),
    "the hash of the weights": (lambda c: c.update(weights_sha256="\x1b[31m"), "weights_sha256"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_that_describes_no_model_is_refused_at_once(
    model_folder: Path, change: Callable[[Any], object], message: str
) -> None:
    changed(model_folder, change)
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        pixelcnn.load(model_folder)
    assert time.monotonic() - began < 10
    assert all(line.isprintable() for line in files.message(error.value).splitlines())


def test_reading_a_file_takes_the_memory_of_the_file_and_not_of_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    tracemalloc.start()
    try:
        assert files.read_bytes(tmp_path / "a", at_most=2**34) == bytes(1000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("model_folder")
def test_a_name_that_acts_on_a_terminal_is_no_image(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"\x1b[2J.png", b"\xff.png"):
        Path(os.fsdecode(b"in/" + name)).parent.mkdir(exist_ok=True)
        Path(os.fsdecode(b"in/" + name)).write_bytes(b"")
    with pytest.raises(SystemExit):
        main(["score", "m", "in"])
    said = capsys.readouterr()
    assert said.err.count("has characters that do not belong in the name of a file") == 2
    assert all(line.isprintable() for line in (said.out + said.err).splitlines())


def test_a_card_from_elsewhere_is_printed_without_what_acts_on_a_terminal() -> None:
    assert files.printable("# a\n\x1b]0;b\x07\u202ec") == "# a\n ]0;b  c"


def rehashed(folder: Path, content: bytes) -> None:
    """Other weights, with their hash in config.json."""
    import hashlib

    (folder / "model.safetensors").write_bytes(content)
    changed(folder, lambda c: c.update(weights_sha256=hashlib.sha256(content).hexdigest()))


def test_damaged_weights_are_refused_even_where_their_hash_is_right(model_folder: Path) -> None:
    content = (model_folder / "model.safetensors").read_bytes()
    others = [b"", b"\0" * 8, b"\xff" * 64, content[:100], content[:-1], content[8:], content + b"\0", pickle.dumps({})]
    others += [save({"x": torch.zeros(3)}), (2**60).to_bytes(8, "little") + content[8:], b"{" * 5000]
    head = int.from_bytes(content[:8], "little")
    for replaced in (b'"F32"', b'"shape"', b'"data_offsets"'):
        others.append(content[:8] + content[8 : 8 + head].replace(replaced, b" " * len(replaced)) + content[8 + head :])
    others.append(content[:8] + content[8 : 8 + head].replace(b'"F32"', b'"I32"') + content[8 + head :])
    for other in others:
        rehashed(model_folder, other)
        with pytest.raises(ValueError, match=r"m/model\.safetensors: "):
            pixelcnn.load(model_folder)


def test_what_is_no_folder_of_a_model_is_refused(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("weights.pth").write_bytes(b"x")
    for content in (b"[" * 100_000, b"1" * 5000, b'"', b"\xff", b"NaN", b"[]", b"9" * 2**24 + b"9"):
        (model_folder / "config.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"m/config\.json: not (JSON|a JSON object)"):
            pixelcnn.load(model_folder)
    (model_folder / "config.json").unlink()
    os.mkfifo(model_folder / "config.json")
    for source in ("m", "weights.pth", "m/model.safetensors", "models:/a'b@champion", "models:/a/b/c", "models:/"):
        with pytest.raises(SystemExit) as end:
            main(["sample", source, "--num", "1", "-o", "a.png"])
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1


# Names


NO_NAMES = ["a'b", 'a"b', "a\nb", "_unsent", "../x", "a b", "A", "", "a%b", "x' OR name != '"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_no_registered_model_has_do_not_reach_mlflow(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.store, "existing", lambda: pytest.importorskip("types").SimpleNamespace())
    for ask in (
        lambda: models.uri(name),
        lambda: registry.fetch(f"models:/{name}@champion"),
        lambda: registry.rollback(name, 1),
    ):
        with pytest.raises(ValueError, match=r"NAME|name of a registered model"):
            ask()


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a\nb", "", None, "x" * 100])
def test_a_package_names_a_run_and_no_path(name: Any, model_folder: Path) -> None:
    (model_folder / "run.json").write_text(json.dumps({"run": name}))
    with pytest.raises(ValueError, match=r"m/run\.json: run: "):
        model_package.unpack(model_folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [3, 10**9, 10**9]),
        ("levels", 0),
        ("dataset", "../evil"),
        ("splits", {"test": {"num_images": 2**40}}),
        ("shape", None),
    ],
)
def test_a_card_of_no_data_set_is_refused(key: str, value: object, tmp_path: Path) -> None:
    from tests.test_datasets import card

    (tmp_path / "card.json").write_text(json.dumps(card().model_dump(mode="json") | {key: value}))
    with pytest.raises(ValueError, match=rf"card\.json: is not a card: {key}"):
        dataset.read_info(tmp_path)


def test_messages_are_cut_and_free_of_control_characters() -> None:
    said = files.message(ValueError("a\x1b[31m\r" + "b" * 10**6 + "\nc" * 1000))
    assert len(said) < 10_000
    assert all(line.isprintable() for line in said.splitlines())
    assert said.endswith("\n...")
    assert isinstance(io.StringIO(said).read(), str)
