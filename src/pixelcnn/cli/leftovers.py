"""What lies on disk of entries that params.yaml no longer has: of renamed and removed runs, data sets and embeddings.

Where the stages' outs lie is what dvc.yaml says. Besides, data sets have interrupted downloads in data/partial, and
runs have checkpoints, files of pixels and locks in checkpoints/. MLflow's runs and versions, the records in mlruns/ and
DVC's cache are never among it.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from pixelcnn import files
from pixelcnn.config import NAME, read_yaml
from pixelcnn.params import Params

HEADINGS = ("datasets", "images", "embeddings", "runs")
CHECKPOINTS = Path("checkpoints")
ENTRY = NAME.strip("^$")
OF_TRAININGS = re.compile(rf"\.?(?P<key>{ENTRY}?)(-[0-9a-f]{{12}}\.(pt|trunk|finished|pixels)|\.lock)(\.part)?")


class Leftover(NamedTuple):
    """A file or folder, the entry that it was of, and its size."""

    path: Path
    key: str
    num_bytes: int


def find(params: Params) -> list[Leftover]:
    """All that is left, by path. ValueError for a dvc.yaml that is none."""
    found = [*_outs(params), *_of_trainings(params)]
    return sorted({path: Leftover(path, key, _size(path)) for path, key in found}.values())


def remove(leftover: Leftover) -> str:
    """Remove it. Returns "", or else the id of the process that still trains the run, of which nothing is removed."""
    with ExitStack() as stack:
        if (lock := CHECKPOINTS / f"{leftover.key}.lock").exists():
            try:
                stack.enter_context(files.lock(lock))
            except BlockingIOError as error:
                return str(error) or "?"
        if leftover.path.is_dir() and not leftover.path.is_symlink():
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink()
    return ""


def _outs(params: Params) -> Iterator[tuple[Path, str]]:
    """What is named as the out that a stage has of each entry, but is of no entry; with the name of that."""
    single, of_each = _places(params)
    for place, keys in of_each.items():
        folder, ending = Path(place).parent, place.rpartition("*")[2]
        pattern = re.compile(rf"\.?(?P<key>{ENTRY}){re.escape(ending)}(\.part)?")
        for path in folder.iterdir() if folder.is_dir() else ():
            match = pattern.fullmatch(path.name)
            is_of_another = path in single or path.with_name(f"{path.name}.dvc").exists()
            if match and match["key"] not in keys and not is_of_another:
                yield path, match["key"]


def _places(params: Params) -> tuple[set[Path], dict[str, set[str]]]:
    """The outs in dvc.yaml: of stages that run once; and, with * for an entry, those of each entry with the entries.

    Where a stage of the user's has outs of other things than entries, nothing is known of what belongs there.
    """
    names = {f"${{{heading}}}": set(getattr(params, heading)) for heading in HEADINGS}
    single, of_each, unknown = set(), {"data/partial/*": names["${datasets}"]}, set()
    for stage in read_yaml(Path("dvc.yaml"))["stages"].values():
        keys = names.get(str(stage.get("foreach")))
        for out in _paths(stage.get("do", stage)):
            if keys is not None and "${key}" in out:
                of_each[out.replace("${key}", "*")] = of_each.get(out.replace("${key}", "*"), set()) | keys
            elif "${" in out:
                unknown.add(Path(out).parent)
            else:
                single.add(Path(out))
    return single, {place: keys for place, keys in of_each.items() if Path(place).parent not in unknown}


def _paths(stage: Mapping[str, Any]) -> Iterator[str]:
    """The outs of one stage of dvc.yaml; each is a path, or a mapping of it to its settings."""
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, []):
            yield out if isinstance(out, str) else next(iter(out))


def _of_trainings(params: Params) -> Iterator[tuple[Path, str]]:
    """What trainings keep outside their outs, of runs that are no more; with the run's name."""
    for path in CHECKPOINTS.iterdir() if CHECKPOINTS.is_dir() else ():
        match = OF_TRAININGS.fullmatch(path.name)
        if match and match["key"] not in params.runs:
            yield path, match["key"]


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if not each.is_dir())
