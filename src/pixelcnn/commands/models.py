"""`pixelcnn models`: the registered models: list them, show one, download one.

A model is NAME, which means its champion, NAME@ALIAS or NAME/VERSION.
"""

import argparse
import re
import shutil
from pathlib import Path

from tabulate import tabulate

import pixelcnn

MODEL = "NAME (its champion), NAME@ALIAS or NAME/VERSION"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="every version of every model")
    show = actions.add_parser("show", help="the card of a version: what, data, numbers, licence")
    show.add_argument("model", metavar="MODEL", help=MODEL)
    download = actions.add_parser("download", help="a folder that needs neither registry nor network")
    download.add_argument("model", metavar="MODEL", help=MODEL)
    download.add_argument("-o", "--out", type=Path, help="the folder (default: NAME-VERSION, here)")


def run(args: argparse.Namespace) -> None:
    """Do what ACTION says."""
    from pixelcnn.store import answering  # MLflow takes seconds

    with answering():
        match args.action:
            case "list":
                _list()
            case "show":
                _show(uri(args.model))
            case "download":
                _download(uri(args.model), args.out)


def uri(model: str) -> str:
    """The registry's URI of a MODEL."""
    model = model.removeprefix("models:/")
    if not re.fullmatch(r"[^/@]+(@[^/@]+|/\d+)?", model):
        raise ValueError(f"MODEL: {model!r} is neither {MODEL}")
    return f"models:/{model}" if re.search("[@/]", model) else f"models:/{model}@champion"


def _list() -> None:
    from pixelcnn import registry

    rows = [
        (v.name, v.version, ", ".join(v.aliases), v.test, v.error, v.run, f"{v.registered:%Y-%m-%d %H:%M}")
        for v in registry.catalogue()
    ]
    headers = ["model", "version", "aliases", "test bits/dim", "±", "run", "registered"]
    print(
        tabulate(rows, headers, floatfmt=("", "", "", ".3f", ".3f"), missingval="") if rows else "no model registered"
    )


def _show(address: str) -> None:
    from pixelcnn import registry

    version = registry.describe(address)
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    print(f"{version.name} version {version.version}{aliases}, run {version.run}\n\n{version.card}")


def _download(address: str, out: Path | None) -> None:
    from pixelcnn import registry

    version = registry.describe(address)
    folder = out or Path(f"{version.name}-{version.version}")
    if folder.exists():
        raise ValueError(f"--out: {folder} is there already")
    source = registry.fetch(address)
    pixelcnn.load(source)  # refuses damaged weights before anything is written
    shutil.copytree(source, folder)
    (folder / "README.md").write_text(f"# {version.name}, version {version.version}\n\n{version.card}\n")
    print(f'{folder}: pixelcnn.load("{folder}") in Python, `pixelcnn sample {folder}` here')
