"""`pixelcnn suite`: ready-made suites in params.yaml, in place of what is there or beside it."""

import argparse
import copy
import io
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelcnn.files import write_bytes, write_text
from pixelcnn.spelling import hint

SUITES = Path(__file__).parent.parent / "suites"
PARAMS, BACKUP = Path("params.yaml"), Path("params.yaml.bak")
QUOTED = r'"(?:[^"\\]|\\.)*"'
ORIGIN = rf"origin: (publisher|{QUOTED})"
PATH = rf"path: {QUOTED}"  # of the images, in the suite of one's own
VERIFY = r"verify: (publisher|any)"
ENTRIES = ("datasets", "images", "embeddings", "runs")  # the headings whose entries a suite adds
WIDTH = 100  # columns of the list
NAMES = 22  # of which are for the names


def run(args: argparse.Namespace) -> None:
    """List the suites, switch to one, or add one."""
    known = {name: SUITES / f"{name}.yaml" for name in names()}
    if args.list or args.name is None:
        print("\n".join(_described(name, path.read_text()) for name, path in known.items()))
        print("\n> marks the suite in params.yaml; `pixelcnn suite NAME` replaces it, with --add adds one to it")
        return
    if args.name not in known:
        raise ValueError(f"suite: {args.name!r} is not one of {', '.join(known)}{hint(args.name, known)}")
    text = _with_source(known[args.name].read_text(), args.origin, args.verify)
    if args.add:
        _add(args.name, text)
        return
    if PARAMS.exists() and not _is_suite(PARAMS.read_text(), known):
        _back_up()
    write_text(PARAMS, text)
    print(f"params.yaml is the suite {args.name}; `dvc repro` runs it")


def names() -> list[str]:
    """The names of the suites."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def _described(name: str, text: str) -> str:
    """A suite's name and what it is for: the first lines of its file, to the end of a sentence at the end of a line."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line.removeprefix("# "))
        if line.endswith("."):
            break
    mark = "> " if PARAMS.exists() and _source_left_out(PARAMS.read_text()) == _source_left_out(text) else "  "
    described = textwrap.wrap(" ".join(lines), WIDTH - NAMES)
    return f"{mark}{name}".ljust(NAMES) + f"\n{' ' * NAMES}".join(described)


def _with_source(text: str, origin: str | None, verify: str) -> str:
    """A suite's text with archives or images from `origin`: a URL, a folder, or None for what the suite says."""
    if origin:
        quoted = json.dumps(origin, ensure_ascii=False)
        text = re.sub(ORIGIN, lambda _: f"origin: {quoted}", text)
        text = re.sub(PATH, lambda _: f"path: {quoted}", text)
    return re.sub(VERIFY, f"verify: {verify}", text)


def _source_left_out(text: str) -> str:
    return re.sub(f"{ORIGIN}|{VERIFY}|{PATH}", "", text)


def _is_suite(text: str, known: Mapping[str, Path]) -> bool:
    """Whether a params.yaml is a suite as it comes, which needs no copy."""
    return _source_left_out(text) in {_source_left_out(path.read_text()) for path in known.values()}


def _back_up() -> None:
    """Copy params.yaml; ValueError where an earlier copy would be lost."""
    content = PARAMS.read_bytes()
    if BACKUP.exists() and BACKUP.read_bytes() != content:
        raise ValueError(
            f"{PARAMS} has been edited and would be kept as {BACKUP}, which holds another edited one; rename or remove "
            f"{BACKUP} first"
        )
    write_bytes(BACKUP, content)  # a copy: without space for the new file the old one stays
    print(f"the old params.yaml is now {BACKUP}")


# Adding


def _add(name: str, suite: str) -> None:
    """Add the entries of a suite to params.yaml, whose own lines stay as they are."""
    from pixelcnn import params  # imports pydantic

    here = PARAMS.read_text() if PARAMS.exists() else ""
    if not here:
        raise ValueError(f"{PARAMS}: no such file, so there is nothing to add to; `pixelcnn suite {name}` creates it")
    known, added = params.load(PARAMS), params.parse(_plain(suite), name)
    shared, text, new = _plain(here)["shared"], here, []
    for heading in ENTRIES:
        entries, there = getattr(added, heading), getattr(known, heading)
        if differing := [key for key in entries if key in there and _decisive(there[key]) != _decisive(entries[key])]:
            raise ValueError(
                f"{PARAMS}: {heading}: {', '.join(differing)}: already here with other values than the suite's; "
                "rename the existing ones first"
            )
        missing = [key for key in entries if key not in there]
        text = _inserted(text, heading, _written_out(suite, heading, missing, shared))
        new += missing
    if not new:
        print(f"params.yaml has all of the suite {name} already")
        return
    try:
        merged = params.parse(_plain(text), str(PARAMS))
    except ValueError as error:
        raise ValueError(
            f"{error}\nthe values under `shared` here do not fit the suite's runs; start with the suite: "
            f"`pixelcnn suite {name}`, then add the other"
        ) from None
    assert merged.runs == known.runs | added.runs
    write_text(PARAMS, text)
    print(f"params.yaml now has the suite {name} too: {', '.join(new)}; `dvc repro` runs what is new")


def _decisive(entry: Any) -> dict[str, Any]:
    """The values of an entry that decide what it is: not where the archives of a data set come from."""
    values: dict[str, Any] = entry.model_dump()
    for key in ("origin", "verify"):
        values.get("download", {}).pop(key, None)
    return values


def _plain(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def _written_out(suite: str, heading: str, keys: list[str], shared: Mapping[str, Any]) -> str:
    """The suite's entries of these keys as YAML, with their comments; runs also with what `shared` here lacks."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Writes null as the suites do, not as nothing."""

    Representer.add_representer(type(None), lambda yaml, _: yaml.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml = YAML()
    yaml.Representer = Representer
    yaml.width, yaml.preserve_quotes = 120, True
    start, end = block(suite, heading)
    entries = (yaml.load("\n".join(suite.splitlines()[start:end])) or {})[heading]
    own = _plain(suite)["shared"]
    for key in [key for key in entries if key not in keys]:
        del entries[key]
    for run in entries.values() if heading == "runs" else ():
        for section, values in own.items():
            there = shared.get(section, {})
            lacking = {k: v for k, v in values.items() if k not in run[section] and (k not in there or there[k] != v)}
            for key in reversed(lacking):
                run[section].insert(0, key, copy.deepcopy(lacking[key]))
            if len(lacking) > 2:
                run[section].fa.set_block_style()
    if not entries:
        return ""
    out = io.StringIO()
    yaml.dump({heading: entries}, out)
    return out.getvalue().partition("\n")[2].strip("\n")


def block(text: str, heading: str) -> tuple[int, int]:
    """The lines from `heading:` to the last of its entries: first, and one past the last."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"{heading}:"))
    inside = [n for n in range(start + 1, len(lines)) if lines[n].startswith((" ", "\t"))]
    next_key = next((n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
    return start, max([n for n in inside if n < next_key], default=start) + 1


def _inserted(text: str, heading: str, entries: str) -> str:
    """The text of a params.yaml with more entries at the end of a heading."""
    if not entries:
        return text
    lines, (start, end) = text.splitlines(), block(text, heading)
    if end == start + 1:
        lines[start] = f"{heading}:"  # which was {}
    return "\n".join([*lines[:end], *([""] if end > start + 1 else []), entries, *lines[end:]]) + "\n"
