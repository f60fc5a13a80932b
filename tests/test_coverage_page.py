"""docs/coverage.md: every item of the five documents is there, with a reference that exists or the reason why not."""

import re
from pathlib import Path

import pytest

from fewbits.notebook.labs import labs
from fewbits.notebook.percent import cells
from fewbits.reproduce.rows import ROWS

ROOT = Path(__file__).parents[1]
ITEMS = {"S0": 25, "S1": 12, "S2": 25, "S3": 16, "S4": 16}
LINE = re.compile(r"^\| (S\d-\d\d) \| (.*?) \| (.*) \|$", re.MULTILINE)
LINES = LINE.findall((ROOT / "docs/coverage.md").read_text().replace("\\|", "∣"))
REFERENCES = sorted({reference for *_, covered in LINES for reference in re.findall(r"`([^`]+)`", covered)})


def test_every_item_is_there_once_and_in_order():
    wanted = [f"{document}-{number:02}" for document, count in ITEMS.items() for number in range(1, count + 1)]
    assert [item for item, *_ in LINES] == wanted


@pytest.mark.parametrize(("item", "covered"), [(item, covered) for item, _, covered in LINES],
                         ids=[item for item, *_ in LINES])
def test_each_is_covered_or_says_why_not(item, covered):
    reasons = re.findall(r"cannot: ([^|;]+)", covered)
    assert re.findall(r"`([^`]+)`", covered) or reasons
    assert all(len(reason.split()) >= 4 for reason in reasons)


def headings(name: str) -> list[str]:
    return [line.lstrip("# ") for cell in cells(labs()[name].read_text()) if cell.kind == "markdown"
            for line in cell.text.splitlines() if line.startswith("##")]


@pytest.mark.parametrize("reference", REFERENCES)
def test_each_reference_exists(reference):
    if reference.startswith("tests/"):
        path, _, name = reference.partition("::")
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE)
    elif reference.startswith("reproduce: "):
        assert reference.removeprefix("reproduce: ") in ROWS
    else:
        lab, _, heading = reference.partition(": ")
        assert lab in labs(), "a lab, a test or a row"
        assert any(each.startswith(heading) for each in headings(lab))


def test_every_lab_is_referred_to_section_by_section():
    """Nothing in the labs is beside the documents."""
    for name in labs():
        named = [reference.partition(": ")[2] for reference in REFERENCES if reference.startswith(f"{name}: ")]
        for heading in headings(name):
            assert any(heading.startswith(each) for each in named), heading
