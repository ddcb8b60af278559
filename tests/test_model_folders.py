"""A model folder is for years: those of every format load, and answer as when they were written."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pixelcnn import architectures, checkpoint
from pixelcnn.config import Given
from pixelcnn.migrations import FORMAT, MIGRATIONS, migrated
from tests import model_folders

HERE = Path(model_folders.__file__).parent
FORMATS = [HERE / f"format{number}" for number in range(1, FORMAT + 1)]
FOLDERS = sorted(path.parent for path in HERE.glob("format*/*/config.json"))
IMAGES = torch.randint(0, 8, (3, 3, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CONDITIONS = {Given.LABEL: torch.arange(3) % 2, Given.EMBEDDING: torch.arange(9.0).view(3, 3) / 4}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_saved_model_of_any_format_answers_as_before(folder: Path) -> None:
    model = checkpoint.load(folder)
    expected = json.loads((folder.parent / "expected.json").read_text())[folder.name]
    with torch.inference_mode():
        nats = model.nll(IMAGES, CONDITIONS.get(model.given))
    torch.testing.assert_close(nats, torch.tensor(expected), rtol=1e-5, atol=1e-3)
    assert checkpoint.identity(model) == json.loads((folder / "config.json").read_text())["weights_sha256"]


def test_todays_format_has_a_folder_of_every_architecture_and_older_ones_of_those_of_their_time() -> None:
    names = [{checkpoint.read_config(path).model.name for path in FOLDERS if path.parent == each} for each in FORMATS]
    assert all(older <= newer for older, newer in pairwise(names))
    assert names[-1] == set(architectures.NAMES), "`python -m tests.model_folders` writes the missing ones"


def test_there_is_a_migration_from_every_format_to_the_next() -> None:
    assert list(MIGRATIONS) == list(range(1, FORMAT))


@pytest.mark.parametrize("number", [0, FORMAT + 1, "2", None])
def test_a_format_that_this_release_does_not_know_is_refused(number: object) -> None:
    with pytest.raises(ValueError, match=rf"config.json: format: .* is not one of 1 ... {FORMAT}; a later pixelcnn"):
        migrated({"format": number}, "config.json")


def test_loading_rewrites_no_file() -> None:
    before = {path: path.read_bytes() for folder in FOLDERS for path in folder.iterdir()}
    for folder in FOLDERS:
        checkpoint.load(folder)
    assert before == {path: path.read_bytes() for folder in FOLDERS for path in folder.iterdir()}
