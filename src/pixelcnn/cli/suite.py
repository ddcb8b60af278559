"""`pixelcnn suite`: replace params.yaml by a ready-made suite; the old file is renamed, not lost."""

import argparse
import json
import re
from pathlib import Path

from pixelcnn.cli import places
from pixelcnn.files import write_bytes, write_text

SUITES = Path(__file__).parent.parent / "suites"
PARAMS = Path("params.yaml")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", nargs="?", help="one of those that --list prints")
    parser.add_argument("--list", action="store_true", help="the suites and what they are for")
    parser.add_argument(
        "--origin",
        type=places.origin,
        help="a folder with the archives, or its URL (default: the publisher's); for the suite images: your images",
    )
    parser.add_argument(
        "--verify",
        choices=("publisher", "any"),
        default="publisher",
        help="any: accept archives that differ from the publisher's; the report says so (default: publisher)",
    )


def run(args: argparse.Namespace) -> None:
    """List the suites, or switch to one."""
    if args.list or args.name is None:
        print("\n".join(f"{path.stem:20} {_first_comment(path)}" for path in _suites()))
        return
    known = {path.stem: path for path in _suites()}
    if args.name not in known:
        raise ValueError(f"suite: {args.name!r} is not one of {', '.join(known)}")
    text = _with_source(known[args.name].read_text(), args.origin, args.verify)
    if PARAMS.exists() and PARAMS.read_text() != text:
        backup = _free_name(PARAMS)
        write_bytes(backup, PARAMS.read_bytes())  # a copy: without space for the new file the old one stays
        print(f"the old params.yaml is {backup}")
    write_text(PARAMS, text)
    print(f"params.yaml is the suite {args.name}; `dvc repro` runs it")


def _with_source(text: str, origin: str | None, verify: str) -> str:
    """A suite's text with the archives from `origin`: a URL, a folder, or None for the publisher."""
    if origin:
        text = re.sub(r"origin: publisher", lambda _: f"origin: {json.dumps(origin)}", text)
        text = text.replace('path: "photographs"', f"path: {json.dumps(origin, ensure_ascii=False)}")  # suite images
    return text.replace("verify: publisher", f"verify: {verify}")


def _suites() -> list[Path]:
    return sorted(SUITES.glob("*.yaml"))


def _first_comment(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("# ")


def _free_name(path: Path) -> Path:
    """path.bak, path.bak2, ...: the first that does not exist, so that nothing is overwritten."""
    names = (path.with_name(f"{path.name}.bak{n if n > 1 else ''}") for n in range(1, 1000))
    return next(name for name in names if not name.exists())
