"""The film of images being drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelcnn import api
from pixelcnn.cli import main
from pixelcnn.generation import film
from pixelcnn.generation.grids import grid
from tests.conftest import Build


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_a_film_of_a_sample_shows_its_pixels_row_by_row_until_it_is_the_grid(
    small_model: Build, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = api.Model(small_model(3, height=3, width=4))
    model.save(tmp_path / "model")
    shown, drawn = tmp_path / f"drawn{ending}", tmp_path / "grid.png"
    main(["sample", str(tmp_path / "model"), "--num", "4", "-o", str(drawn), "--film", str(shown)])
    assert f"{shown}: the images being drawn" in capsys.readouterr().out
    with Image.open(shown) as file, Image.open(drawn) as finished:
        pictures = []
        for n in range(file.n_frames):
            file.seek(n)
            pictures.append(np.array(file.convert("RGB")))
        missing = [int((picture != np.array(finished)).any(2).sum()) for picture in pictures]
    assert missing == sorted(missing, reverse=True)
    assert missing[0] > 0
    assert missing[-1] == 0


def test_frame_k_is_the_grid_with_the_pixels_after_place_k_blank() -> None:
    x = torch.randint(0, 256, (5, 3, 2, 3), dtype=torch.uint8)
    made = film.frames(x, 3, 256)
    assert len(made) == 7
    known = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    expected = grid(torch.where(known, x, 128), 3, 256)
    assert made[4].tobytes() == expected.tobytes()
    assert made[6].tobytes() == grid(x, 3, 256).tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "grid.png", "--film", "film.mp4"], "--film: film.mp4 ends neither in .gif nor in .webp"),
        (["-o", "folder", "--film", "film.gif"], "--film: shows a grid; name a .png file as --out, not the folder"),
    ],
)
def test_a_film_that_cannot_be_made_is_refused_before_the_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sample", "no-model", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
