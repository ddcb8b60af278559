"""Pages of the site that lie elsewhere in the repository, and links between them and those under docs/."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "benchmarks/README.md": "benchmarks.md"}
LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        folder = Path(source).parent
        content = LINK.sub(lambda link, folder=folder: _target(folder / link.group(1)), text)
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links from docs/ to those pages lead to them."""
    if page.file.generated_by:
        return markdown
    return LINK.sub(lambda link: _target(Path("docs") / link.group(1)), markdown)


def _target(path: Path) -> str:
    """A path in the repository as an address in the site; files that are no page are named only."""
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    where = "/".join(parts)
    if where in PAGES or f"{where}/README.md" in PAGES:
        return PAGES.get(where) or PAGES[f"{where}/README.md"]
    return where.removeprefix("docs/") if where.startswith("docs/") else f"index.md#{where}"
