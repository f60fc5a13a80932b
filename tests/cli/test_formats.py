"""`fewbits formats`, its pictures, and the page made of the same source."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fewbits.cli.formats import formats
from fewbits.cli.output import console
from fewbits.cli.verbs.formats import Formats
from fewbits.documents.formats import document
from fewbits.errors import EncodingError, FileError, OptionError
from fewbits.numerics.catalogue import CATALOGUE, entry
from fewbits.numerics.datasheet import data_sheet, exact
from fewbits.numerics.number_line import number_line

PAGE = Path(__file__).resolve().parents[2] / "docs/formats.md"


def shown(**options):
    return formats(Formats(**options), console(sys.stdout))


def test_the_page_is_not_stale():
    assert PAGE.read_text(encoding="utf-8") == document(), (
        "docs/formats.md is stale: python -m fewbits.documents.formats > docs/formats.md")


def test_all_are_listed(capsys):
    shown()
    lines = capsys.readouterr().out
    for each in CATALOGUE:
        assert f"  {each.name} " in lines


def test_a_data_sheet(capsys):
    shown(name="e4m3")
    sheet = capsys.readouterr().out
    for fact in ("-448 to 448", "0.015625", "0.001953125", "bias 7", "253", "0x7f", "saturates", "0x7e 448"):
        assert fact in sheet


@pytest.mark.parametrize("each", CATALOGUE, ids=lambda each: each.name)
def test_every_format_has_a_sheet_and_a_picture(each):
    assert data_sheet(each).startswith(each.name)
    picture = number_line(each)
    root = ElementTree.fromstring(picture.svg)
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    drawn = 0
    for line in root.iter("{http://www.w3.org/2000/svg}line"):
        for axis, limit in (("x1", width), ("x2", width), ("y1", height), ("y2", height)):
            assert 0 <= float(line.attrib[axis]) <= limit
        drawn += 1
    assert drawn >= min((each.format.values() > 0).sum(), 800)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "nf4.svg"
    shown(name="nf4", plot=target)
    assert target.read_text().startswith("<svg")
    assert [p.name for p in tmp_path.iterdir()] == ["nf4.svg"]
    with pytest.raises(FileError, match="svg"):
        shown(name="nf4", plot=tmp_path / "nf4.png")
    with pytest.raises(FileError, match="was not written"):
        shown(name="nf4", plot=tmp_path / "absent" / "nf4.svg")
    with pytest.raises(EncodingError, match="picture"):
        shown(name="fp32", plot=tmp_path / "fp32.svg")
    with pytest.raises(OptionError, match="name it"):
        shown(plot=target)
    assert [p.name for p in tmp_path.iterdir()] == ["nf4.svg"]


def test_an_unknown_format_is_named():
    with pytest.raises(EncodingError, match="'int8x'"):
        shown(name="int8x")
    assert entry("e3m3").about == ""


def test_numbers_are_told_exactly():
    assert [exact(v) for v in (448.0, -0.0, 0.1, 2.0**-9, 3.4e38, 65504.0)] == [
        "448", "-0", "0.1", "0.001953125", "3.4e+38", "65504"]
