"""docs/api.md: whole, not stale, and its examples run."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import fewbits as fb
import fewbits.testing
from fewbits.documents.api import chapters, document, examples, names_of_testing

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [name for names in chapters().values() for name in names]
IN_DOCSTRING = [name for name in NAMES if ">>> " in (inspect.getdoc(getattr(fb, name)) or "")]


def test_the_page_is_not_stale() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == document(), (
        "docs/api.md is stale: python -m fewbits.documents.api > docs/api.md")


def test_every_public_name_has_a_place_and_an_example() -> None:
    assert sorted(NAMES) == sorted(fb.__all__)
    assert sorted([*examples(), *IN_DOCSTRING]) == sorted(fb.__all__)


@pytest.mark.parametrize("name", sorted(fb.__all__))
def test_every_public_name_is_described(name: str) -> None:
    told = inspect.getdoc(getattr(fb, name)) or ""
    assert len(told) > 20
    assert "(self" not in told


@pytest.mark.parametrize("name", list(examples()))
def test_the_example_runs_and_uses_the_name(name: str, given) -> None:
    assert re.search(rf"\bfb\.{name}\b", examples()[name]) or name in {"QuantizedModel"}
    exec(compile(examples()[name], f"example of {name}", "exec"), given)


@pytest.mark.parametrize("name", IN_DOCSTRING)
def test_the_example_of_the_docstring_runs(name: str, given) -> None:
    found = doctest.DocTestFinder().find(getattr(fb, name), name, globs={**given, **vars(fb.public)})
    runner = doctest.DocTestRunner()
    assert sum(runner.run(each).failed for each in found) == 0
    assert runner.tries > 0


def test_what_is_documented_is_exported() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert set(re.findall(r"\bfb\.([A-Za-z]\w*)", text)) <= set(fb.__all__)
    assert set(re.findall(r"fewbits\.testing\.(check_\w+)", text)) <= set(names_of_testing())
    assert all(hasattr(fewbits.testing, name) for name in names_of_testing())


def test_names_that_packages_have_too_are_the_functions() -> None:
    """Importing `fewbits.report.page` must not put the package in the place of `fb.report`."""
    packages = {path.parent.name for path in Path(fb.__path__[0]).glob("*/__init__.py")}
    functions = {name for name in fb.__all__ if inspect.isfunction(getattr(fb, name))}
    assert set(fb.VERBS_AND_PACKAGES) == packages & functions
