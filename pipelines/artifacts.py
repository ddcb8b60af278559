"""What stages make to be looked at, on the page of the Prefect run: every Markdown file and PNG among their outs."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from pipelines.graph import Stage

LARGEST = 2_000_000  # bytes of a picture: artifacts lie in Prefect's database


def publish(stage: Stage) -> None:
    """An artifact for each table and picture of a stage, under the stage's name and the file's."""
    for path in _shown(stage):
        key = re.sub(r"[^a-z0-9]+", "-", f"{stage.name.partition('@')[0]}-{path.stem}".lower())
        text = path.read_text(encoding="utf-8") if path.suffix == ".md" else picture(path, path.stem)
        create_markdown_artifact(text, key=key, description=f"{path.name}, by {stage.name}")


def picture(path: Path, title: str) -> str:
    """A PNG as Markdown that carries it along: no server need find the file later."""
    content = path.read_bytes()
    if len(content) > LARGEST:
        return f"{title}: {path} ({len(content):,} bytes, too large to be shown here)"
    return f"![{title}](data:image/png;base64,{base64.b64encode(content).decode()})"


def _shown(stage: Stage) -> Iterator[Path]:
    for out in stage.outs:
        files = sorted(out.rglob("*")) if out.is_dir() else [out]
        yield from (path for path in files if path.suffix in (".md", ".png") and path.is_file())
