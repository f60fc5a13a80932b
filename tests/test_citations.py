"""What the text of the repository points at exists in the repository."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("", "docs", "src/fewbits", "src", "tests", "docs/decisions")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [*sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py")),
           *sorted((ROOT / "benchmarks").glob("*.py"))]


def exists(name: str, beside: Path) -> bool:
    return any((place / name).exists() for place in (beside, *(ROOT / place for place in PLACES)))


def missing(text: str, pattern: str, beside: Path) -> set[str]:
    return {name for name in re.findall(pattern, text) if not exists(name, beside)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_link_to_what_is_there(page: Path) -> None:
    text = page.read_text()
    assert not missing(text, r"\]\((?!https?:|#)([^)#]+)", page.parent)
    assert not missing(text, r"`((?:\w[\w.-]*/)+\w[\w-]*\.(?:py|md|toml|yaml))`", page.parent)


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_from_elsewhere_is_cited(page: Path) -> None:
    assert not missing(page.read_text(), r"(?<![\w./-])((?:[\w-]+/)*[\w-]+\.md)\b", page.parent)
