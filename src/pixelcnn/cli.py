"""The command `pixelcnn`. Imports are inside the commands: `pixelcnn --help` waits for none of them."""

import argparse
import json
import re
import sys
from pathlib import Path

SUITES = Path(__file__).parent / "suites"
PARAMS = Path("params.yaml")


def main(arguments: list[str] | None = None) -> None:
    """Run one command; what a user can mend is one clear message and exit code 2."""
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def results(args: argparse.Namespace) -> None:
    """Print the NLL tables, and where to look further."""
    from pixelcnn import config
    from pixelcnn.results import summary

    print(summary(Path("reports"), config.load(PARAMS)))
    if args.next_steps:
        print(NEXT_STEPS)


def suite(args: argparse.Namespace) -> None:
    """Make a ready-made suite the params.yaml; the old one is kept."""
    if args.list or args.name is None:
        print("\n".join(f"{path.stem:20} {_first_comment(path)}" for path in _suites()))
        return
    known = {path.stem: path for path in _suites()}
    if args.name not in known:
        raise ValueError(f"suite: {args.name!r} is not one of {', '.join(known)}")
    text = known[args.name].read_text()
    if args.origin:
        local = Path(args.origin).expanduser()
        origin = args.origin if "://" in args.origin else str(local.resolve())
        text = re.sub(r"origin: publisher", lambda _: f"origin: {json.dumps(origin)}", text)
    text = text.replace("verify: publisher", f"verify: {args.verify}")
    if PARAMS.exists() and PARAMS.read_text() != text:
        kept = _free_name(PARAMS)
        PARAMS.rename(kept)
        print(f"the old params.yaml is {kept}")
    PARAMS.write_text(text)
    print(f"params.yaml is the suite {args.name}; `dvc repro` runs it")


NEXT_STEPS = """
Next:
  make ui                              # compare the runs, see the registered models: http://127.0.0.1:5000
  dvc exp run -S runs.digits-gated.train.steps=400 && dvc exp show --only-changed
  pixelcnn suite cifar10-small         # then `dvc repro`: the same on CIFAR-10 (half an hour on two cores)
(in this shell first: source .venv/bin/activate)"""


def _suites() -> list[Path]:
    return sorted(SUITES.glob("*.yaml"))


def _first_comment(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("# ")


def _free_name(path: Path) -> Path:
    """path.bak, path.bak2, ...: the first that does not exist, so that nothing is overwritten."""
    names = (path.with_name(f"{path.name}.bak{n if n > 1 else ''}") for n in range(1, 1000))
    return next(name for name in names if not name.exists())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pixelcnn", description="Exact-likelihood autoregressive image models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("results", help="the NLL tables, and where samples and curves lie")
    command.add_argument("--next-steps", action="store_true", help="also say what to type next")
    command.set_defaults(command=results)

    command = commands.add_parser("suite", help="switch params.yaml to CIFAR-10 or ImageNet")
    command.add_argument("name", nargs="?", help="one of the list")
    command.add_argument("--list", action="store_true", help="the suites and what they are for")
    command.add_argument("--origin", help="a folder with the archives, or the URL of one (default: the publisher's)")
    command.add_argument(
        "--verify",
        choices=("publisher", "any"),
        default="publisher",
        help="any: take archives that are not, to the byte, the publisher's; the report says so (default: publisher)",
    )
    command.set_defaults(command=suite)
    return parser


if __name__ == "__main__":
    main()
