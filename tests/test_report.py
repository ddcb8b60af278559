"""The report: the files of each data set, and one self-contained page."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pixelcnn.reporting import figures
from pixelcnn.reporting.figures import PALETTE
from pixelcnn.reporting.page import write
from pixelcnn.reporting.reports import read_extremes
from tests import report_files
from tests.report_files import CIFAR, DIGITS, GATED, LABELLED, SAMPLE, SMALL


class Page(HTMLParser):
    """The elements and the text of an HTML page."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *keys: str) -> list[str]:
        """The values of these attributes on all elements but links."""
        return [a[key] for tag, a in self.elements if tag != "a" for key in keys if key in a]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    report_files.write_reports(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reports = tmp_path_factory.mktemp("written")
    report_files.write_reports(reports)
    write(reports, report_files.params(), reports / "report")
    return reports / "report"


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "index.html").read_text())


def test_each_data_set_has_tables_and_where_it_has_runs_curves(out: Path) -> None:
    tables = {f"nll-{name}.{ending}" for name in (CIFAR, SAMPLE, DIGITS) for ending in ("md", "csv")}
    curves = {f"curves-{CIFAR}.png", f"curves-{SAMPLE}.png"}
    assert {path.name for path in out.iterdir()} == tables | curves | {"curves.csv", "index.html"}


def test_one_table_has_the_validation_of_every_run_for_dvc_s_chart(out: Path) -> None:
    table = pd.read_csv(out / "curves.csv")
    assert table.groupby("run").images_seen.max().to_dict() == dict.fromkeys((GATED, LABELLED, SMALL), 6400)
    assert table.validation_bits_per_dim.notna().all()


def test_the_csv_holds_unrounded_numbers(out: Path) -> None:
    table = pd.read_csv(out / f"nll-{CIFAR}.csv").set_index("model")
    assert table.loc["Gated, plain", "test"] == 3.0349
    assert table.loc["Gated PixelCNN", "test"] == 3.03


def test_the_page_loads_no_external_resource(out: Path, page: Page) -> None:
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    sources = page.values("src", "srcset", "href", "data", "poster")
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"url\(|@import", (out / "index.html").read_text())


def test_every_picture_of_the_page_is_a_valid_image(page: Page) -> None:
    sources = page.values("src", "srcset")
    assert len(sources) == 3 * 2 + 2 * 2 * 2  # samples and extremes by run; curves and histograms in light and dark
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).verify()


def test_samples_are_scaled_without_smoothing(out: Path) -> None:
    assert re.search(r"\.samples img \{[^}]*image-rendering: pixelated", (out / "index.html").read_text())


def test_the_bits_of_an_image_are_shown_below_it_and_the_brightest_are_the_most(reports: Path) -> None:
    found = read_extremes(reports, GATED)
    png, brightest = figures.likeliest_and_least(found, levels=256)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    rows = [part.mean() for part in np.array_split(picture, 4)]  # black, its map, white, its map of more bits
    assert rows[0] < rows[1] < rows[3] < rows[2]
    assert 30 < brightest < 31
    _, nothing = figures.likeliest_and_least(replace(found, bits=None), levels=256)
    assert nothing == 0


def test_only_our_rows_are_highlighted(page: Page) -> None:
    rows = [attributes.get("class") for tag, attributes in page.elements if tag == "tr"]
    assert rows.count("ours") == 9  # three runs and two baselines on three data sets
    assert len(rows) > 9 + 3


def test_the_page_has_facts_commands_and_the_reason_for_missing_published_rows(page: Page) -> None:
    words = " ".join(page.text.split())
    for name in (GATED, LABELLED, SMALL):
        assert f"dvc repro evaluate@{name} sample@{name}" in words
    assert "15,312,000" in words
    assert "94 GFLOP per image, 602 TFLOP in all" in words
    assert "1,234 of 49,999 test images" in words
    assert "a row per class: cat, dog" in words
    assert "fingerprint 0123456789ab" in words
    assert "removed-long-ago" not in words
    assert "Trained 2026-11-27 to 2026-11-28; commit abc1234, def5678+; on 2 CPU cores." in words
    assert "The likeliest test images (from 2.03 bits/dim) and the least likely (up to 4.03)" in words
    assert "with any number on all of these test images" in words  # of digits, where nothing is published


def test_titles_are_escaped_on_the_page(page: Page) -> None:
    assert "ImageNet <64>" in page.text


def test_each_run_has_its_own_colour_in_the_curves(out: Path) -> None:
    pixels = np.asarray(Image.open(out / f"curves-{CIFAR}.png").convert("RGBA")).reshape(-1, 4)
    opaque = {tuple(pixel) for pixel in np.unique(pixels[pixels[:, 3] == 255][:, :3], axis=0)}
    wanted = [tuple(bytes.fromhex(colour[1:])) for colour in PALETTE]
    assert set(wanted[:2]) <= opaque
    assert not set(wanted[2:]) & opaque


def test_the_same_reports_give_the_same_bytes(reports: Path, out: Path) -> None:
    write(reports, report_files.params(), reports / "again")
    for path in out.iterdir():
        assert path.read_bytes() == (reports / "again" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("file", "stage"), [(f"sample/{GATED}.png", f"sample@{GATED}"), (f"train/{SMALL}.csv", f"train@{SMALL}")]
)
def test_a_missing_picture_or_curve_is_named_with_the_stage_that_makes_it(reports: Path, file: str, stage: str) -> None:
    (reports / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: no such file; run `dvc repro {stage}`"):
        write(reports, report_files.params(), reports / "report")


def test_page_and_tables_say_that_an_experiment_has_made_them(reports: Path) -> None:
    write(reports, report_files.params(), reports / "report", "flaky-bird")
    for file in ("index.html", f"nll-{CIFAR}.md"):
        text = (reports / "report" / file).read_text()
        assert text.count("Made by the DVC experiment flaky-bird. Experiments register no model") == 1
