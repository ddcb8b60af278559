"""The NLL tables and the model card: which rows share a table, in which order, and how results are printed."""

import subprocess
import sys
from pathlib import Path

import pytest

from pixelcnn.checkpoint import ModelConfig
from pixelcnn.config import check
from pixelcnn.data.config import EmbeddingsFile
from pixelcnn.reporting import reports as reported
from pixelcnn.reporting import tables as results
from pixelcnn.reporting.model_card import model_card
from pixelcnn.reporting.page import write
from pixelcnn.reporting.published import ROWS, published
from tests import report_files
from tests.report_files import CIFAR, DIGITS, GATED, LABELLED, SAMPLE, SMALL


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    report_files.write_reports(tmp_path)
    return tmp_path


@pytest.fixture
def tables(reports: Path) -> dict[str, results.Table]:
    return {table.name: table for table in results.tables(reports, report_files.params())}


def test_every_published_row_has_a_reference_and_a_possible_value() -> None:
    for row in ROWS:
        assert " 20" in row.reference, row
        lowest, highest = (0.14, 1) if row.source == "binarized_mnist" else (2, 8)  # bits/dim of one bit, of eight
        assert lowest < row.test <= highest, row
        assert row.train is None or row.train <= row.test, row


def test_no_published_row_is_listed_twice() -> None:
    keys = [(row.source, row.model) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_reference_results_are_those_of_the_papers() -> None:
    anchors = {(row.source, row.model): (row.test, row.train) for row in ROWS}
    assert anchors["cifar10", "Gated PixelCNN"] == (3.03, 2.90)
    assert anchors["cifar10", "Uniform"] == (8.00, None)
    assert anchors["cifar10", "Multivariate Gaussian"] == (4.70, None)
    assert anchors["imagenet32_vdo2016", "Gated PixelCNN"] == (3.83, 3.77)
    assert anchors["imagenet64_vdo2016", "Gated PixelCNN"] == (3.57, 3.48)


def test_the_two_releases_of_small_imagenet_share_no_table() -> None:
    for size in ("32", "64"):
        old, box = (published(f"imagenet{size}_{release}") for release in ("vdo2016", "box2017"))
        assert old
        assert box
        assert not {row.model for row in old} & {"Flow Matching", "Efficient-VDVAE", "DenseFlow"}
        assert not {row.model for row in box} & {"Gated PixelCNN", "PixelSNAIL", "VDM"}


def test_our_rows_and_published_rows_are_sorted_together_by_bits_per_dim(tables: dict[str, results.Table]) -> None:
    rows = tables[CIFAR].rows
    assert [row.test for row in rows] == sorted(row.test for row in rows)
    models = [row.model for row in rows]
    assert models.index("Diagonal BiLSTM (PixelRNN)") < models.index("Gated | label") < models.index("Gated PixelCNN")
    assert models.index("Gated PixelCNN") < models.index("Gated, plain") < models.index("Row LSTM (PixelRNN)")
    assert models.index("Multivariate Gaussian, measured") + 1 == models.index("Multivariate Gaussian")
    assert tables[CIFAR].remark == ""


def test_a_data_set_that_is_not_comparable_has_no_published_rows(
    tables: dict[str, results.Table],
) -> None:
    table = tables[SAMPLE]
    assert published("imagenet64_vdo2016")
    assert all(row.ours for row in table.rows)
    assert "1,234 of 49,999 test images" in table.remark
    assert "1,234 of 49,999 test images" in results.markdown(table)
    assert "van den Oord" not in results.markdown(table)


def test_a_data_set_without_published_rows_says_so(tables: dict[str, results.Table]) -> None:
    assert [row.model for row in tables[DIGITS].rows] == ["Multivariate Gaussian, measured", "Uniform, measured"]
    assert "Nothing is published" in tables[DIGITS].remark


def test_reports_of_removed_runs_are_ignored(tables: dict[str, results.Table]) -> None:
    assert not any("removed" in row.source for table in tables.values() for row in table.rows)


def test_our_rows_show_command_cost_and_standard_error(tables: dict[str, results.Table]) -> None:
    row = next(row for row in tables[CIFAR].rows if row.model == "Gated, plain")
    assert results.cells(row) == (
        "Gated, plain",
        "3.035",
        "0.009",
        "3.035",
        "1,234",
        "15.3 M",
        "78.0 min, 2 CPU cores; 6.4 k images; 602 TFLOP",
        f"dvc repro evaluate@{GATED}",
    )


def test_a_class_conditional_row_notes_how_much_the_label_can_save(tables: dict[str, results.Table]) -> None:
    notes = {row.model: row.note for row in tables[CIFAR].rows}
    assert "0.00033 bits/dim" in notes["Gated | label"]  # log2(2) / 3072
    assert notes["Gated, plain"] == ""


@pytest.mark.parametrize(("condition", "what"), [("embedding", "embedding"), ("code-map", "code")])
def test_rows_given_an_embedding_or_a_code_are_listed_apart_however_low_they_are(
    reports: Path, condition: str, what: str
) -> None:
    params = report_files.params()
    model = params.runs[SMALL].model.model_copy(update={"condition": condition})
    params.runs["given"] = params.runs[SMALL].model_copy(
        update={"dataset": CIFAR, "description": "Given all", "model": model}
    )
    report_files.write_run(reports, "given", 0.001)
    table = results.tables(reports, params)[0]
    assert [row.model for row in table.rows if row.given] == ["Given all"] == [table.rows[-1].model]
    assert table.rows[-1].note == f"p(x | {what} of x), so not comparable with p(x)"
    text = results.markdown(table)
    assert text.index(results.GIVEN) < text.index("Given all")
    assert text.index("Uniform") < text.index(results.GIVEN)
    lines = results.summary(reports, params).splitlines()
    (at,) = [n for n, line in enumerate(lines) if "Given all" in line]
    assert results.GIVEN in lines[at - 1]


def test_runs_with_embeddings_are_in_the_table_of_the_images() -> None:
    params = report_files.params()
    entry = EmbeddingsFile(source="file", dataset=CIFAR, path="mine.parquet", sha256="0" * 64)
    params.embeddings["cifar-faces"] = entry
    params.runs["given"] = params.runs[SMALL].model_copy(update={"dataset": "cifar-faces"})
    assert list(results.runs_of(params, CIFAR)) == [GATED, LABELLED, "given"]


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        (f"preprocess/{CIFAR}.json", f"preprocess@{CIFAR}"),
        (f"baseline/{SAMPLE}.json", f"baseline@{SAMPLE}"),
        (f"train/{GATED}.json", f"train@{GATED}"),
        (f"evaluate/{SMALL}.scores.json", f"evaluate@{SMALL}"),
    ],
)
def test_a_missing_report_is_named_with_the_stage_that_makes_it(reports: Path, file: str, stage: str) -> None:
    (reports / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: no such file; run `dvc repro {stage}`"):
        results.tables(reports, report_files.params())


@pytest.mark.parametrize("content", ["<<<<<<< HEAD", "[]"], ids=["conflict", "list"])
def test_a_damaged_report_is_named(reports: Path, content: str) -> None:
    (reports / "train" / f"{GATED}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"train/{GATED}.json: not .*dvc repro --force train@{GATED}"):
        results.tables(reports, report_files.params())


@pytest.mark.parametrize(
    ("stage", "name", "key"),
    [("preprocess", CIFAR, "dataset"), ("baseline", CIFAR, "uniform"), ("evaluate", GATED, "test")],
)
def test_a_key_that_a_report_lacks_is_named(reports: Path, stage: str, name: str, key: str) -> None:
    (path,) = (reports / stage).glob(f"{name}.*json")
    path.write_text("{}")
    with pytest.raises(ValueError, match=rf"(?s){stage}/{name}.*json.*dvc repro --force {stage}@{name}") as error:
        results.tables(reports, report_files.params())
    assert f"{key}: " in str(error.value)


def test_results_of_a_model_without_an_exact_nll_are_printed_as_bounds(reports: Path) -> None:
    report_files.write_run(reports, GATED, 3.0349, exact=False)
    params = report_files.params()
    (row,) = [row for row in results.tables(reports, params)[0].rows if row.model == "Gated, plain"]
    assert row.bound
    assert results.cells(row)[1] == "≤ 3.035"
    assert "| **Gated, plain** | ≤ 3.035" in " ".join(results.markdown(results.tables(reports, params)[0]).split())
    assert "Gated, plain ≤ 3.035" in " ".join(results.summary(reports, params).split())
    write(reports, params, reports / "report")
    page = (reports / "report/index.html").read_text()
    assert page.count('<p class="figure-number">≤ 3.035') == 1
    assert page.count('<p class="figure-number">') == 3
    for split in ("test", "validation", "train"):
        assert f"<dt>{split} bits/dim</dt><dd>≤ 3.035" in page


def test_a_table_with_a_bound_explains_the_sign(reports: Path) -> None:
    params, out = report_files.params(), reports / "report"
    write(reports, params, out)
    assert (out / "index.html").read_text().count("≤ marks") == 1  # the published bounds on CIFAR-10
    report_files.write_run(reports, SMALL, 3.5, exact=False)
    write(reports, params, out)
    assert (out / "index.html").read_text().count("≤ marks") == 2


@pytest.mark.parametrize("exact", [True, False])
def test_the_model_card_shows_scores_cost_and_origin(reports: Path, exact: bool) -> None:
    report_files.write_run(reports, GATED, 3.0349, exact=exact)
    run, info = report_files.params().runs[GATED], reported.read_preprocess(reports, CIFAR)
    data = {"dataset": CIFAR, "shape": info.shape, "levels": 256, "classes": [], "fingerprints": {}}
    sections = run.model_dump(include={"model", "likelihood"}) | {
        "format": 1,
        "data": data,
        "weights_sha256": "ab12" * 16,
    }
    described = check(ModelConfig, sections, "config.json")
    train, scores = reported.read_train(reports, GATED), reported.read_evaluate(reports, GATED)
    card = model_card("Gated, plain", described, info, scores, train)
    assert card.startswith("Gated, plain (gated_pixelcnn), trained on CIFAR-10.\n")
    assert f"| validation | {'' if exact else '≤ '}3.0349 | 0.0087 | 1234 |" in card
    assert ("upper bound" in card) is not exact
    assert "15.3 M parameters. Training: 78.0 min, 2 CPU cores; 6.4 k images; 602 TFLOP." in card
    assert f'pixelcnn.load("models:/{CIFAR}@champion")' in card
    assert "uint8 (N, 3, 32, 32)" in card
    assert "Data: free. Cite: Somebody 1999" in card
    assert f"sha256 {'ab12' * 16}" in card


def test_the_frame_has_numeric_columns(tables: dict[str, results.Table]) -> None:
    frame = results.frame(tables[CIFAR]).set_index("model")
    assert frame.loc["Gated, plain", "test"] == 3.0349
    assert frame.loc["Gated, plain", "parameters"] == 15_312_000
    assert frame.num_images.isna().sum() == len(published("cifar10"))


def test_markdown_has_a_row_per_model_and_a_cell_per_column(tables: dict[str, results.Table]) -> None:
    lines = [line for line in results.markdown(tables[CIFAR]).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(tables[CIFAR].rows)
    assert {line.replace(r"\|", "").count("|") for line in lines} == {len(results.COLUMNS) + 1}
    assert sum("**" in line for line in lines) == 4  # two baselines, two runs


def test_the_summary_fits_a_terminal_and_names_samples_and_page(reports: Path) -> None:
    params = report_files.params()
    long = params.runs[GATED].model_copy(update={"description": "A description that goes on and on " * 3})
    params = params.model_copy(update={"runs": params.runs | {GATED: long}})
    text = results.summary(reports, params)
    table = text.split("Samples")[0].splitlines()
    assert max(len(line) for line in table) <= results.TERMINAL_WIDTH
    assert sum(line.startswith(">") for line in table) == 9  # three runs and two baselines on three data sets
    assert str(reports / "sample" / f"{LABELLED}.png") in text
    assert "Missing" in text.splitlines()[-2]
    assert text.splitlines()[-1] == "  report"


def test_a_description_cannot_act_on_the_terminal(reports: Path) -> None:
    params = report_files.params()
    acting = params.runs[GATED].model_copy(update={"description": "\x1b[2JGated\u202e"})
    text = results.summary(reports, params.model_copy(update={"runs": params.runs | {GATED: acting}}))
    assert "[2JGated" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_the_summary_shows_what_is_there_and_names_what_is_missing(reports: Path) -> None:
    for file in (
        f"train/{GATED}.json",
        f"evaluate/{SMALL}.scores.json",
        f"baseline/{SAMPLE}.json",
        f"preprocess/{DIGITS}.json",
    ):
        (reports / file).unlink()
    text = results.summary(reports, report_files.params())
    table, _, missing = text.partition("Missing")
    assert "Gated | label" in table
    assert "Gated, plain" not in table
    named = {"preprocess": [DIGITS], "baseline": [SAMPLE], "evaluate": [GATED, SMALL], "report": []}
    lines = {line.split()[0]: line.replace(",", "").split()[1:] for line in missing.splitlines()[1:]}
    assert lines == named
    assert max(map(len, text.replace(str(reports), "reports").splitlines())) <= results.TERMINAL_WIDTH


def test_the_summary_names_runs_whose_models_are_not_registered(reports: Path) -> None:
    assert "Not registered" not in results.summary(reports, report_files.params())
    entry = {"name": CIFAR, "weights_sha256": "cafe", "reason": "because " + "words " * 20 + "end"}
    report_files.write_json(reports / f"register/{GATED}.json", entry | {"registered": False})
    report_files.write_json(
        reports / f"register/{SMALL}.json", entry | {"version": 1, "aliases": [], "uri": "models:/x/1"}
    )
    text = results.summary(reports, report_files.params())
    assert f"\n\nNot registered\n  {GATED}: because words" in text
    assert "\n    words" in text
    assert " words end\n\n" in text


def test_decimals_of_published_and_measured_numbers_are_aligned(reports: Path) -> None:
    lines = results.summary(reports, report_files.params()).splitlines()
    published_line = next(line for line in lines if "Row LSTM" in line)
    measured_line = next(line for line in lines if line.endswith(f"  {GATED}"))
    assert published_line.index("3.07") == measured_line.index("3.035")


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (172800, "2.0 d")]
)
def test_durations_are_printed_in_a_suitable_unit(seconds: float, text: str) -> None:
    assert reported.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (999_960, "1 M"), (15_312_000, "15.3 M"), (4.1e17, "410 P")]
)
def test_large_numbers_have_three_digits_and_an_si_prefix(value: float, text: str) -> None:
    assert reported.si(value) == text
    assert reported.si(value, "FLOP") == text + ("FLOP" if text[-1].isalpha() else " FLOP")


def test_the_tables_need_neither_torch_nor_pandas() -> None:
    program = "import sys, pixelcnn.cli.results; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
