"""The report: NLL tables as Markdown and CSV, learning curves, and one HTML page with all results."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from pixelcnn import files
from pixelcnn.params import Params, Run, Sample
from pixelcnn.reporting import figures
from pixelcnn.reporting.reports import (
    duration,
    made,
    read_curve,
    read_evaluate,
    read_extremes,
    read_test_bits,
    read_train,
    si,
)
from pixelcnn.reporting.tables import COLUMNS, GIVEN, Table, cells, frame, markdown, runs_of, tables
from pixelcnn.schemas import EvaluateReport, Score, TrainReport

EXPERIMENT = "Made by the DVC experiment {}. Experiments register no model; `pixelcnn models register models/RUN` does."


def write(reports: Path, params: Params, out: Path, experiment: str = "") -> None:
    """Write nll-DATASET.md, nll-DATASET.csv and curves-DATASET.png of each data set, and index.html, into `out`; and
    curves.csv, the validation of all runs, which `dvc plots show` draws.

    experiment: the name of the DVC experiment that has made these results, if one has; page and tables say so.
    Raises ValueError naming a file that is missing or damaged under `reports` and the stage that makes it.
    """
    sections, note = [], EXPERIMENT.format(experiment) if experiment else ""
    for table in tables(reports, params):
        files.write_text(out / f"nll-{table.name}.md", markdown(table, note))
        files.write_text(out / f"nll-{table.name}.csv", frame(table).to_csv(index=False))
        logs = {name: read_curve(reports, name) for name in runs_of(params, table.name)}
        curves = figures.curves(logs) if logs else {}
        if curves:
            files.write_bytes(out / f"curves-{table.name}.png", curves["light"])
        sections.append(_section(reports, params, table, curves))
    files.write_text(out / "curves.csv", _all_curves({name: read_curve(reports, name) for name in params.runs}))
    made_by = _provenance(read_train(reports, name) for name in params.runs)
    files.write_text(out / "index.html", page(sections, note, made_by))


def _all_curves(logs: dict[str, pd.DataFrame]) -> str:
    """The validation of every run as CSV: run, images_seen, validation_bits_per_dim."""
    columns = ["images_seen", "validation_bits_per_dim"]
    validated = [log[columns].dropna().assign(run=name) for name, log in logs.items()]
    return pd.concat([pd.DataFrame(columns=["run", *columns]), *validated])[["run", *columns]].to_csv(index=False)


def _provenance(trainings: Iterable[TrainReport]) -> str:
    """When, from which code and on what the runs were trained: by their reports, so the same give the same page."""
    trainings = list(trainings)
    days = sorted({each.finished[:10] for each in trainings if each.finished})
    commits = sorted({each.commit for each in trainings if each.commit})
    parts = [f"trained {' to '.join(dict.fromkeys([days[0], days[-1]]))}"] if days else []
    parts += [f"commit {', '.join(commits)}"] if commits else []
    parts += [f"on {', '.join(sorted({each.hardware for each in trainings}))}"] if trainings else []
    return "; ".join(parts)


def page(sections: list[dict[str, Any]], note: str, made_by: str) -> str:
    """The HTML page with these data sets' sections, under a note, and what made the results: no scripts, no external
    resources.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelcnn.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        sections=sections, columns=COLUMNS, given=GIVEN, note=note, made_by=made_by
    )


def _section(reports: Path, params: Params, table: Table, curves: dict[str, bytes]) -> dict[str, Any]:
    """What the template shows of a data set."""
    runs = runs_of(params, table.name)
    bits = {name: figures.Bits(read_test_bits(reports, name), run.model.given.comparable) for name, run in runs.items()}
    return {
        "name": table.name,
        "info": table.info,
        "remark": table.remark,
        "rows": [(row, list(zip(COLUMNS, cells(row), strict=True))) for row in table.rows],
        "curves": {scheme: _data_uri(png) for scheme, png in curves.items()},
        "histogram": {scheme: _data_uri(png) for scheme, png in figures.histogram(bits).items()} if bits else {},
        "dashed": any(not each.comparable for each in bits.values()),
        "runs": [_run(reports, params.sample, name, run, table.info.levels) for name, run in runs.items()],
    }


def _run(reports: Path, sample: Sample, name: str, run: Run, levels: int) -> dict[str, Any]:
    """What the template shows of a run."""
    train, scores, extremes = read_train(reports, name), read_evaluate(reports, name), read_extremes(reports, name)
    picture, highest = figures.likeliest_and_least(extremes, levels)
    return {
        "name": name,
        "run": run,
        "given": run.model.given,
        "bound": _bound(train),
        "test": scores.test,
        "facts": _facts(train, scores),
        "samples": _data_uri(made(reports, "sample", f"{name}.png").read_bytes()),
        "extremes": _data_uri(picture),
        "extreme_bits": [float(bits) for bits in extremes.bits_per_dim],
        "brightest": highest,
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
