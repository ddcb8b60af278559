"""`pixelcnn completion`: what a shell can complete, from the declarations of `pixelcnn.cli.arguments`.

The scripts call this verb again, with --line, for each word that is completed: a tenth of a second, since nothing here
needs torch. Where it knows nothing, shells complete the names of files.
"""

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from pixelcnn import pretrained
from pixelcnn.cli import VERBS, arguments, suite

SCRIPTS = {
    "bash": """\
_pixelcnn() {
  local IFS=$'\\n'
  COMPREPLY=($(pixelcnn completion bash --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o bashdefault -o default -F _pixelcnn pixelcnn""",
    "zsh": """\
_pixelcnn() {
  local -a found
  found=(${(f)"$(pixelcnn completion zsh --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
  if (( $#found )); then compadd -- $found; else _files; fi
}
compdef _pixelcnn pixelcnn""",
    "fish": """\
complete -c pixelcnn -a '(pixelcnn completion fish --line (commandline -cp) 2>/dev/null)'""",
}


def run(args: argparse.Namespace) -> None:
    """Print the script, or the completions of the last word of a line."""
    if args.line is None:
        print(SCRIPTS[args.shell])
        return
    found = completions(args.line)
    if args.shell == "bash":  # which completes what follows the last colon of a word
        last = args.line.split(" ")[-1]
        found = [word[last.rfind(":") + 1 :] for word in found]
    print("\n".join(found))


def completions(line: str) -> list[str]:
    """The words that the last word of a line, from `pixelcnn` to the cursor, may be the beginning of."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        return []
    last = "" if line.endswith(" ") else words.pop()
    match words[1:]:
        case []:
            known: Iterable[str] = [*VERBS, "--help", "--version"]
        case [verb, *given] if verb in VERBS:
            known = _of_parser(arguments.parser(verb), given, last)
        case _:
            known = []
    return sorted({word for word in known if word.startswith(last)})


def _of_parser(parser: argparse.ArgumentParser, given: list[str], last: str) -> Iterable[str]:
    """What may follow the words that a parser was given."""
    options = {name: action for action in parser._actions for name in action.option_strings}
    places = [action for action in parser._actions if not action.option_strings]
    taking: argparse.Action | None = None  # the option whose value comes next
    for n, word in enumerate(given):
        if taking is not None:
            taking = None
        elif word in options:
            taking = options[word] if options[word].nargs != 0 else None
        elif places and isinstance(places[0].choices, dict):  # actions such as `models show`
            return _of_parser(places[0].choices[word], given[n + 1 :], last) if word in places[0].choices else []
        elif places and places[0].nargs != "+":
            places.pop(0)
    if taking is not None:
        return _values(taking)
    return options if last.startswith("-") else _values(places[0]) if places else []


def _values(action: argparse.Action) -> Iterable[str]:
    """The values of an argument that are known here."""
    if action.choices is not None:
        return action.choices
    match action.dest:
        case "model" | "beside":
            return [*pretrained.folders(), *(str(path.parent) for path in Path("models").glob("*/config.json"))]
        case "images":
            return [
                f"{card.parent}:{name}"
                for card in Path("data/prepared").glob("*/card.json")
                for name in arguments.SPLITS
            ]
        case "run" | "entry":
            return _runs()
        case "name":
            return suite.names()
    return []


def _runs() -> list[str]:
    """The runs of params.yaml, read without checking it, which takes longer than a user waits for."""
    if not suite.PARAMS.exists():
        return []
    text = suite.PARAMS.read_text()
    start, end = suite.block(text, "runs")
    return re.findall(r"^  ([a-z0-9][a-z0-9-]*):", "\n".join(text.splitlines()[start:end]), re.MULTILINE)
