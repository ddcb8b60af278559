"""The stage embed: embeddings by a classifier or from the user's file, and a data set that holds them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import pixelcnn
from pixelcnn import params
from pixelcnn.cli import main
from pixelcnn.data import embeddings, image_files
from pixelcnn.data.config import Classifier, EmbeddingsFile
from pixelcnn.data.dataset import DatasetInfo, image_hash, read_info, read_split, write_info
from pixelcnn.data.writer import SplitWriter
from pixelcnn.stages import embed
from tests.conftest import DEMO

NUMS = {"train": 40, "validation": 4, "test": 12}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Black and white images of 1x8x8 under two labels."""
    folder = tmp_path / "plain"
    folder.mkdir()
    splits: dict[str, Any] = {}
    for name, num in NUMS.items():
        with SplitWriter(folder, name, (1, 8, 8), True, 25) as writer:  # type: ignore[arg-type]
            for n in range(num):
                pixels = bytes([3 * (n % 2)] * 63 + [n % 4])
                writer.add(pixels, n % 2, image_hash(pixels))
        splits[name] = writer.info
    card = DatasetInfo(
        dataset="plain", source="digits", title="Plain", shape=(1, 8, 8), levels=4, classes=("black", "white"),
        splits=splits, channel_means=(1.5,), channel_deviations=(1.5,), comparable=False, comparable_reason="made up",
        licence="none", citation="none", homepage="",
    )  # fmt: skip
    write_info(card, folder / "card.json")
    return folder


def user_file(path: Path, **changed: Any) -> EmbeddingsFile:
    """A user's Parquet file, its rows in no order, with 3 numbers per image: (split's place, image, 0.5)."""
    rows = [
        (split, n, [float(place), float(n), 0.5]) for place, (split, num) in enumerate(NUMS.items()) for n in range(num)
    ]
    rows = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    columns = dict(zip(("split", "image", "embedding"), map(list, zip(*rows, strict=True)), strict=True)) | changed
    pq.write_table(pa.table({name: column for name, column in columns.items() if column is not None}), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return EmbeddingsFile(source="file", dataset="plain", path=str(path), sha256=sha256)


def test_embeddings_of_a_users_file_are_read_with_their_images(prepared: Path, tmp_path: Path) -> None:
    card = read_info(prepared)
    vectors = embeddings.from_file(user_file(tmp_path / "mine.parquet"), card)
    made = embeddings.write(vectors, card, prepared, tmp_path / "embedded", "mine.parquet")
    assert read_info(tmp_path / "embedded").embeddings == made
    for place, (name, num) in enumerate(NUMS.items()):
        split, plain = (read_split(folder, name) for folder in (tmp_path / "embedded", prepared))  # type: ignore[arg-type]
        assert torch.equal(split.images, plain.images)
        assert split.embeddings is not None
        assert split.embeddings.tolist() == [[place, n, 0.5] for n in range(num)]
        part = split.part(torch.tensor([2, 0]))
        assert part.embeddings is not None
        assert part.embeddings[:, 1].tolist() == [2, 0]
    assert read_split(prepared, "test").embeddings is None


def test_other_embeddings_have_another_hash(prepared: Path, tmp_path: Path) -> None:
    card = read_info(prepared)
    vectors = embeddings.from_file(user_file(tmp_path / "mine.parquet"), card)
    first = embeddings.write(vectors, card, prepared, tmp_path / "a", "mine")
    vectors["test"] = vectors["test"] + 1
    assert embeddings.write(vectors, card, prepared, tmp_path / "a", "mine").sha256 != first.sha256


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embedding": None}, "lacks embedding: its columns are"),
        ({"image": [0] * 56}, "split train: 40 rows, which are not images 0 ... 39 once each"),
        ({"split": ["train"] * 56}, "split train: 56 rows, which are not images 0 ... 39 once each"),
        ({"embedding": [[float("nan")]] * 56}, "split train: embeddings contain non-finite numbers"),
        ({"embedding": [[1.0]] * 55 + [[1.0, 2.0]]}, r"embedding \(lists of one length\)"),
        ({"embedding": [[[1.0]]] * 56}, "embedding .*: 2 axes"),
        ({"embedding": [[1.0]] * 55 + [None]}, "embedding "),
        ({"embedding": [["a"]] * 56}, "could not convert string"),
        ({"embedding": [[]] * 56}, "embeddings of 0 numbers; all have one of 1 ... 65,536"),
        ({"split": [0] * 56}, r"split \(text\)"),
    ],
)
def test_a_file_that_does_not_match_the_images_is_refused(
    prepared: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    settings = user_file(tmp_path / "mine.parquet", **changed)
    with pytest.raises(ValueError, match=message):
        embeddings.from_file(settings, read_info(prepared))


def test_embeddings_of_two_lengths_are_refused(prepared: Path, tmp_path: Path) -> None:
    settings = user_file(tmp_path / "mine.parquet")
    table = pq.read_table(tmp_path / "mine.parquet").to_pylist()
    rows = [row | {"embedding": row["embedding"][: 2 if row["split"] == "test" else 3]} for row in table]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    sha256 = hashlib.sha256((tmp_path / "mine.parquet").read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="embeddings of 2 and 3 numbers"):
        embeddings.from_file(settings.model_copy(update={"sha256": sha256}), read_info(prepared))


def test_a_classifier_that_has_diverged_embeds_nothing(prepared: Path) -> None:
    from pixelcnn.data.embedder import train_classifier

    settings = Classifier(
        source="classifier", dataset="plain", network="resnet18", dims=5, seed=0, steps=3, batch_size=8,
        learning_rate=1e30,
    )  # fmt: skip
    embedder = train_classifier(settings, read_info(prepared), read_split(prepared, "train"), torch.device("cpu"))
    with pytest.raises(FloatingPointError, match=r"of plain gives numbers that are not finite: .* lower learning_rate"):
        embedder(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_a_file_that_has_changed_is_refused(prepared: Path, tmp_path: Path) -> None:
    settings = user_file(tmp_path / "mine.parquet")
    user_file(tmp_path / "mine.parquet", image=list(range(56)))
    with pytest.raises(ValueError, match=r"sha256: .* is not that of .*mine.parquet, which is"):
        embeddings.from_file(settings, read_info(prepared))
    (tmp_path / "mine.parquet").unlink()
    with pytest.raises(ValueError, match=r"mine.parquet: no such file"):
        embeddings.from_file(settings, read_info(prepared))


def test_damaged_embeddings_are_refused(prepared: Path, tmp_path: Path) -> None:
    card, out = read_info(prepared), tmp_path / "embedded"
    embeddings.write(embeddings.from_file(user_file(tmp_path / "mine.parquet"), card), card, prepared, out, "mine")
    pq.write_table(pq.read_table(out / "train.embeddings.parquet").slice(1), out / "train.embeddings.parquet")
    with pytest.raises(ValueError, match=r"39 x fixed_size_list.* card.json says 40 x 3 float32"):
        read_split(out, "train")
    (out / "train.embeddings.parquet").unlink()
    with pytest.raises(ValueError, match=r"no such file, though card.json describes embeddings"):
        read_split(out, "train")


def test_the_stage_trains_a_classifier_whose_features_are_the_embeddings(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {
        "source": "classifier", "dataset": "plain", "network": "resnet18", "dims": 5, "seed": 0, "steps": 30,
        "batch_size": 16, "learning_rate": 0.001,
    }  # fmt: skip
    content = params.load(DEMO).model_dump()
    content["datasets"]["plain"] = content["datasets"]["digits"]
    content["embeddings"] = {"plain-embedded": entry}
    (tmp_path / "params.yaml").write_text(json.dumps(content))  # which is YAML too
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["embed", "plain-embedded", "--data", str(prepared), "--out", "out", "--report", "report.json"]
    )
    embed.main()
    report = json.loads(Path("report.json").read_text())
    assert report["dims"] == 5
    assert report["test_accuracy"] == 1.0
    test = read_split(Path("out"), "test")
    assert test.embeddings is not None
    assert test.embeddings.shape == (12, 5)
    black, white = (test.embeddings[test.labels == label].mean(0) for label in (0, 1))
    assert float((black - white).norm()) > 0.1
    assert "5 numbers per image, resnet18 trained on the labels of Plain" in capsys.readouterr().out

    # What it trained is saved, and makes the same embeddings of the same images: as conditions of images never seen
    embedder = pixelcnn.load_embedder("out")
    torch.testing.assert_close(embedder(test.images), test.embeddings)
    image_files.write(Path("white.png"), test.images[1], levels=4)
    main(["embed", "out", "white.png", "-o", "e.npy"])
    torch.testing.assert_close(torch.from_numpy(np.load("e.npy")), test.embeddings[1:2])
    assert "e.npy: 1 embeddings of 5 numbers, resnet18 trained on the labels of plain" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"float32 \(12, 1, 8, 8\) is not uint8 \(N, 1, 8, 8\)"):
        embedder(test.images / 3)
    with pytest.raises(ValueError, match=r"plain: no embedder/ there"):
        pixelcnn.load_embedder(prepared)
    weights = Path("out/embedder/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"model.safetensors: not the weights that config.json names"):
        pixelcnn.load_embedder("out")


def test_a_classifier_needs_labels(prepared: Path) -> None:
    from pixelcnn.data.dataset import Split
    from pixelcnn.data.embedder import train_classifier

    settings = Classifier(
        source="classifier", dataset="plain", network="resnet18", dims=5, seed=0, steps=1, batch_size=8,
        learning_rate=0.001,
    )  # fmt: skip
    data = Split(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), None)
    with pytest.raises(ValueError, match="source: classifier needs labels, but plain has none"):
        train_classifier(settings, read_info(prepared), data, torch.device("cpu"))
