"""The NLL tables: the runs' results beside what was published on the same images. No torch here.

Results share a table only where the images are the same: on the two releases of small ImageNet (van den Oord et al.
2016, Chrabaszcz et al. 2017) the same model's bits/dim differ by about 0.25, more than the results of most papers do.
"""

import math
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tabulate import tabulate

from pixelcnn.config import Given
from pixelcnn.data.dataset import DatasetInfo
from pixelcnn.files import printable
from pixelcnn.params import Params, Run
from pixelcnn.reporting.published import PublishedRow, published
from pixelcnn.reporting.reports import (
    NotMade,
    cost,
    read_baseline,
    read_evaluate,
    read_preprocess,
    read_register,
    read_train,
    si,
)
from pixelcnn.schemas import BaselineReport, Measured

if TYPE_CHECKING:
    import pandas as pd

TERMINAL_WIDTH = 100
GIVEN = "Given an embedding or a code of the image itself, so not comparable with the likelihoods above"
FOOTNOTE = (
    "Bits per dimension are nats / (D ln 2), the mean over the test images; ± is its standard error. "
    "Bold rows were measured here. ≤ marks rows of upper bounds."
)


@dataclass(frozen=True)
class Row:
    """One line of a table. `source` is the paper of a published row, the `dvc repro` command of a row measured here."""

    model: str
    ours: bool
    test: float  # bits/dim
    bound: bool  # bits/dim are upper bounds on the exact values
    source: str
    note: str
    cost: str = ""
    nats: float | None = None  # per image, as papers report binary images
    standard_error: float | None = None  # of the mean over the test images
    train: float | None = None
    num_images: int | None = None
    parameters: int | None = None
    given: str = ""  # what p(x | given) is conditioned on, where it is not comparable with p(x)


@dataclass(frozen=True)
class Table:
    """One data set's rows, the best first, rows that are not comparable last; `remark` says why none is published."""

    name: str  # in params.yaml
    info: DatasetInfo
    rows: list[Row]
    remark: str


def tables(reports: Path, params: Params, missing: list[str] | None = None) -> list[Table]:
    """A table per data set of params.yaml, from the JSON files under `reports`.

    Raises ValueError naming a file that is missing or damaged and the stage that makes it. With a list `missing`, rows
    and tables without their files are left out, and the stages that make those are added to it.
    """
    found = (_table(reports, params, name, missing) for name in params.prepared)
    return [table for table in found if table is not None]


def _table(reports: Path, params: Params, name: str, missing: list[str] | None) -> Table | None:
    prepare, baseline = ("import", "baseline-images") if name in params.images else ("preprocess", "baseline")
    with _left_out(missing, f"{prepare}@{name}"):
        info = read_preprocess(reports, name, prepare)
        rows: list[Row] = []
        with _left_out(missing, f"{baseline}@{name}"):
            rows += _baseline_rows(read_baseline(reports, name, baseline), f"dvc repro {baseline}@{name}")
        for key, run in runs_of(params, name).items():
            with _left_out(missing, f"evaluate@{key}"):
                rows.append(_run_row(reports, key, run, info))
        return _sorted_table(name, info, rows)
    assert missing is not None
    with _left_out(missing, f"{baseline}@{name}"):
        read_baseline(reports, name, baseline)
    for key in runs_of(params, name):
        with _left_out(missing, f"evaluate@{key}"):
            read_evaluate(reports, key)
    return None


@contextmanager
def _left_out(missing: list[str] | None, stage: str) -> Iterator[None]:
    """Add the stage to `missing`, if there is such a list, in place of what needs a report that is not there."""
    try:
        yield
    except NotMade:
        if missing is None:
            raise
        missing.append(stage)


def _sorted_table(name: str, info: DatasetInfo, rows: list[Row]) -> Table:
    others, remark = _others(info)
    rows += others
    if info.levels == 2:
        rows = [replace(row, nats=row.test * math.prod(info.shape) * math.log(2)) for row in rows]
    return Table(name, info, sorted(rows, key=lambda row: (row.given != "", row.test)), remark)


def runs_of(params: Params, dataset: str) -> dict[str, Run]:
    """The runs on a data set's images, with or without embeddings."""
    return {key: run for key, run in params.runs.items() if params.images_of(run.dataset) == dataset}


def _others(info: DatasetInfo) -> tuple[list[Row], str]:
    """The published rows on the same images; where there are none, the remark that says why."""
    if not info.comparable:
        return [], f"Not comparable with published results: {info.comparable_reason}."
    rows = [_published_row(row) for row in published(info.source)]
    return rows, "" if rows else "Nothing is published on these images: all rows were measured here."


def _published_row(row: PublishedRow) -> Row:
    return Row(
        model=row.model,
        ours=False,
        test=row.test,
        bound=row.bound,
        train=row.train,
        parameters=row.parameters,
        cost=row.cost,
        source=row.reference,
        note=row.note,
    )


def _baseline_rows(report: BaselineReport, command: str) -> list[Row]:
    note = "full covariance, the expectation over the dequantisation noise"
    rows = [
        _measured_row("Uniform, measured", report.uniform, command, ""),
        _measured_row("Multivariate Gaussian, measured", report.gaussian, command, note),
    ]
    if report.truth is not None:
        rows.append(_measured_row("The distribution they are drawn from", report.truth, command, "the entropy"))
    return rows


def _run_row(reports: Path, name: str, run: Run, info: DatasetInfo) -> Row:
    train, scores, given = read_train(reports, name), read_evaluate(reports, name), run.model.given
    measured = Measured(test=scores.test, train=scores.train, num_parameters=train.num_parameters)
    row = _measured_row(run.description, measured, f"dvc repro evaluate@{name}", _note(given, info))
    return replace(row, cost=cost(train), bound=not train.exact, given="" if given.comparable else str(given))


def _measured_row(model: str, measured: Measured, command: str, note: str) -> Row:
    return Row(
        model=model,
        ours=True,
        test=measured.test.bits_per_dim,
        bound=False,
        standard_error=measured.test.standard_error,
        train=None if measured.train is None else measured.train.bits_per_dim,
        num_images=measured.test.num_images,
        parameters=measured.num_parameters,
        source=command,
        note=note,
    )


def _note(given: Given, info: DatasetInfo) -> str:
    """What p(x | given) means for comparisons. A label can save at most I(x; label) <= log2(number of labels) bits.

    That holds for the data's distribution. Two networks may differ by more, since either may be far from it.
    """
    if not given.comparable:
        return f"p(x | {given} of x), so not comparable with p(x)"
    if given is not Given.LABEL:
        return ""
    saving = math.log2(len(info.classes)) / math.prod(info.shape)
    return f"p(x | label): labels save at most {saving:.2g} bits/dim of the data's entropy; networks may differ by more"


@dataclass(frozen=True)
class Column:
    """A column of the printed tables: its heading, a shorter one for narrow pages, and a row's cell as text.

    kind: "bits" are bits/dim, of which published ones have two decimals and ours three.
    """

    heading: str
    label: str
    text: Callable[[Row], str]
    kind: Literal["text", "number", "bits"] = "text"


def _bits(row: Row, value: float | None) -> str:
    return "" if value is None else f"{value:.{3 if row.ours or row.nats is not None else 2}f}"


def _test(row: Row) -> str:
    bound, nats = "≤ " if row.bound else "", "" if row.nats is None else f" ({row.nats:.2f} nats)"
    return f"{bound}{_bits(row, row.test)}{nats}"


COLUMNS = (
    Column("model", "model", lambda row: row.model),
    Column("test, bits/dim", "test", _test, "bits"),
    Column("±", "±", lambda row: _bits(row, row.standard_error), "number"),
    Column("train, bits/dim", "train", lambda row: _bits(row, row.train), "bits"),
    Column("test images", "test images", lambda r: "" if r.num_images is None else f"{r.num_images:,}", "number"),
    Column("parameters", "params", lambda row: "" if row.parameters is None else si(row.parameters), "number"),
    Column("training cost", "cost", lambda row: row.cost),
    Column("source", "source", lambda row: row.source),
)
IN_TERMINAL = ("test", "±", "train", "params")  # the labels of the columns between model and source there


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row in the order of COLUMNS."""
    return tuple(column.text(row) for column in COLUMNS)


def frame(table: Table) -> "pd.DataFrame":
    """The table as a DataFrame with numeric columns: the fields of Row."""
    import pandas as pd  # a second to import, which `summary` does not need

    return pd.DataFrame(table.rows).astype({"num_images": "Int64", "parameters": "Int64"})


def markdown(table: Table, note: str = "") -> str:
    """The table in Markdown, our rows in bold, their notes after the sources; what is not comparable in a second table.

    note: on all results, below the title.
    """
    parts = [f"# {table.info.title}", note, table.remark, _pipes([row for row in table.rows if not row.given])]
    if given := [row for row in table.rows if row.given]:
        parts += [f"{GIVEN}:", _pipes(given)]
    return "\n\n".join(filter(None, [*parts, FOOTNOTE])) + "\n"


def _pipes(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        model, *numbers, source = (cell.replace("|", r"\|") for cell in cells(row))
        source = f"`{source}`" if row.ours else source
        note = f"; {row.note}" if row.note else ""
        lines.append([f"**{model}**" if row.ours else model, *numbers, source + note.replace("|", r"\|")])
    align = ["left" if column.kind == "text" else "right" for column in COLUMNS]
    headings = [column.heading for column in COLUMNS]
    return tabulate(lines, headers=headings, tablefmt="pipe", colalign=align, disable_numparse=True)


def summary(reports: Path, params: Params) -> str:
    """What is there, for a terminal of 100 columns: the tables, runs that are not registered, where grids and the page
    lie; and at the end what is missing yet, by stage.
    """
    missing: list[str] = []
    parts = [_terminal(table) for table in tables(reports, params, missing)]
    if unregistered := _unregistered(reports, params):
        reasons = [_wrapped(f"  {run}: {why}", 4) for run, why in unregistered.items()]
        parts.append("\n".join(["Not registered", *reasons]))
    grids = {f"sample@{name}": reports / "sample" / f"{name}.png" for name in params.runs}
    pages = {"report": reports / "report" / "index.html"}
    for title, places in (("Samples", grids), ("Page", pages)):
        missing += [stage for stage, path in places.items() if not path.is_file()]
        if there := [f"  {path}" for path in places.values() if path.is_file()]:
            parts.append("\n".join([title, *there]))
    if missing:
        parts.append(
            "\n".join(["Missing; `dvc repro` makes all of it, `dvc repro STAGE@NAME` one", *_by_stage(missing)])
        )
    return printable("\n\n".join(parts))


def _by_stage(stages: list[str]) -> list[str]:
    """Lines of a terminal: each stage once, with the names of its entries."""
    names: dict[str, list[str]] = {}
    for stage, _, name in (each.partition("@") for each in stages):
        names.setdefault(stage, []).append(name)
    indent = max(map(len, names)) + 4
    return [_wrapped(f"  {stage}".ljust(indent) + ", ".join(each), indent) for stage, each in names.items()]


def _wrapped(text: str, indent: int) -> str:
    """Lines of a terminal, those after the first indented."""
    return textwrap.fill(text, TERMINAL_WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _unregistered(reports: Path, params: Params) -> dict[str, str]:
    """Why the stage register has registered no model of a run, by run; without the runs that it has not come to."""
    found = {name: read_register(reports, name) for name in params.runs}
    return {name: report.reason for name, report in found.items() if report is not None and not report.registered}


def _terminal(table: Table) -> str:
    num_images = table.info.splits["test"].num_images
    title = f"{table.info.title}: bits/dim of {num_images:,} test images; lower is better, > is ours"
    lines = [["", "model", *IN_TERMINAL, "run or paper"]]
    lines += [_terminal_line(row) for row in table.rows]
    aligned = _aligned(lines, f"<<{'>' * len(IN_TERMINAL)}<")
    if given := sum(row.given != "" for row in table.rows):
        aligned[-given:-given] = ["", f"   {GIVEN}:"]
    remark = textwrap.wrap(table.remark, TERMINAL_WIDTH)
    return "\n".join([title, "", *aligned, *([""] if remark else []), *remark])


def _aligned(lines: list[list[str]], align: str) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True))
    return [layout.format(*line).rstrip() for line in lines]


def _terminal_line(row: Row) -> list[str]:
    numbers = [_padded(column, row) for column in COLUMNS if column.label in IN_TERMINAL]
    source = row.source.removeprefix("dvc repro ").removeprefix("evaluate@").split(", ")[0]
    return [">" if row.ours else "", _short(row.model, 34), *numbers, _short(source, 29)]


def _padded(column: Column, row: Row) -> str:
    """A cell, in which two decimals are aligned with the first two of three."""
    text = column.text(row)
    return text if row.ours or row.nats is not None or not text or column.kind != "bits" else f"{text} "


def _short(text: str, width: int) -> str:
    """A text of at most `width` characters, cut in the middle: names of runs often differ in their last letters."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"
