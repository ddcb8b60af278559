"""The report: NLL tables as Markdown and CSV, learning curves, and one HTML page with all results."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelcnn import files
from pixelcnn.params import Params, Run, Sample
from pixelcnn.reporting.reports import duration, made, read_evaluate, read_train, si
from pixelcnn.reporting.tables import COLUMNS, GIVEN, Table, cells, frame, markdown, runs_of, tables
from pixelcnn.schemas import EvaluateReport, Score, TrainReport

PALETTE = ("#c2572b", "#2f7fb8", "#5a9a3c", "#9a62b5", "#c79a1b", "#3aa394")  # legible on paper and on black
EXPERIMENT = "Made by the DVC experiment {}. Experiments register no model; `pixelcnn models register models/RUN` does."
INKS = {"light": "#3a3833", "dark": "#c9c5bb"}


def write(reports: Path, params: Params, out: Path, experiment: str = "") -> None:
    """Write nll-DATASET.md, nll-DATASET.csv and curves-DATASET.png of each data set, and index.html, into `out`.

    experiment: the name of the DVC experiment that has made these results, if one has; page and tables say so.
    Raises ValueError naming a file that is missing or damaged under `reports` and the stage that makes it.
    """
    sections, note = [], EXPERIMENT.format(experiment) if experiment else ""
    for table in tables(reports, params):
        files.write_text(out / f"nll-{table.name}.md", markdown(table, note))
        files.write_text(out / f"nll-{table.name}.csv", frame(table).to_csv(index=False))
        curves = _curves(reports, params, table.name)
        if curves:
            files.write_bytes(out / f"curves-{table.name}.png", curves["light"])
        sections.append(_section(reports, params, table, curves))
    files.write_text(out / "index.html", page(sections, note))


def page(sections: list[dict[str, Any]], note: str) -> str:
    """The HTML page with these data sets' sections, under a note: no scripts, no external resources."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelcnn.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(sections=sections, columns=COLUMNS, given=GIVEN, note=note)


def _section(reports: Path, params: Params, table: Table, curves: dict[str, bytes]) -> dict[str, Any]:
    """What the template shows of a data set."""
    return {
        "name": table.name,
        "info": table.info,
        "remark": table.remark,
        "rows": [(row, list(zip(COLUMNS, cells(row), strict=True))) for row in table.rows],
        "curves": {scheme: _data_uri(png) for scheme, png in curves.items()},
        "runs": [_run(reports, params.sample, name, run) for name, run in runs_of(params, table.name).items()],
    }


def _run(reports: Path, sample: Sample, name: str, run: Run) -> dict[str, Any]:
    """What the template shows of a run."""
    train, scores = read_train(reports, name), read_evaluate(reports, name)
    return {
        "name": name,
        "run": run,
        "given": run.model.given,
        "bound": _bound(train),
        "test": scores.test,
        "facts": _facts(train, scores),
        "samples": _data_uri(made(reports, "sample", f"{name}.png").read_bytes()),
        "temperature": sample.temperature,
        "seed": sample.seed,
        "settings": run.model_dump(include={"model", "likelihood", "train"}),
    }


def _bound(train: TrainReport) -> str:
    return "" if train.exact else "≤ "


def _error(score: Score) -> str:
    return "" if score.standard_error is None else f" ± {score.standard_error:.3f}"


def _facts(train: TrainReport, scores: EvaluateReport) -> dict[str, str]:
    splits = {
        f"{split} bits/dim": f"{_bound(train)}{score.bits_per_dim:.3f}{_error(score)} ({score.num_images:,} images)"
        for split, score in scores.scores.items()
    }
    return splits | {
        "parameters": f"{train.num_parameters:,}",
        "best step": f"{train.step:,} of {train.steps:,}, by validation",
        "images seen": f"{train.images_seen:,}",
        "training": f"{duration(train.seconds)} on {train.hardware}{_speed(train)}",
        "arithmetic": f"{si(train.flops_per_image, 'FLOP')} per image, {si(train.total_flops, 'FLOP')} in all",
    }


def _speed(train: TrainReport) -> str:
    """Images and floating-point operations per second; empty for reports of earlier releases, which lack them."""
    if train.images_per_second is None or train.flops_per_second is None:
        return ""
    share = f", {train.share_of_peak:.0%} of its peak" if train.share_of_peak else ""
    return f": {si(train.images_per_second)} images/s, {si(train.flops_per_second, 'FLOP/s')}{share}"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _curves(reports: Path, params: Params, dataset: str) -> dict[str, bytes]:
    """Learning curves of a data set's runs as transparent PNGs, by colour scheme: light, dark; {} without runs."""
    logs = {name: pd.read_csv(made(reports, "train", f"{name}.csv")) for name in runs_of(params, dataset)}
    return {scheme: _figure(logs, ink) for scheme, ink in INKS.items()} if logs else {}


def _figure(logs: dict[str, pd.DataFrame], ink: str) -> bytes:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, log) in enumerate(logs.items()):
        _draw(axes, name, log, PALETTE[number % len(PALETTE)])
    _frame(axes, pd.concat(logs.values()))
    _ink(axes, ink)
    png = io.BytesIO()
    figure.savefig(png, dpi=200, transparent=True, metadata={"Software": None})
    return png.getvalue()


def _draw(axes: Axes, name: str, log: pd.DataFrame, colour: str) -> None:
    axes.plot(log.images_seen, log.train_bits_per_dim, color=colour, linewidth=0.8, alpha=0.5, label=f"{name}, train")
    validated = log.dropna(subset=["validation_bits_per_dim"])
    axes.plot(
        validated.images_seen,
        validated.validation_bits_per_dim,
        color=colour,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
        label=f"{name}, validation",
    )


def _frame(axes: Axes, log: pd.DataFrame) -> None:
    """Limits and labels. y leaves out the first 5% of the training, whose steep fall would flatten all that follows."""
    late = log[log.images_seen >= log.images_seen.max() / 20][["train_bits_per_dim", "validation_bits_per_dim"]]
    low, high = float(late.min().min()), float(late.max().max())
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen")
    axes.set_ylabel("bits/dim")
    axes.xaxis.set_major_formatter(lambda value, _: si(value))


def _ink(axes: Axes, ink: str) -> None:
    """Draw axes, labels and legend in the colour `ink`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.grid(axis="y", color=ink, linewidth=0.4, alpha=0.3)
    axes.legend(frameon=False, loc="upper right", labelcolor=ink)
