"""Names of classes from a text file of the user's."""

import re
from collections import Counter
from pathlib import Path

from pixelcnn.config import check_class_name, quoted
from pixelcnn.data.config import ClassNames
from pixelcnn.files import read_bytes, sha256_of

MAX_BYTES = 2**20  # of the file
CLSLOC = re.compile(r"n\d{8} (?P<number>\d+) (?P<name>\S+)")  # a line of ImageNet's map_clsloc.txt


def named(classes: tuple[str, ...], given: ClassNames | None) -> tuple[str, ...]:
    """The names of so many classes: those of the file, or `classes` themselves where none is given.

    A name that occurs twice, as two of ImageNet do, gets a number: "crane", "crane (2)". Raises ValueError for a file
    that is not the one of the sha256, or has another number of names.
    """
    if given is None:
        return classes
    path = Path(given.path)
    content = read_bytes(path, MAX_BYTES)
    if (found := sha256_of(path)) != given.sha256:
        raise ValueError(f"class_names.sha256: {given.sha256} is not that of {path}, which is {found}")
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8") from None
    if lines and all(CLSLOC.fullmatch(line) for line in lines):
        numbered = [match for line in lines if (match := CLSLOC.fullmatch(line))]
        lines = [match["name"] for match in sorted(numbered, key=lambda match: int(match["number"]))]
    if len(lines) != len(classes):
        raise ValueError(f"{path}: {len(lines):,} names for {len(classes):,} classes; one a line, in their order")
    return unique(lines, str(path))


def unique(names: list[str], where: str) -> tuple[str, ...]:
    """Names by which classes can be told apart and printed."""
    seen: Counter[str] = Counter()
    made: dict[str, None] = {}
    for name in names:
        try:
            check_class_name(name)
        except ValueError as error:
            raise ValueError(f"{where}: {quoted(name)} {error}") from None
        free = name
        while free in made:
            seen[name] += 1
            free = f"{name} ({seen[name] + 1})"
        made[free] = None
    return tuple(made)
