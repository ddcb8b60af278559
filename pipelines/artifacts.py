"""Prefect artifacts of a stage: every Markdown file and PNG among its outs, shown on the page of the run."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from pipelines.graph import Stage

MAX_BYTES = 2_000_000  # of a picture, since artifacts are stored in Prefect's database


def publish(stage: Stage) -> None:
    """Create an artifact for each table and picture of a stage, with the stage's and the file's name as key."""
    for path in _shown(stage):
        key = re.sub(r"[^a-z0-9]+", "-", f"{stage.kind}-{path.stem}".lower())
        text = path.read_text(encoding="utf-8") if path.suffix == ".md" else picture(path, path.stem)
        create_markdown_artifact(text, key=key, description=f"{path.name}, by {stage.name}")


def picture(path: Path, title: str) -> str:
    """A PNG embedded in Markdown, so that it does not depend on the file."""
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        return f"{title}: {path} ({len(content):,} bytes, too large to be shown here)"
    return embedded(content, title)


def embedded(png: bytes, title: str) -> str:
    """The content of a PNG, in Markdown."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _shown(stage: Stage) -> Iterator[Path]:
    for out in stage.outs:
        files = sorted(out.rglob("*")) if out.is_dir() else [out]
        yield from (path for path in files if path.suffix in (".md", ".png") and path.is_file())
