"""Models on disk: the same after loading, refused when changed, and never executed."""

import json
from pathlib import Path

import pytest
import torch

from pixelcnn import checkpoint
from pixelcnn.model import Model
from tests.conftest import Build, images, labels


def saved(small_model: Build, folder: Path) -> Model:
    model = small_model(3, "label")
    model.network.float()
    checkpoint.save(folder, model, model.network.state_dict())
    return model


def test_a_loaded_model_is_the_saved_one(small_model: Build, tmp_path: Path) -> None:
    model = saved(small_model, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert (loaded.config, loaded.data) == (model.config, model.data)
    assert not loaded.network.training
    x, cond = images(model, 2), labels(model, 2)
    assert torch.equal(loaded.nll(x, cond), model.nll(x, cond))


def test_saving_twice_gives_the_same_bytes(small_model: Build, tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved(small_model, tmp_path / name)
    files = (checkpoint.WEIGHTS, checkpoint.CONFIG)
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_changed_weights_are_refused_by_their_hash(small_model: Build, tmp_path: Path) -> None:
    saved(small_model, tmp_path)
    path = tmp_path / checkpoint.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .*config\.json says"):
        checkpoint.load(tmp_path)


def test_weights_of_another_network_are_refused(small_model: Build, tmp_path: Path) -> None:
    saved(small_model, tmp_path)
    path = tmp_path / checkpoint.CONFIG
    description = json.loads(path.read_text())
    description["model"]["num_layers"] = 3
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="Missing key"):
        checkpoint.load(tmp_path)


def test_a_config_with_an_unknown_key_is_refused(small_model: Build, tmp_path: Path) -> None:
    saved(small_model, tmp_path)
    path = tmp_path / checkpoint.CONFIG
    description = json.loads(path.read_text())
    description["model"]["attention"] = True
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"config\.json: model\.attention: unknown key"):
        checkpoint.load(tmp_path)


def test_a_folder_without_a_model_says_what_one_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json there"):
        checkpoint.load(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_poisoned_training_state_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"training": Bomb()}, "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: cannot be read: .*; remove it, and the training starts over"):
        checkpoint.load_state(Path("state.pt"))
    assert not Path("exploded").exists()


def test_a_damaged_training_state_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"a": torch.ones(100)})
    whole = path.read_bytes()
    torch.save([1], tmp_path / "list.pt")
    for content in (
        b"",
        b"x" * 100,
        whole[:300],
        whole[:-1],
        (tmp_path / "list.pt").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"state\.pt: .*remove it"):
            checkpoint.load_state(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"step": 1})

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save_state(path, {"step": 2})
    assert checkpoint.load_state(path) == {"step": 1}
