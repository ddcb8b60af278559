"""report: the NLL tables beside the published ones, learning curves, and one page that holds everything."""

import argparse
import base64
import io
import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelcnn import config
from pixelcnn.reporting import reports as reported
from pixelcnn.reporting import tables as results
from pixelcnn.reporting.reports import si
from pixelcnn.stages import run as run_stage

PALETTE = ("#c2572b", "#2f7fb8", "#5a9a3c", "#9a62b5", "#c79a1b", "#3aa394")  # legible on paper and on black
INKS = {"light": "#3a3833", "dark": "#c9c5bb"}


def write(reports: Path, params: config.Params, out: Path) -> None:
    """Write nll-DATASET.md, nll-DATASET.csv and curves-DATASET.png of each data set, and index.html, into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    sections = []
    for table in results.tables(reports, params):
        (out / f"nll-{table.name}.md").write_text(results.markdown(table), encoding="utf-8")
        results.frame(table).to_csv(out / f"nll-{table.name}.csv", index=False)
        curves = _curves(reports, params, table.name)
        if curves:
            (out / f"curves-{table.name}.png").write_bytes(curves["light"])
        sections.append(_section(reports, params, table, curves))
    (out / "index.html").write_text(page(sections), encoding="utf-8")


def page(sections: list[dict[str, Any]]) -> str:
    """The HTML page of these data sets' sections: no script, nothing loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelcnn.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        sections=sections, columns=results.COLUMNS, given=results.GIVEN
    )


def _section(reports: Path, params: config.Params, table: results.Table, curves: dict[str, bytes]) -> dict[str, Any]:
    runs = results.runs_of(params, table.name)
    return {
        "name": table.name,
        "card": table.card,
        "dims": math.prod(table.card["shape"]),
        "remark": table.remark,
        "rows": [(row, results.cells(row)) for row in table.rows],
        "curves": {scheme: _data_uri(png) for scheme, png in curves.items()},
        "runs": [_run(reports, params.evaluate, name, run) for name, run in runs.items()],
    }


def _run(reports: Path, evaluate: config.Evaluate, name: str, run: config.Run) -> dict[str, Any]:
    train, measured = reported.read(reports, "train", name), reported.read(reports, "evaluate", name)
    samples = reported.made(reports, "evaluate", f"{name}.png").read_bytes()
    return {
        "name": name,
        "run": run,
        "given": config.given(run.model.condition),
        "measured": measured,
        "facts": _facts(train, measured),
        "samples": _data_uri(samples),
        "temperature": evaluate.temperature,
        "seed": evaluate.seed,
        "settings": {"model": run.model.model_dump(), "train": run.train.model_dump()},
    }


def _facts(train: dict[str, Any], measured: dict[str, Any]) -> dict[str, str]:
    flop = train["flops_per_image"]
    splits = {
        f"{split} bits/dim": f"{measured[split]['bits_per_dim']:.3f} ± {measured[split]['standard_error']:.3f}"
        f" ({measured[split]['num_images']:,} images)"
        for split in ("test", "validation", "train")
    }
    return splits | {
        "parameters": f"{train['num_parameters']:,}",
        "best step": f"{train['step']:,} of {train['steps']:,}, by validation",
        "images seen": f"{train['images_seen']:,}",
        "training": f"{reported.duration(train['seconds'])} on {train['hardware']}{_speed(train)}",
        "arithmetic": f"{si(flop, 'FLOP')} per image, {si(flop * train['images_seen'], 'FLOP')} in all",
    }


def _speed(train: dict[str, Any]) -> str:
    if "images_per_second" not in train:
        return ""
    share = f", {train['share_of_peak']:.0%} of its peak" if train.get("share_of_peak") else ""
    rate = si(train["flops_per_second"], "FLOP/s")
    return f": {si(train['images_per_second'])} images/s, {rate}{share}"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _curves(reports: Path, params: config.Params, dataset: str) -> dict[str, bytes]:
    """Learning curves of a data set's runs as transparent PNGs, for light and for dark pages; {} without runs."""
    names = results.runs_of(params, dataset)
    logs = {name: pd.read_csv(reported.made(reports, "train", f"{name}.csv")) for name in names}
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
    """Limits and labels. The first twentieth is a fall from log2(levels), beside which all that follows looks flat."""
    late = log[log.images_seen >= log.images_seen.max() / 20][["train_bits_per_dim", "validation_bits_per_dim"]]
    low, high = float(late.min().min()), float(late.max().max())
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen")
    axes.set_ylabel("bits/dim")
    axes.xaxis.set_major_formatter(lambda value, _: si(value))


def _ink(axes: Axes, ink: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.grid(axis="y", color=ink, linewidth=0.4, alpha=0.3)
    axes.legend(frameon=False, loc="upper right", labelcolor=ink)


def main() -> None:
    """`python -m pixelcnn.stages.report --reports FOLDER --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path, required=True, help="the folder of every stage's reports")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    arguments = parser.parse_args()
    write(arguments.reports, config.load(Path("params.yaml")), arguments.out)


if __name__ == "__main__":
    run_stage(main)
