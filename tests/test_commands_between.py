"""`pixelcnn reconstruct` and `pixelcnn interpolate`, from image files to PNG files."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from pixelcnn import checkpoint
from pixelcnn.cli import main
from pixelcnn.data import image_files
from pixelcnn.generation.interpolation import interpolate, reconstruct
from pixelcnn.generation.sampling import in_float64
from tests.test_architectures import flat_images, model_of


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """Folders of untrained auto-encoders and of an unconditional model."""
    folders = {}
    for name in ("pixelcnn_autoencoder", "squared_error_autoencoder", "gated_pixelcnn"):
        model = model_of(name, 3)
        checkpoint.save(tmp_path / name, model, model.network.state_dict())
        folders[name] = str(tmp_path / name)
    return folders


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Four image files."""
    images = flat_images(3).images[2:6]
    for n, image in enumerate(images):
        image_files.write(tmp_path / f"{n}.png", image, 8)
    return [str(tmp_path / f"{n}.png") for n in range(4)]


def test_reconstructions_are_written_to_a_file_each(models: dict[str, str], files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["reconstruct", models["pixelcnn_autoencoder"], *files, "--num", "2", "--seed", "5", "-o", str(out)])
    model = in_float64(checkpoint.load(Path(models["pixelcnn_autoencoder"])))
    expected = reconstruct(model, flat_images(3).images[2:6], 2, seed=5)
    assert sorted(path.name for path in out.iterdir()) == [f"{n}-{m}.png" for n in range(4) for m in range(2)]
    assert torch.equal(image_files.read(out / "1-0.png", 3, 8), expected[1, 0])


def test_the_reconstructions_of_two_auto_encoders_share_a_grid(
    models: dict[str, str], files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    beside = ["--beside", models["squared_error_autoencoder"]]
    main(["reconstruct", models["pixelcnn_autoencoder"], *files, *beside, "--num", "3", "-o", str(out)])
    one = tmp_path / "one.png"
    main(["reconstruct", models["squared_error_autoencoder"], *files, "--num", "3", "-o", str(one)])
    with Image.open(out) as both, Image.open(one) as alone:
        assert both.width / both.height > 1.5 * alone.width / alone.height  # five columns instead of two, and names
    assert "4 images, 3 reconstructions of each" in capsys.readouterr().out


def test_interpolations_are_written_to_a_file_each(models: dict[str, str], files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["interpolate", models["pixelcnn_autoencoder"], *files, "--steps", "3", "--seed", "5", "-o", str(out)])
    model = in_float64(checkpoint.load(Path(models["pixelcnn_autoencoder"])))
    codes = model.network.encode(flat_images(3).images[2:6]).detach()
    expected = interpolate(model, codes[0::2], codes[1::2], 3, seed=5)
    names = [f"{pair}-{step}.png" for pair in ("0-1", "2-3") for step in range(3)]
    assert sorted(path.name for path in out.iterdir()) == names
    assert torch.equal(image_files.read(out / "2-3-1.png", 3, 8), expected[1, 1])


@pytest.mark.parametrize(
    ("verb", "model", "num", "message"),
    [
        ("reconstruct", "gated_pixelcnn", 4, "GatedPixelCNN has no encoder"),
        ("interpolate", "gated_pixelcnn", 4, "gated_pixelcnn with condition 'none' has no codes"),
        ("interpolate", "pixelcnn_autoencoder", 3, "IMAGES: 3 images are not pairs; give an even number"),
    ],
)
def test_what_cannot_be_done_is_refused(
    models: dict[str, str],
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    model: str,
    num: int,
    message: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([verb, models[model], *files[:num], "-o", str(tmp_path / "grid.png")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "grid.png").exists()
