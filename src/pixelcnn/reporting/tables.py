"""The NLL tables: what this project measured, beside what was published on the same images. No torch here.

Numbers share a column only where the images are the same: the two releases of small ImageNet (van den Oord et al. 2016,
Chrabaszcz et al. 2017) differ by about 0.25 bits/dim for one and the same model, more than most papers differ.
"""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from pixelcnn import config
from pixelcnn.reporting.published import PublishedRow, published
from pixelcnn.reporting.reports import cost, read, si

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("model", "test, bits/dim", "±", "train, bits/dim", "test images", "parameters", "training cost", "source")
TERMINAL_WIDTH = 100
GIVEN = "Given an embedding or a code of the image itself, so not comparable with the likelihoods above"
FOOTNOTE = (
    "Bits per dimension are nats / (D ln 2), the mean over the test images; ± is its standard error. "
    "Bold rows were measured here. ≤ marks an upper bound."
)


@dataclass(frozen=True)
class Row:
    """One line of a table. `source` is the paper of a published row, and the command that makes one of ours."""

    model: str
    ours: bool
    test: float  # bits/dim
    bound: bool  # the exact value is at most `test`
    standard_error: float | None  # of the mean over the test images
    train: float | None
    num_images: int | None
    parameters: int | None
    cost: str
    source: str
    note: str
    given: str = ""  # "embedding" or "code": bits/dim of p(x | that), where that may hold much of the image


@dataclass(frozen=True)
class Table:
    """One data set's rows, the best first, then those given more than a label; `remark` says why none is published."""

    name: str  # in params.yaml
    card: dict[str, Any]  # reports/preprocess/NAME.json
    rows: list[Row]
    remark: str


def tables(reports: Path, params: config.Params) -> list[Table]:
    """A table per data set of params.yaml, from the JSON files under `reports`.

    Raises ValueError where a file is missing or no JSON, with its name and the stage that makes it.
    """
    return [_table(reports, params, name) for name in params.datasets]


def _table(reports: Path, params: config.Params, name: str) -> Table:
    card = read(reports, "preprocess", name)
    rows = _baseline_rows(read(reports, "baseline", name), name)
    rows += [_run_row(reports, key, run, card) for key, run in runs_of(params, name).items()]
    others, remark = _others(card)
    return Table(name, card, sorted(rows + others, key=lambda row: (row.given != "", row.test)), remark)


def runs_of(params: config.Params, dataset: str) -> dict[str, config.Run]:
    """The runs on a data set's images, with embeddings or without."""
    return {key: run for key, run in params.runs.items() if params.images_of(run.dataset) == dataset}


def _others(card: dict[str, Any]) -> tuple[list[Row], str]:
    """The published rows that may stand beside ours, or none and why."""
    if not card["comparable"]:
        return [], f"Not comparable, so no published row stands here: {card['comparable_reason']}."
    rows = [_published_row(row) for row in published(card["source"])]
    return rows, "" if rows else "Nothing is published on these images: all rows were measured here."


def _published_row(row: PublishedRow) -> Row:
    return Row(
        model=row.model,
        ours=False,
        test=row.test,
        bound=row.bound,
        standard_error=None,
        train=row.train,
        num_images=None,
        parameters=row.parameters,
        cost=row.cost,
        source=row.reference,
        note=row.note,
    )


def _baseline_rows(report: dict[str, Any], name: str) -> list[Row]:
    command = f"dvc repro baseline@{name}"
    note = "full covariance, the expectation over the dequantisation noise"
    gaussian = report["gaussian"]
    rows = [
        _measured("Uniform, measured", report["uniform"], 0, "", command, ""),
        _measured("Multivariate Gaussian, measured", gaussian, gaussian["num_parameters"], "", command, note),
    ]
    if "truth" in report:
        rows.append(_measured("The distribution they are drawn from", report["truth"], 0, "", command, "the entropy"))
    return rows


def _run_row(reports: Path, name: str, run: config.Run, card: dict[str, Any]) -> Row:
    train, evaluate = read(reports, "train", name), read(reports, "evaluate", name)
    given = config.given(run.model.condition)
    return _measured(
        run.description,
        evaluate,
        train["num_parameters"],
        cost(train),
        f"dvc repro evaluate@{name}",
        _note(run, card),
        given if given in ("embedding", "code") else "",
    )


def _measured(
    model: str,
    report: dict[str, Any],
    parameters: int,
    training_cost: str,
    command: str,
    note: str,
    given: str = "",
) -> Row:
    test = report["test"]
    return Row(
        model=model,
        ours=True,
        test=test["bits_per_dim"],
        bound=False,
        standard_error=test["standard_error"],
        train=report["train"]["bits_per_dim"] if "train" in report else None,
        num_images=test["num_images"],
        parameters=parameters,
        cost=training_cost,
        source=command,
        note=note,
        given=given,
    )


def _note(run: config.Run, card: dict[str, Any]) -> str:
    """I(x; label) <= log2(number of labels): how far p(x | label) may lie below p(x) for that reason alone."""
    given = config.given(run.model.condition)
    if given in ("embedding", "code"):
        return f"of p(x | its {given}), so not to be compared with p(x)"
    if given != "label":
        return ""
    saving = math.log2(len(card["classes"])) / math.prod(card["shape"])
    return f"of p(x | label); a label can save at most {saving:.2g} bits/dim"


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of COLUMNS; published numbers keep the two digits they were published with."""
    digits = 3 if row.ours else 2
    return (
        row.model,
        f"{'≤ ' if row.bound else ''}{row.test:.{digits}f}",
        "" if row.standard_error is None else f"{row.standard_error:.3f}",
        "" if row.train is None else f"{row.train:.{digits}f}",
        "" if row.num_images is None else f"{row.num_images:,}",
        "" if row.parameters is None else si(row.parameters),
        row.cost,
        row.source,
    )


def frame(table: Table) -> "pd.DataFrame":
    """The table with its numbers as numbers: a line per row, the columns of Row."""
    import pandas as pd  # takes a second, which `summary` need not wait for

    return pd.DataFrame(table.rows).astype({"num_images": "Int64", "parameters": "Int64"})


def markdown(table: Table) -> str:
    """The table in Markdown, our rows in bold, notes beside the sources; rows given more than a label by themselves."""
    parts = [f"# {table.card['title']}", table.remark, _pipes([row for row in table.rows if not row.given])]
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
    align = ("left", *["right"] * 5, "left", "left")
    return tabulate(lines, headers=COLUMNS, tablefmt="pipe", colalign=align, disable_numparse=True)


def summary(reports: Path, params: config.Params) -> str:
    """The tables for a terminal of 100 columns, then where the sample grids and the page lie."""
    parts = [_terminal(table) for table in tables(reports, params)]
    grids = [_place(reports / "evaluate" / f"{name}.png", f"evaluate@{name}") for name in params.runs]
    page = _place(reports / "report" / "index.html", "report")
    return "\n\n".join([*parts, "\n".join(["Samples", *grids]), f"Page\n{page}"])


def _place(path: Path, stage: str) -> str:
    return f"  {path}" if path.is_file() else f"  {path} (missing; run `dvc repro {stage}`)"


def _terminal(table: Table) -> str:
    num_images = table.card["splits"]["test"]["num_images"]
    title = f"{table.card['title']}: bits/dim of {num_images:,} test images; lower is better, > is ours"
    lines = [["", "model", "test", "±", "train", "params", "run or paper"]]
    lines += [_terminal_line(row) for row in table.rows]
    aligned = _aligned(lines, "<<>>>><")
    if given := sum(row.given != "" for row in table.rows):
        aligned[-given:-given] = ["", f"   {GIVEN}:"]
    remark = textwrap.wrap(table.remark, TERMINAL_WIDTH)
    return "\n".join([title, "", *aligned, *([""] if remark else []), *remark])


def _aligned(lines: list[list[str]], align: str) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True))
    return [layout.format(*line).rstrip() for line in lines]


def _terminal_line(row: Row) -> list[str]:
    model, test, error, train, _, parameters, _, source = cells(row)
    pad = "" if row.ours else " "  # two digits stand under the first two of three
    source = source.removeprefix("dvc repro ").removeprefix("evaluate@").split(", ")[0]
    marker = ">" if row.ours else ""
    return [marker, _short(model, 34), test + pad, error, train + pad * bool(train), parameters, _short(source, 29)]


def _short(text: str, width: int) -> str:
    """Both ends of a text that is too long: names of runs often differ in their last letters."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"
