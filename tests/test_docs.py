"""The documentation: every link leads somewhere, every page is in the site, every command named exists."""

import re
from pathlib import Path

import pytest

from pixelcnn.cli import VERBS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@EACH
def test_links_and_pictures_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@EACH
def test_the_verbs_and_targets_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    verbs = set(re.findall(r"(?:^|&& )pixelcnn ([a-z]+)", shell, re.MULTILINE))
    assert verbs <= set(VERBS)
    targets = set(re.findall(r"(?:^|&& )make ([a-z-]+)", shell, re.MULTILINE))
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= made
    modules = set(re.findall(r"python -m ((?:pixelcnn|pipelines|tests)\.[a-z_.]+)", shell))
    places = {module: module.replace(".", "/") for module in modules}
    found = [
        m
        for m, p in places.items()
        if any((base / f"{p}{end}").exists() for base in (ROOT / "src", ROOT) for end in (".py", "/__main__.py"))
    ]
    assert sorted(found) == sorted(modules)


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r"([A-Za-z_]+\.md)", (ROOT / "mkdocs.yml").read_text()))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= listed


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
