"""A user's own images become a data set: whatever the layout, whatever the files, or a message that says what to do."""

import importlib
import io
import itertools
import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pixelcnn import params
from pixelcnn.cli import main
from pixelcnn.data import image_files, parallel
from pixelcnn.data.class_names import unique
from pixelcnn.data.config import Images
from pixelcnn.data.dataset import DatasetInfo, read_info, read_split
from pixelcnn.data.decoding import decode_picture
from pixelcnn.data.importing import fit, import_images
from pixelcnn.evaluation.baselines import measure
from tests import hostile, publishers
from tests.conftest import DEMO

NOISE = np.random.default_rng(0).integers(0, 256, (60, 6, 4, 3), dtype=np.uint8)
CROP = {"name": "crop", "height": 4, "width": 4, "filter": "box"}


def file(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file's content: an array, or Pillow's image."""
    content = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(content, kind, **options)
    return content.getvalue()


def section(path: Path | str, **changed: Any) -> Images:
    values = {
        "path": str(path), "title": "Mine", "licence": "", "citation": "", "size": {"name": "exact"}, "colour": "read",
        "accept": [], "labels": "read", "class_names": None, "test_fraction": 0.3, "validation_fraction": 0.3,
        "seed": 0, "images_per_shard": 1000,
    }  # fmt: skip
    return Images.model_validate(values | changed)


def imported(path: Path, **changed: Any) -> tuple[DatasetInfo, list[str], Path]:
    out = path.parent / "out"
    info, notes = import_images("mine", section(path, **changed), out, workers=1)
    return info, notes, out


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def by_class(out: Path) -> dict[str, set[tuple[bytes, str]]]:
    """The images of each split, in the order H, W, C, with the names of their classes."""
    classes = read_info(out).classes
    found = {}
    for split in ("train", "validation", "test"):
        data = read_split(out, split)  # type: ignore[arg-type]
        labels = [""] * len(data.images) if data.labels is None else [classes[n] for n in data.labels]
        rows = data.images.permute(0, 2, 3, 1)
        found[split] = {(row.numpy().tobytes(), label) for row, label in zip(rows, labels, strict=True)}
    return found


# Layouts: the same 60 images, of two classes, in three splits

TREE = {
    f"{split}/{kind}/{n}.png": n
    for n, (split, kind) in enumerate(itertools.product(("train",) * 3 + ("valid", "test"), ("cat", "dog") * 6))
}
SPLIT_OF = {"train": "train", "valid": "validation", "test": "test"}


def pngs() -> dict[str, bytes]:
    return {name: file(NOISE[n]) for name, n in TREE.items()}


def labels(split: str) -> list[int]:
    return [int("dog" in name) for name in TREE if name.startswith(split)]


def rows(split: str) -> np.ndarray:
    return NOISE[[n for name, n in TREE.items() if name.startswith(split)]]


def as_folder(path: Path) -> Path:
    return write(path / "photographs", pngs())


def as_tar(path: Path) -> Path:
    publishers.write_tar(path / "a.tar.gz", {f"./photographs/{name}": png for name, png in pngs().items()}, "w:gz")
    return path / "a.tar.gz"


def as_zip(path: Path) -> Path:
    members = {f"photographs/{name}": png for name, png in pngs().items()}
    publishers.write_zip(path / "a.zip", members | {"__MACOSX/photographs/train/cat/._0.png": b"x"})
    return path / "a.zip"


def as_npz(path: Path, axes: tuple[int, ...] = (0, 1, 2, 3)) -> Path:
    arrays = {f"{split}_images": rows(split).transpose(axes) for split in SPLIT_OF}
    np.savez(path / "a.npz", **arrays, **{f"{split}_labels": np.array(labels(split)) for split in SPLIT_OF})
    return path / "a.npz"


def as_parquet(path: Path) -> Path:
    metadata = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    for split in SPLIT_OF:
        images = [{"bytes": file(row), "path": None} for row in rows(split)]
        table = pa.table({"image": images, "label": labels(split)})
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
        (path / "data").mkdir(exist_ok=True)
        pq.write_table(table, path / "data" / f"{split}-00000-of-00001.parquet")
    return path / "data"


@pytest.mark.parametrize(
    "lay_out", [as_folder, as_tar, as_zip, as_npz, lambda path: as_npz(path, (0, 3, 1, 2)), as_parquet]
)
def test_every_layout_gives_the_same_images_classes_and_splits(lay_out: Callable[[Path], Path], tmp_path: Path) -> None:
    info, _, out = imported(lay_out(tmp_path))
    assert (info.shape, info.levels, info.licence) == ((3, 6, 4), 256, "")
    names = info.classes if info.classes != ("0", "1") else ("cat", "dog")  # arrays have no names of classes
    found = {split: {(row, names[info.classes.index(name)]) for row, name in images} for split, images in
             by_class(out).items()}  # fmt: skip
    assert found == {
        ours: {(NOISE[n].tobytes(), name.split("/")[1]) for name, n in TREE.items() if name.startswith(theirs)}
        for theirs, ours in SPLIT_OF.items()
    }


def test_one_folder_is_cut_by_hash_and_copies_stay_together(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {f"{n} {copy}.png": file(NOISE[n]) for n in range(60) for copy in "ab"})
    info, _, out = imported(folder)
    assert info.classes == ()
    assert all(split.num_images % 2 == 0 for split in info.splits.values())
    assert sum(split.num_images for split in info.splits.values()) == 120
    assert len(set.union(*by_class(out).values())) == 60
    again, _, _ = imported(folder)
    other, _, _ = imported(folder, seed=1)
    assert again == info != other


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "IN_PROCESS", 1)
    folder, results = as_folder(tmp_path), []
    for workers in (1, 2):
        import_images("mine", section(folder), tmp_path / str(workers), workers)
        results.append({path.name: path.read_bytes() for path in (tmp_path / str(workers)).iterdir()})
    assert results[0] == results[1]


def test_names_of_users_are_read_and_what_is_no_image_is_left_out_and_counted(tmp_path: Path) -> None:
    names = ["a b.PNG", "фото.JPG", "🐶.jpeg", "back\\slash.png", "new\nline.png", "deep/er/x.webp", "x" * 200 + ".png"]
    files = {f"кот/{name}": file(Image.fromarray(NOISE[n]), "PNG") for n, name in enumerate(names)}
    files |= {
        "dog/1.png": file(NOISE[50]),
        "dog/._1.png": b"junk",
        "dog/Thumbs.db": b"",
        "README.txt": b"",
        "a.mp4": b"",
    }
    info, notes, _ = imported(write(tmp_path / "in", files))
    assert info.classes == ("dog", "кот")
    assert "8 images of 3 x 6 x 4, 256 levels, 2 class(es): dog, кот" in notes[0]
    assert notes[1:] == ["left out: 1 .txt, 1 .mp4"]
    imported(tmp_path / "in", labels="none")


def test_levels_are_read(tmp_path: Path) -> None:
    cases = {17: NOISE[..., 0] % 17, 2: NOISE[..., 0] % 2, 256: NOISE[..., 0]}
    for levels, array in cases.items():
        np.save(tmp_path / "a.npy", array)
        info, _, out = imported(tmp_path / "a.npy")
        assert (info.levels, info.shape) == (levels, (1, 6, 4))
        assert int(read_split(out, "train").images.max()) == levels - 1
    bits = {f"{n}.png": file(Image.fromarray(NOISE[n, ..., 0]).convert("1")) for n in range(9)}
    folder = write(tmp_path / "bits", bits)
    info, notes, out = imported(folder)
    assert (info.levels, int(read_split(out, "train").images.max())) == (2, 1)
    assert notes[1] == "converted: 9 black and white to grey"


def test_sizes_are_made_alike_as_params_say() -> None:
    image = np.zeros((4, 8, 1), np.uint8)
    image[:, 2:6] = 255
    crop = section("x", size={"name": "crop", "height": 2, "width": 2, "filter": "box"}).size
    stretch = section("x", size={"name": "resize", "height": 2, "width": 2, "filter": "box"}).size
    assert fit(image, crop).tolist() == [[[255], [255]]] * 2  # the middle
    assert fit(image, stretch).tolist() == [[[128], [128]]] * 2  # all of it


def test_names_of_classes_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("n02098413 2 Lhasa\nn02119789 1 kit_fox\n")
    given = {"path": str(tmp_path / "names.txt"), "sha256": "0" * 64}
    with pytest.raises(ValueError, match=r"class_names\.sha256: 000.* is not that of .*names.txt, which is ") as error:
        imported(as_npz(tmp_path), class_names=given)
    given["sha256"] = str(error.value).split()[-1]
    assert imported(as_npz(tmp_path), class_names=given)[0].classes == ("kit_fox", "Lhasa")
    (tmp_path / "names.txt").write_text("one\n")
    given["sha256"] = "4d5b9a1b4bd1e0a8d2bb1a3d7d0ee2f7f0b1e2d3c4b5a69788796a5b4c3d2e1f"
    with pytest.raises(ValueError, match="is not that of"):
        imported(as_npz(tmp_path), class_names=given)


# Too few


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no image"),
        ({"a.txt": b""}, r"holds no image .*left out: 1 \.txt"),
        ({"a.png": file(NOISE[0])}, r"holds 1 image\(s\); training, validation and test need at least one each"),
        ({f"{n}.png": file(NOISE[0]) for n in range(30)}, "none of 30 images falls into the "),
        ({"test/a.png": file(NOISE[0])}, "has test/ but no train/"),
        ({"train/a.png": file(NOISE[0]), "other/b.png": file(NOISE[0])}, "other/b.png is beside train/"),
        ({"cat/a.png": file(NOISE[0]), "b.png": file(NOISE[1])}, "b.png are not in a class folder such as cat"),
        ({"a.png": file(NOISE[0]), "b.png": file(NOISE[1][:5])}, r"b.png: is 4 x 5 .*, and .*a.png is 4 x 6\n`size"),
        ({"a.png": b"junk", "b.png": file(NOISE[0])}, r"a.png: is not an image .*\n`accept: \[unreadable\]` "),
    ],
)  # fmt: skip
def test_what_cannot_be_a_data_set_is_refused_by_its_stage(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=message):
        imported(write(tmp_path / "in", files))


def test_one_class_and_three_images_are_right(tmp_path: Path) -> None:
    files = {f"{split}/cat/{n}.png": file(NOISE[n]) for n, split in enumerate(("train", "valid", "test"))}
    info, _, out = imported(write(tmp_path / "in", files))
    assert info.classes == ("cat",)
    assert [split.num_images for split in info.splits.values()] == [1, 1, 1]
    report = measure(read_split(out, "train").images, read_split(out, "test").images, info.levels, None)
    assert report.gaussian.test.standard_error is None


def test_a_test_image_among_the_training_images_is_said(tmp_path: Path) -> None:
    files = pngs() | {"test/cat/copy.png": file(NOISE[0])}
    _, notes, _ = imported(write(tmp_path / "in", files))
    assert notes[-1].startswith("1 of the test images are also among the others")


# Arrays, tables and params that are wrong


def test_a_few_bytes_that_claim_many_or_large_images_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for shape, message in (
        ((3, 30000, 30000, 1), "images of 900,000,000 bytes"),
        ((10**9, 1, 1), "1,000,000,000 images"),
    ):
        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with pytest.raises(ValueError, match=rf"a\.npy: a: .*{message}, at most "):
            imported(path)
    table = pa.table({"image": pa.array([b""] * 10**6), "label": pa.array(np.zeros(10**6, np.int8))})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for _ in range(34):
            writer.write_table(table)
    with pytest.raises(ValueError, match=r"a\.parquet: holds 34,000,000 images, at most 33,554,432"):
        imported(tmp_path / "a.parquet")


def test_labels_that_end_early_are_refused(tmp_path: Path) -> None:
    contents = {"x": NOISE, "y": np.arange(60)}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, array in contents.items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue()[: -40 if name == "y" else None])
    with pytest.raises(ValueError, match=r"a\.npz: y: cannot be read: ends after label 55 of 60"):
        imported(tmp_path / "a.npz")


@pytest.mark.parametrize("labels", [["a"] * 20, [[0]] * 20, [0.5] * 20])
def test_tables_whose_columns_differ_in_type_are_refused(labels: list[Any], tmp_path: Path) -> None:
    images = [file(image) for image in NOISE[:20]]
    for n, values in enumerate(([0] * 20, labels)):
        pq.write_table(pa.table({"image": images, "label": values}), tmp_path / f"train-{n}.parquet")
    with pytest.raises(ValueError, match=r"train-1\.parquet: label is .*, and in .*train-0\.parquet int64"):
        imported(tmp_path)


def test_deep_metadata_of_a_table_names_no_classes(tmp_path: Path) -> None:
    table = pa.table({"image": [file(image) for image in NOISE], "label": [0] * 60})
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"[" * 200_000}), tmp_path / "a.parquet")
    assert imported(tmp_path / "a.parquet")[0].classes == ("0",)


def test_names_of_classes_stay_apart() -> None:
    assert unique(["a", "a", "a (2)", "a"], "x") == ("a", "a (2)", "a (2) (2)", "a (3)")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": NOISE / 255.0}, r"is float64 .*expected uint8 with 0 ... 255; of values in \[0, 1\] save"),
        ({"x": NOISE.astype(np.int64)}, "is int64"),
        ({"x": NOISE[:, :3]}, r"is \(60, 3, 4, 3\): which axis is that of the channels"),
        ({"x": np.asfortranarray(NOISE)}, "is in Fortran's order; save np.ascontiguousarray"),
        ({"x": np.array([{}])}, "holds Python objects"),
        ({"y": np.arange(9)}, "holds y int64"),
        ({"x": NOISE, "z": NOISE}, "expected one array"),
        ({"x": NOISE, "y": np.arange(3)}, "expected an integer for each of the 60 images of x"),
        ({"x": NOISE, "y": np.arange(60)[None]}, "expected an integer for each of the 60 images of x"),
        ({"x": NOISE, "y": np.arange(60), "labels": np.arange(60)}, "labels is a second array of labels"),
    ],
)
def test_arrays_that_are_no_images_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz.*: {message}|{message}"):
        imported(tmp_path / "a.npz")


@pytest.mark.parametrize("place", ["data/raw/x", "models", "../project/reports", "~/x", "https://mirror/x"])
def test_a_path_that_dvc_would_empty_or_not_find_is_refused(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    content = YAML(typ="safe").load(DEMO)
    content["images"] = {"mine": section("x").model_dump() | {"path": place}}
    with pytest.raises(ValueError, match=r"p: images\.mine\.path: .* is not (safe for your files|a path)"):
        params.parse(content, "p")


def test_the_stage_writes_data_and_report_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    as_folder(tmp_path)
    main(["suite", "images"])
    monkeypatch.setattr(sys, "argv", ["import", "photographs", "--out", "out", "--report", "reports/a.json"])
    importlib.import_module("pixelcnn.stages.import").main()
    assert Path("reports/a.json").read_bytes() == Path("out/card.json").read_bytes()
    assert "photographs: 60 images of 3 x 32 x 32" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["check", "--out", "reports/check.txt"])
    check = importlib.import_module("pixelcnn.stages.check").main
    check()
    shutil.rmtree("photographs")
    write(Path("photographs"), {f"{n}.png": content for n, content in enumerate(pngs().values())})
    with pytest.raises(
        ValueError,
        match=r"runs\.photographs-finetuned-label\.model\.condition: 'label' needs labels, but photographs has",
    ):
        check()
    shutil.rmtree("photographs")
    with pytest.raises(ValueError, match=r"images\.photographs\.path: 'photographs': no such file or folder"):
        check()


# Files of the field: what each gives as an operand (RGB and grey models), and as training data

RGB = Image.fromarray(NOISE[0])
GREY = RGB.convert("L")
ALPHA = np.dstack([NOISE[0], np.full((6, 4), 255, np.uint8)])
HALF = ALPHA.copy()
HALF[0, 0, 3] = 128
TURNED = Image.Exif()
TURNED[0x0112] = 6
SIXTEEN = Image.fromarray(NOISE[0, :, :, 0].astype(np.uint16) * 257)


def key_png(row: bytes) -> bytes:
    return hostile.png(2, 8, row, (b"tRNS", struct.pack(">HHH", 1, 2, 3)))


def animated(kind: str) -> bytes:
    return file(RGB.convert("P") if kind == "GIF" else RGB, kind, save_all=True, append_images=[RGB.transpose(0)])


INPUTS: dict[str, tuple[bytes, str]] = {  # content; what is done, or why it is refused
    "rgb.png": (file(RGB), "as it is"),
    "grey.png": (file(GREY), "as it is"),
    "1-bit.png": (file(GREY.convert("1")), "black and white to grey"),
    "palette.png": (file(RGB.quantize(16)), "palette to RGB"),
    "grey palette.png": (file(GREY.convert("P")), "palette to grey"),
    "palette.gif": (file(RGB.quantize(16), "GIF"), "palette to RGB"),
    "opaque rgba.png": (file(ALPHA), "opaque alpha dropped"),
    "opaque la.png": (file(GREY.convert("LA")), "opaque alpha dropped"),
    "key that nothing has.png": (key_png(bytes(12)), "opaque alpha dropped"),
    "turned.jpg": (file(RGB, "JPEG", exif=TURNED), "turned as its EXIF orientation says"),
    "turned.png": (file(RGB, exif=TURNED), "turned as its EXIF orientation says"),
    "rgb.jpg": (file(RGB, "JPEG"), "as it is"),
    "progressive.jpg": (file(RGB, "JPEG", progressive=True), "as it is"),
    "grey.jpg": (file(GREY, "JPEG"), "as it is"),
    "jpeg named.png": (file(RGB, "JPEG"), "as it is"),
    "lossy.webp": (file(RGB, "WEBP"), "as it is"),
    "lossless.webp": (file(RGB, "WEBP", lossless=True), "as it is"),
    "opaque.webp": (file(ALPHA, "WEBP", lossless=True), "as it is"),
    "rgb.bmp": (file(RGB, "BMP"), "as it is"),
    "grey.bmp": (file(GREY, "BMP"), "as it is"),
    "1-bit.bmp": (file(GREY.convert("1"), "BMP"), "black and white to grey"),
    "rgb.tif": (file(RGB, "TIFF"), "as it is"),
    "lzw.tiff": (file(RGB, "TIFF", compression="tiff_lzw"), "as it is"),
    "rgb.ppm": (file(RGB, "PPM"), "as it is"),
    "grey.pgm": (file(GREY, "PPM"), "as it is"),
    "UPPER.PNG": (file(RGB), "as it is"),
    "a b.png": (file(RGB), "as it is"),
    "кириллица.png": (file(RGB), "as it is"),
    "🐶.png": (file(RGB), "as it is"),
    "back\\slash.png": (file(RGB), "as it is"),
    "new\nline.png": (file(RGB), "as it is"),
    "cmyk.jpg": (file(RGB.convert("CMYK"), "JPEG"), "cmyk: is in CMYK"),
    "16-bit grey.png": (file(SIXTEEN), "16-bit: has 16 bits a channel"),
    "16-bit rgb.png": (hostile.png(2, 16, bytes(24)), "16-bit: has 16 bits a channel"),
    "16-bit.tif": (file(SIXTEEN, "TIFF"), "16-bit: has 16 bits a channel"),
    "16-bit.ppm": (b"P6 4 6 65535\n" + bytes(144), "16-bit: has 16 bits a channel"),
    "rgba.png": (file(HALF), "alpha: has transparency"),
    "rgba.webp": (file(HALF, "WEBP", lossless=True), "alpha: has transparency"),
    "key.png": (key_png(bytes([1, 2, 3] * 4)), "alpha: has transparency"),
    "transparent palette.png": (file(RGB.quantize(16), transparency=0), "alpha: has transparency"),
    "animated.png": (animated("PNG"), "animation: has several frames or pages"),
    "animated.gif": (animated("GIF"), "animation: has several frames or pages"),
    "animated.webp": (animated("WEBP"), "animation: has several frames or pages"),
    "pages.tif": (animated("TIFF"), "animation: has several frames or pages"),
    "float.tif": (file(Image.fromarray(np.zeros((6, 4), np.float32)), "TIFF"), ": its pixels are F"),
    "truncated.png": (file(RGB)[:-20], ": is damaged"),
    "truncated.jpg": (file(RGB, "JPEG")[:-40], ": is damaged"),
    "empty.png": (b"", ": is not an image of"),
    "text.png": (b"no image", ": is not an image of"),
    "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ": is not an image of"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_a_file_of_the_field_is_read_without_loss_or_refused_at_every_door(name: str, tmp_path: Path) -> None:
    content, expected = INPUTS[name]
    path = write(tmp_path / "in", {name: content}) / name
    loss, refused, fault = expected.partition(": ")
    if not refused:
        picture = decode_picture(content, "x", None)
        assert picture.changes == (() if expected == "as it is" else (expected,))
        done: list[str] = []
        operand = image_files.read(path, 3, 256, note=done.append)  # of score, complete and compress
        assert done == [*picture.changes, *(["grey to RGB"] if picture.pixels.shape[2] == 1 else [])]
        assert operand.shape == (3, *picture.pixels.shape[:2])
        write(tmp_path / "in", {f"{n}.png": file(picture.pixels[:, :, 0] ^ n if n else picture.pixels[:, :, 0])
                                for n in range(12)})  # fmt: skip
        info, notes, _ = imported(tmp_path / "in", size=CROP)
        assert sum(split.num_images for split in info.splits.values()) == 13
        assert (f"1 {expected}" in "\n".join(notes)) == (expected != "as it is")
        assert info.shape[0] == picture.pixels.shape[2]
        return
    for channels in (1, 3):
        with pytest.raises(ValueError, match="^" + str(path.parent)) as error:
            image_files.read(path, channels, 256)
        assert fault in str(error.value)
    write(tmp_path / "in", {f"{n}.png": file(NOISE[n]) for n in range(40)})
    with pytest.raises(ValueError, match=fault) as error:
        imported(tmp_path / "in", size=CROP)
    option = loss or "unreadable"
    assert f"`accept: [{option}]`" in str(error.value)
    info, notes, _ = imported(tmp_path / "in", size=CROP, accept=[option])
    said = f"1 {loss} accepted" if loss else "left out: 1 that cannot be read"
    assert any(said in note for note in notes)
    assert sum(split.num_images for split in info.splits.values()) == 40 + bool(loss)


def test_a_turned_photograph_is_upright_and_a_grey_one_is_grey_in_rgb() -> None:
    turned = decode_picture(file(RGB, exif=TURNED), "a", 3).pixels
    np.testing.assert_array_equal(turned, np.rot90(NOISE[0], -1))
    grey = decode_picture(file(GREY), "a", 3)
    np.testing.assert_array_equal(grey.pixels, np.asarray(GREY)[:, :, None].repeat(3, axis=2))
    assert grey.changes == ("grey to RGB",)
    with pytest.raises(ValueError, match="a: is in colour, but grey is required; convert the file first"):
        decode_picture(file(RGB), "a", 1)
    np.testing.assert_array_equal(decode_picture(file(HALF), "a", 3, accept=("alpha",)).pixels[1:], NOISE[0][1:])
    sixteen = decode_picture(file(SIXTEEN), "a", 1, accept=("16-bit",)).pixels
    np.testing.assert_array_equal(sixteen, NOISE[0][:, :, :1])


def test_an_image_file_of_one_pixel_and_of_an_odd_shape_are_read() -> None:
    for shape in ((1, 1), (40, 33)):
        pixels = np.zeros((*shape, 3), np.uint8)
        np.testing.assert_array_equal(decode_picture(file(pixels), "a", 3).pixels, pixels)
