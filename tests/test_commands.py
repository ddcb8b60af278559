"""The verbs on models write the files that they print, and errors are one line on stderr."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pixelcnn import checkpoint
from pixelcnn.cli import main
from pixelcnn.data import dataset as datasets
from pixelcnn.data import image_files
from pixelcnn.data.dataset import Split, image_hash, write_info
from pixelcnn.data.writer import SplitWriter
from pixelcnn.evaluation.nll import nll
from pixelcnn.generation import compression
from pixelcnn.model import Model
from pixelcnn.nn.gated_pixelcnn.network import GatedPixelCNN
from tests.conftest import Refused, images
from tests.test_architectures import model_of
from tests.test_datasets import card


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the models grey, rgb, labels, embeddings and autoencoder of 6 x 4 pixels, 8 levels."""
    monkeypatch.chdir(tmp_path)
    for name, channels, condition in [
        ("grey", 1, "none"), ("rgb", 3, "none"), ("labels", 1, "label"), ("embeddings", 1, "embedding"),
    ]:  # fmt: skip
        model = model_of("gated_pixelcnn", channels, condition)
        checkpoint.save(Path(name), model, model.network.state_dict())
    model = model_of("pixelcnn_autoencoder", 1)
    checkpoint.save(Path("autoencoder"), model, model.network.state_dict())
    return tmp_path


def run(line: str) -> None:
    main(line.split())


def read_all(place: str, model: Model) -> torch.Tensor:
    files = sorted(Path(place).glob("*.png"))
    return torch.stack([image_files.read(file, model.shape[0], model.data.levels) for file in files])


def prepared(model: Model, num: int) -> tuple[Path, Split]:
    """A prepared data set of the model's kind that has a test split."""
    x, labels = images(model, num), torch.arange(num) % 2
    with SplitWriter(Path(), "test", model.shape, True, 100) as writer:
        for image, label in zip(x, labels, strict=True):
            writer.add(image.numpy().tobytes(), int(label), image_hash(image.numpy().tobytes()))
    described = card(splits={"test": writer.info}, shape=model.shape, levels=8, classes=("cat", "dog"))
    write_info(described, Path(datasets.CARD))
    return Path(), Split(x, labels)


# sample


def test_a_grid_has_the_number_of_images_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    run("sample grey --num 5 -o grids/a.png")
    assert "grids/a.png: 5 images" in capsys.readouterr().out
    with Image.open("grids/a.png") as picture:
        width, height = picture.size
    assert width / height == pytest.approx((3 * 7 + 1) / (2 * 5 + 1)), "3 columns of 6 pixels, 2 rows of 4"


@pytest.mark.parametrize("model", ["grey", "rgb"])
def test_the_same_seed_draws_the_same_images_whatever_the_batch_size(model: str) -> None:
    run(f"sample {model} --num 5 -o all")
    run(f"sample {model} --num 5 --batch-size 2 -o parts")
    run(f"sample {model} --num 5 --seed 1 -o others")
    loaded = checkpoint.load(Path(model))
    whole = read_all("all", loaded)
    assert len(whole) == 5
    assert torch.equal(whole, read_all("parts", loaded))
    assert not torch.equal(whole, read_all("others", loaded))


class Killed(BaseException):
    """What ends a process in the middle of its work."""


@pytest.mark.parametrize("model", ["grey", "labels"])
def test_a_folder_of_samples_is_continued_where_it_was_interrupted(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"sample {model} --num 8 -o whole")
    written, write = [], image_files.write

    def dying(path: Path, image: torch.Tensor, levels: int) -> None:
        if len(written) == 5:
            raise Killed
        written.append(path)
        write(path, image, levels)

    monkeypatch.setattr(image_files, "write", dying)
    with pytest.raises(Killed):
        run(f"sample {model} --num 8 --batch-size 2 -o parts")
    monkeypatch.setattr(image_files, "write", write)
    capsys.readouterr()
    run(f"sample {model} --num 8 --batch-size 3 -o parts")
    assert "parts: continued after 4 images" in capsys.readouterr().err
    loaded = checkpoint.load(Path(model))
    assert torch.equal(read_all("parts", loaded), read_all("whole", loaded))
    times = {path: path.stat().st_mtime_ns for path in Path("parts").iterdir()}
    run(f"sample {model} --num 8 -o parts")
    assert {path: path.stat().st_mtime_ns for path in Path("parts").iterdir()} == times


def test_a_folder_of_one_condition_may_be_continued_beyond_its_end() -> None:
    run("sample grey --num 5 -o whole")
    run("sample grey --num 2 -o grown")
    run("sample grey --num 5 -o grown")
    model = checkpoint.load(Path("grey"))
    assert torch.equal(read_all("grown", model), read_all("whole", model))


def test_a_folder_of_other_samples_is_refused(refused: Refused) -> None:
    run("sample labels --num 2 -o drawn")
    refused("drawn holds samples of seed '0', not '1'", "sample", "labels", "--num=2", "--seed=1", "-odrawn")
    refused("of temperature '1.0', not '0.5'", "sample", "labels", "--num=2", "--temperature=0.5", "-odrawn")
    refused("of conditions \"['cat', 'dog']\", not", "sample", "labels", "--num=2", "--label=cat", "-odrawn")
    refused("of each '1', not '2'", "sample", "labels", "--num", "4", "-o", "drawn")
    refused("drawn holds samples of model", "sample", "grey", "--num", "2", "-o", "drawn")
    Path("drawn/samples.json").unlink()
    refused("drawn holds images, but no samples.json", "sample", "labels", "--num", "2", "-o", "drawn")


def test_a_class_conditional_model_draws_a_row_of_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    run("sample labels --num 5 -o rows")
    assert "rows: 6 images, 3 of each: cat, dog" in capsys.readouterr().out
    assert len(list(Path("rows").glob("*.png"))) == 6
    run("sample labels --num 3 --label dog -o name")
    run("sample labels --num 3 --label 1 -o number")
    model = checkpoint.load(Path("labels"))
    assert torch.equal(read_all("name", model), read_all("number", model))
    run("sample labels --num 6 --label cat --label dog -o both")
    assert torch.equal(read_all("both", model), read_all("rows", model))


def test_embeddings_from_files_have_a_row_each(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("face.npy", np.zeros(3, np.float32))
    np.save("two.npy", np.ones((2, 3), np.float32))
    np.save("whole.npy", np.ones(3, np.int64))
    run("sample embeddings --num 6 --embedding face.npy --embedding two.npy -o faces")
    assert "faces: 6 images, 2 of each: face, two 0, two 1" in capsys.readouterr().out
    refused("--embedding: missing", "sample", "embeddings", "-o", "a.png")
    refused("whole.npy: int64 (3,) is not floats", "sample", "embeddings", "--embedding", "whole.npy", "-o", "a.png")
    refused("--embedding: this model takes none", "sample", "grey", "--embedding", "face.npy", "-o", "a.png")


def test_wrong_arguments_of_sample_are_refused(refused: Refused) -> None:
    refused("--label: this model is not class-conditional", "sample", "grey", "--label", "3", "-o", "a.png")
    refused("did you mean 'cat'?", "sample", "labels", "--label=cta", "-oa.png")
    refused("--label: 'emu' is neither of 0 ... 1 nor one of cat, dog", "sample", "labels", "--label=emu", "-oa.png")
    refused("--label: '2' is neither", "sample", "labels", "--label", "2", "-o", "a.png")
    refused("draws images of a code", "sample", "autoencoder", "-o", "a.png")
    refused("'0' is not a number from 0.001 to 1000", "sample", "grey", "--temperature", "0", "-o", "a.png")
    refused("'0' is not a whole number of 1 ... 1,000,000,000", "sample", "grey", "--num", "0", "-o", "a.png")
    refused("is not a whole number of 1 ... 65,536", "sample", "grey", "--batch-size", "1" + 19 * "0", "-o", "a.png")
    refused("'-1' is not a whole number of 0 ...", "sample", "grey", "--seed", "-1", "-o", "a.png")
    refused("--out: a.jpg is neither a .png file nor a folder", "sample", "grey", "-o", "a.jpg")
    refused("nowhere: neither a folder nor a bundled model", "sample", "nowhere", "-o", "a.png")
    assert not Path("a.png").exists()


def test_a_model_of_the_registry_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    registry = SimpleNamespace(fetch=lambda uri: asked.append(uri) or Path("grey"))
    monkeypatch.setitem(sys.modules, "pixelcnn.tracking.registry", registry)
    run("sample models:/digits@champion --num 1 -o one")
    assert asked == ["models:/digits@champion"]


def test_a_network_without_an_efficient_sampler_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sample grey --num 1 -o quick")
    assert "slow" not in capsys.readouterr().err
    monkeypatch.setattr(GatedPixelCNN, "incremental", False)
    run("sample grey --num 1 -o slow")
    assert "note: gated_pixelcnn needs up to a forward pass for each sub-pixel: slow" in capsys.readouterr().err
    run("compress grey slow -o slow.pxc")
    assert "note: gated_pixelcnn needs a forward pass for each sub-pixel: slow" in capsys.readouterr().err


# complete


@pytest.mark.parametrize("keep", ["top-half", "left-half", "right-half"])
def test_completions_keep_the_known_pixels_and_differ_elsewhere(keep: str) -> None:
    run("sample rgb --num 2 -o given")
    run(f"complete rgb given --keep {keep} --num 3 -o done")
    model = checkpoint.load(Path("rgb"))
    given, done = read_all("given", model), read_all("done", model).unflatten(0, (2, 3))
    half = {"top-half": np.s_[..., :2, :], "left-half": np.s_[..., :3], "right-half": np.s_[..., 3:]}[keep]
    assert torch.equal(done[half], given.unsqueeze(1).expand_as(done)[half])
    assert len({tuple(image.flatten().tolist()) for image in done.flatten(0, 1)}) == 6
    assert [path.name for path in sorted(Path("done").iterdir())][:3] == ["00000-0.png", "00000-1.png", "00000-2.png"]


def test_a_folder_that_holds_other_completions_is_refused(refused: Refused) -> None:
    run("sample grey --num 1 -o given")
    run("complete grey given --keep top-half -o done")
    refused(
        "--out: done/00000-0.png already exists", "complete", "grey", "given", "--keep=top-half", "--seed=1", "-odone"
    )


def test_a_mask_gives_the_known_pixels_with_a_note_where_they_are_not_a_prefix(
    refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sample grey --num 1 -o given")
    mask = np.zeros((4, 6), np.uint8)
    mask[:1] = 255
    Image.fromarray(mask).save("prefix.png")
    Image.fromarray(mask[::-1].copy()).save("last-row.png")
    Image.fromarray(mask[:2]).save("small.png")
    run("complete grey given/00000.png --mask prefix.png -o done.png")
    assert "note" not in capsys.readouterr().err
    run("complete grey given/00000.png --mask last-row.png -o done")
    assert "note: known pixels do not influence what is drawn before them" in capsys.readouterr().err
    model = checkpoint.load(Path("grey"))
    assert torch.equal(read_all("done", model)[:, :, 3], read_all("given", model)[:, :, 3].expand(4, -1, -1))
    refused("small.png: is 6 x 2 pixels, not 6 x 4", "complete", "grey", "given", "--mask", "small.png", "-oa.png")
    refused("invalid choice: 'bottom-half'", "complete", "grey", "given", "--keep", "bottom-half", "-o", "a.png")


# score


def test_scores_are_those_of_evaluation(folder: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint.load(Path("labels"))
    _, split = prepared(model, 30)
    run(f"score labels {folder}:test -o scores.csv")
    table, nats = pd.read_csv("scores.csv"), nll(model, split, 64).numpy()
    assert table.nats.to_numpy() == pytest.approx(nats)
    assert table.bits_per_dim.to_numpy() == pytest.approx(nats / 24 / np.log(2))
    assert table.label.tolist() == ["cat", "dog"] * 15
    mean = f"{table.bits_per_dim.mean():.4f} +- {table.bits_per_dim.std() / np.sqrt(30):.4f} bits/dim"
    assert mean in capsys.readouterr().out
    run(f"score labels {folder}:test:2 -o two.parquet")
    assert pd.read_parquet("two.parquet").image.tolist() == ["test-00000", "test-00001"]
    run(f"score labels {folder}:test")
    assert "... and 10 more" in capsys.readouterr().out
    refused(f"{folder}: images of (1, 4, 6) with 8 levels, the model's are (3, 4, 6)", "score", "rgb", f"{folder}:test")
    refused("a prepared split, to which no other images can be added", "score", "labels", f"{folder}:test", "x.png")
    refused(
        "--out: scores.txt does not end in .parquet or .csv", "score", "labels", f"{folder}:test", "-o", "scores.txt"
    )


def test_a_label_is_needed_for_image_files(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    run("sample labels --num 1 --label dog -o given")
    refused("--label: missing; this model is class-conditional", "score", "labels", "given")
    refused("needs an embedding of each", "score", "embeddings", "given")
    run("score labels given --label dog")
    model = checkpoint.load(Path("labels"))
    nats = nll(model, Split(read_all("given", model), torch.tensor([1])), 1)
    assert f"{float(nats[0]):.4f}" in capsys.readouterr().out
    Image.new("L", (5, 4)).save("given/z.png")
    refused("z.png: is 5 x 4 pixels, not 6 x 4", "score", "labels", "given", "--label", "dog")
    Path("empty").mkdir()
    refused("empty: holds no file that ends in .png", "score", "labels", "empty")


def test_the_mean_of_a_model_that_is_not_exact_is_printed_as_an_upper_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sample grey --num 2 -o given")
    run("score grey given")
    assert "≤" not in capsys.readouterr().out
    monkeypatch.setattr(GatedPixelCNN, "exact", False)
    run("score grey given")
    assert re.search(r"^≤ \d\.\d{4} \+- .* bits/dim, the mean of 2", capsys.readouterr().out, re.MULTILINE)


def test_a_bad_file_hides_no_other(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    run("sample grey --num 2 -o given")
    Path("given/broken.png").write_text("no image")
    Image.new("L", (5, 4)).save("given/z.png")
    refused(
        "error: 2 of 4 files cannot be used; --skip-bad leaves them out\ngiven/broken.png: ",
        "score",
        "grey",
        "given",
    )
    refused("\ngiven/z.png: is 5 x 4 pixels, not 6 x 4; --resize or --tiles takes any", "score", "grey", "given")
    refused("2 of 2 files cannot be used\n", "score", "grey", "gone.png", "given/z.png", "--skip-bad")
    for line in ("score grey given --skip-bad", "complete grey given --keep top-half -o done --skip-bad"):
        run(line)
        said = capsys.readouterr()
        assert "note: 2 of 4 files cannot be used and are left out\ngiven/broken.png: " in said.err
        assert "2 image" in said.out
    refused("given/broken.png: is not an image", "score", "grey", "given/broken.png", "--skip-bad")


def test_tiles_need_what_the_archive_of_the_image_holds(capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint.load(Path("rgb"))
    x = torch.randint(0, 8, (3, 4, 6), dtype=torch.uint8)
    wide = torch.cat([x, x.flip(2)], 2)
    image_files.write(Path("one.png"), x, 8)
    image_files.write(Path("wide.png"), wide, 8)
    image_files.write(Path("padded.png"), wide[:, :3, :11], 8)
    run("score rgb one.png wide.png padded.png --tiles -o tiles.csv")
    assert re.search(r"^≤ ", capsys.readouterr().out, re.MULTILINE)
    table, whole = pd.read_csv("tiles.csv"), nll(model, Split(torch.stack([x, x.flip(2)]), None), 2)
    assert table.nats.tolist()[:2] == pytest.approx([float(whole[0]), float(whole.sum())])
    assert table.bits_per_dim[1] == pytest.approx(float(whole.sum()) / wide.numel() / np.log(2))
    _, payload = compression.unpack(compression.compress(model, {"padded": wide[:, :3, :11]}, 1))
    assert 8 * len(payload) / 99 == pytest.approx(table.bits_per_dim[2], abs=64 / 99)  # the range coder's last words


def test_images_are_cut_and_resized_to_the_size_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (600, 200), 255).save("white.png")
    Image.new("L", (6, 4), 255).save("its-size.png")
    run("score grey white.png its-size.png --resize -o scores.csv")
    nats = pd.read_csv("scores.csv").nats
    assert nats[0] == nats[1]
    assert "≤" not in capsys.readouterr().out


def test_a_map_shows_each_image_beside_its_bits(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    run("sample rgb --num 2 -o given")
    before = {path: path.read_bytes() for path in Path("given").iterdir()}
    run("score rgb given --map maps.png")
    assert "maps.png: each image, and its bits per pixel from 0 (black) to" in capsys.readouterr().out
    run("score rgb given --map maps")
    for path in Path("given").glob("*.png"):
        with Image.open(Path("maps", path.name)) as picture, Image.open(path) as image:
            factor = picture.height // (image.height + 2)
            left = np.array(picture)[factor:-factor:factor, factor : factor * 7 : factor]
            assert np.array_equal(left, np.array(image))
    refused("given/00000.png already exists", "score", "rgb", "given", "--map", "given")
    image_files.write(Path("large.png"), torch.zeros(3, 9, 9, dtype=torch.uint8), 8)
    refused(
        "--map: images of several sizes share no grid",
        "score",
        "rgb",
        "given",
        "large.png",
        "--tiles",
        "--map",
        "a.png",
    )
    assert {path: path.read_bytes() for path in Path("given").iterdir()} == before


@pytest.mark.parametrize(
    ("operand", "message"),
    [
        ("data/prepared/mine:tets", "'tets' is not one of train, validation, test; did you mean 'test'?"),
        ("data/prepared/mime:test", "data/prepared/mime: no such data set; did you mean 'data/prepared/mine'?"),
        ("data/prepared/mine", "is a prepared data set: name one of its splits, as data/prepared/mine:test"),
    ],
)
def test_a_misspelt_split_is_refused_with_the_right_one(operand: str, message: str, refused: Refused) -> None:
    Path("data/prepared/mine").mkdir(parents=True)
    Path("data/prepared/mine/card.json").touch()
    refused(message, "score", "grey", operand)


# compress, decompress


@pytest.mark.parametrize("model", ["grey", "rgb"])
def test_an_archive_restores_the_same_files(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"sample {model} --num 3 -o given")
    large = torch.randint(0, 8, (checkpoint.load(Path(model)).shape[0], 9, 7), dtype=torch.uint8)
    image_files.write(Path("large.png"), large, 8)
    run(f"compress {model} given large.png -o archives/a.pxc")
    assert re.search(r"a.pxc: 4 images of [\d,]+ bytes in [\d,]+ bytes", capsys.readouterr().out)
    run(f"decompress {model} archives/a.pxc -o back")
    assert sorted(path.name for path in Path("back").iterdir()) == ["00000.png", "00001.png", "00002.png", "large.png"]
    for path in [*Path("given").glob("*.png"), Path("large.png")]:
        assert path.read_bytes() == Path("back", path.name).read_bytes()


def test_a_split_of_a_prepared_data_set_is_compressed(folder: Path) -> None:
    model = checkpoint.load(Path("grey"))
    _, split = prepared(model, 5)
    run(f"compress grey {folder}:test:3 -o a.pxc")
    run("decompress grey a.pxc -o back")
    assert torch.equal(read_all("back", model), split.images[:3])


def test_damaged_archives_write_nothing_and_no_file_is_overwritten(refused: Refused) -> None:
    run("sample labels --num 2 --label cat -o given")
    run("compress labels given --label cat -o a.pxc")
    damaged = bytearray(Path("a.pxc").read_bytes())
    damaged[-1] ^= 1
    Path("b.pxc").write_bytes(damaged)
    refused("archive: is damaged", "decompress", "labels", "b.pxc", "-o", "back")
    refused("archive: was made with the model", "decompress", "grey", "a.pxc", "-o", "back")
    assert not Path("back").exists()
    refused("given/00000.png already exists", "decompress", "labels", "a.pxc", "-o", "given")
    refused("--label: missing", "compress", "labels", "given", "-o", "c.pxc")
    refused("--label: this model is not class-conditional", "compress", "grey", "given", "--label=cat", "-o", "c.pxc")
    refused("needs the code of each image", "compress", "autoencoder", "given", "-o", "c.pxc")
    refused("a second image named 00000", "compress", "grey", "given", "given", "-o", "c.pxc")
    assert not Path("c.pxc").exists()


def test_an_archive_writes_into_the_output_folder_only(refused: Refused) -> None:
    image = torch.zeros(1, 4, 6, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "check_name", lambda name, _: name)
        archive = compression.compress(checkpoint.load(Path("grey")), {"../up": image}, 1)
    Path("a.pxc").write_bytes(archive)
    refused("names: '../up' is not the name of a file", "decompress", "grey", "a.pxc", "-o", "back/in")
    assert not Path("back").exists()


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "\x1b[31m", "..", "x" * 230])
def test_compress_refuses_names_that_decompress_would(name: str, refused: Refused) -> None:
    run("sample grey --num 1 -o given")
    path = Path("given/00000.png").rename(f"given/{name}.png")
    refused("IMAGES: ", "compress", "grey", str(path), "-o", "a.pxc")
    assert not Path("a.pxc").exists()


@pytest.mark.parametrize(
    "line",
    [
        "complete grey one two --keep top-half -o done",
        "reconstruct autoencoder one two -o done",
        "interpolate autoencoder one/00000.png one/00001.png two/00000.png two/00001.png -o done",
        "compress grey one two -o done",
    ],
)
def test_two_images_of_one_name_are_refused_where_each_gets_a_file(line: str, refused: Refused) -> None:
    run("sample grey --num 2 -o one")
    shutil.copytree("one", "two")
    refused("a second image named 00000", *line.split())
    assert not Path("done").exists()
