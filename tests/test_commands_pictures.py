"""Image files store levels exactly, and files that would lose information are refused; grids with row names."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from pixelcnn.data import image_files
from pixelcnn.generation.grids import grid
from tests import hostile


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 4, 17, 255, 256])
def test_a_written_image_is_read_back_exactly(channels: int, levels: int, tmp_path: Path) -> None:
    image = torch.arange(levels).repeat(6 * channels)[: 6 * channels * levels].view(channels, 6, levels).to(torch.uint8)
    image_files.write(tmp_path / "a.png", image, levels)
    assert torch.equal(image_files.read(tmp_path / "a.png", channels, levels), image)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_are_distinct_grey_values_from_black_to_white(levels: int) -> None:
    greys = image_files.greys(levels)
    assert (int(greys[0]), int(greys[-1])) == (0, 255)
    assert len(greys.unique()) == levels


def png(path: Path, colour_type: int, depth: int, row: bytes, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG of 4 x 4 pixels that Pillow would not write."""
    path.write_bytes(hostile.png(colour_type, depth, row, *chunks))
    return path


def test_a_png_of_two_bits_is_read_exactly(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", 0, 2, bytes([0b00011011]))
    assert image_files.read(path, 1, 4)[0, 0].tolist() == [0, 1, 2, 3]


def test_a_grey_value_between_two_levels_is_refused(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 13).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=re.escape("a.png: the grey value 13 is not one of the 17 levels")):
        image_files.read(tmp_path / "a.png", 1, 17)
    Image.new("L", (2, 2), 255).save(tmp_path / "a.png")
    assert int(image_files.read(tmp_path / "a.png", 1, 17).max()) == 16


def test_files_that_are_not_images_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png: is not an image of PNG, JPEG, .*, PPM that can be read"):
        image_files.read(tmp_path / "a.png", 1, 256)
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        image_files.read(tmp_path / "b.png", 1, 256)
    whole = tmp_path / "whole.png"
    Image.new("L", (50, 50), 3).save(whole)
    (tmp_path / "a.png").write_bytes(whole.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.png: "):
        image_files.read(tmp_path / "a.png", 1, 256)


def test_a_grid_has_the_names_of_its_rows_on_the_left() -> None:
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    plain, named = grid(images, 3, 2), grid(images, 3, 2, ["cat", "a longer name"])
    margin = named.width - plain.width
    assert margin > 50
    assert named.crop((margin, 0, *named.size)).tobytes() == plain.tobytes()
    left = named.crop((0, 0, margin, named.height)).convert("L")
    for row in (0, 1):
        half = left.crop((0, row * left.height // 2, margin, (row + 1) * left.height // 2))
        assert half.getextrema()[0] < 100, "the row has no name"
