"""`pixelcnn models`: list, show and download registered models; pack finished runs and register them."""

import argparse
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

import pixelcnn
from pixelcnn import params, pretrained
from pixelcnn.cli.arguments import REGISTERED
from pixelcnn.config import quoted
from pixelcnn.files import new_folder, printable, write_text

if TYPE_CHECKING:
    from pixelcnn.tracking import registry


def run(args: argparse.Namespace) -> None:
    """Run one ACTION."""
    if args.action == "pack":
        _pack(args.entry, args.out)
        return
    from pixelcnn.tracking.store import answering  # MLflow takes seconds

    with answering():
        match args.action:
            case "list":
                _list()
            case "show":
                _show(args.model)
            case "download":
                _download(uri(args.model), args.out)
            case "register":
                _register(args.model)


def _bundled() -> str:
    return ", ".join(pretrained.folders()) or "none"


def uri(model: str) -> str:
    """The registry's URI of a MODEL."""
    model = model.removeprefix("models:/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*(@[A-Za-z0-9_-]+|/[0-9]{1,9})?", model):
        raise ValueError(f"MODEL: {quoted(model)} is neither {REGISTERED}")
    return f"models:/{model}" if re.search("[@/]", model) else f"models:/{model}@champion"


def _list() -> None:
    from pixelcnn.tracking import registry, store

    rows = [
        (v.name, v.version, ", ".join(v.aliases), *_score(v), v.run, f"{v.registered:%Y-%m-%d %H:%M}")
        for v in (registry.catalogue() if store.is_there() else [])
    ]
    headers = ["model", "version", "aliases", "test bits/dim", "±", "run", "registered"]
    print(
        tabulate(rows, headers, floatfmt=("", "", "", ".3f", ".3f"), missingval="") if rows else "no model registered"
    )
    print(f"\nbundled: {_bundled()}; `pixelcnn models register NAME` adds one to this list")


def _score(version: "registry.Version") -> tuple[float, float | None]:
    """Test bits/dim and their standard error, which those of one image do not have."""
    return version.test, None if math.isnan(version.error) else version.error


def _show(model: str) -> None:
    """The card of a version; of a bundled model where none of its name is registered."""
    from pixelcnn.tracking import registry

    bundled = pretrained.folders().get(model)
    if bundled is not None and not registry.has(model):
        print(f"{model}, bundled with pixelcnn\n\n{(bundled / 'README.md').read_text().rstrip()}")
        return
    version = registry.describe(uri(model))
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    print(f"{version.name} version {version.version}{aliases}, run {version.run}\n\n{printable(version.card)}")


def _download(address: str, out: Path | None) -> None:
    from pixelcnn.tracking import registry

    version = registry.describe(address)
    folder = out or Path(f"{version.name}-{version.version}")
    if folder.exists():
        raise ValueError(f"--out: {folder} already exists")
    source = registry.fetch(address)
    pixelcnn.load(source)  # refuses damaged weights before anything is written
    with new_folder(folder) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)
        write_text(part / "README.md", f"# {version.name}, version {version.version}\n\n{version.card}\n")
    name = pretrained.unambiguous(folder)
    print(f'{folder}: pixelcnn.load("{name}") in Python, `pixelcnn sample {name} -o samples.png` here')


def _pack(run: str, out: Path) -> None:
    from pixelcnn.tracking import model_package

    model_package.pack(run, params.load(Path("params.yaml")), Path("models") / run, Path("reports"), out)
    name = pretrained.unambiguous(out)
    print(f"{out}: `pixelcnn models register {name}` elsewhere, `pixelcnn sample {name} -o samples.png` anywhere")


def _register(model: str) -> None:
    from pixelcnn import checkpoint
    from pixelcnn.tracking import registry, runs
    from pixelcnn.tracking.model_package import of_run, remeasure, unpack

    known, folder, reports = params.load(Path("params.yaml")), pretrained.find(model), Path("reports")
    is_run = folder.resolve().parent == Path("models").resolve() and folder.name in known.runs
    is_bundled = folder in pretrained.folders().values()
    package = of_run(folder.name, known, folder, reports) if is_run else unpack(folder)
    doubt = "" if is_run or is_bundled else remeasure(package, Path("data/prepared"))
    report = registry.register(package, known.promotion.min_gain, known.promotion.confidence, doubt)
    if is_run:
        report.write(reports / "register" / f"{folder.name}.json")  # as the stage register does
    described = checkpoint.read_config(package.folder)
    with runs.run_of_weights(described.data.dataset, report.weights_sha256, package.run) as log:
        log.measured(package.scores.model_dump(), described.model.given)
        log.log_files({"samples": package.samples, "evaluation": package.nll})
    print(f"{report.name} version {report.version} ({', '.join(report.aliases) or 'no alias'}): {report.reason}")
