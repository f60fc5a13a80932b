"""Pictures: what stands where, that every one is sound XML without anything from outside, and what is refused."""

import doctest
import importlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import fewbits as fb
from fewbits.errors import FileError, OptionError

P = fb.plots
AXES = P.Axis("x"), P.Axis("y")
W = np.array([[2.09, -0.98], [0.05, -0.14]])


def every() -> dict[str, P.Picture]:
    curve = P.points("a < b & c", *AXES, [P.Series("one", [1, 2, 3], [1, 4, 9], line=True), P.Series("two", [2], [3])],
                     marks=[(2.5, "switch")])
    return {"points": curve,
            "logarithmic": P.points("log", P.Axis("x", True), P.Axis("y", True), [P.Series("s", [1, 0, 9], [1, 5, 2])]),
            "bars": P.bars("b", P.Axis("%"), ["up", "down"], [("a", [1, -2]), ("b", [3, 0])],
                           spread=[[0, 1], [0.5, 0]]),
            "log bars": P.bars("b", P.Axis("B", True), ["up"], [("a", [1e6]), ("b", [1e3])]),
            "histogram": P.histogram("h", torch.randn(500), range=(-1, 1)),
            "octaves": P.histogram("h", [0.0, 0.5, 1.5, -3.0], by="octave", range=(-2, 2), step=0.1, logarithmic=True),
            "matrices": P.matrices("m", [("W", W), ("again", W)]),
            "beside": P.beside(curve, P.matrices("m", [("W", W)]))}


@pytest.mark.parametrize("name", ["points", "logarithmic", "bars", "log bars", "histogram", "octaves", "matrices",
                                  "beside"])
def test_every_picture_is_sound_and_alone(name, tmp_path):
    picture = every()[name]
    root = ElementTree.fromstring(picture.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"<script|href|url\(|@import", picture.svg)
    assert "nan" not in picture.svg.lower().replace("nano", "")
    width, height = picture.size
    for rectangle in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(rectangle.get("height")) >= 0
        assert float(rectangle.get("width")) >= 0
    picture.save(tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text() == picture.svg == picture._repr_svg_()
    assert width > 0 < height
    with pytest.raises(FileError, match=r"must end in \.svg"):
        picture.save(tmp_path / "p.png")


def circles(picture: P.Picture) -> list[tuple[float, float]]:
    return [(float(c.get("cx")), float(c.get("cy"))) for c in
            ElementTree.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}circle") if c.get("r") == "3.5"]


def test_points_stand_in_proportion():
    (x0, y0), (x1, y1), (x2, y2) = circles(P.points("", *AXES, [P.Series("s", [0, 1, 4], [0, 2, 8])]))
    assert (x2 - x0) / (x1 - x0) == pytest.approx(4, rel=0.01)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(4, rel=0.01)
    assert y1 < y0, "up is less"


def test_what_an_axis_cannot_show_is_left_out():
    assert len(circles(P.points("", P.Axis("x", True), P.Axis("y"),
                                [P.Series("s", [0, 1, 10, float("nan")], [1, 2, 3, 4])]))) == 2


def heights(picture: P.Picture) -> list[float]:
    return [float(bar.get("height")) for bar in ElementTree.fromstring(picture.svg).iter(
        "{http://www.w3.org/2000/svg}rect") if bar.find("{http://www.w3.org/2000/svg}title") is not None]


def test_bars_are_as_high_as_their_numbers():
    a, b, c = heights(P.bars("", P.Axis("y"), ["a", "b", "c"], [("s", [1, 2, -3])]))
    assert b / a == pytest.approx(2, rel=0.02)
    assert c / a == pytest.approx(3, rel=0.02)


def test_a_histogram_counts():
    picture = P.histogram("h", [1.0] * 3 + [2.0], bins=2)
    a, b = heights(picture)
    assert a / b == pytest.approx(3, rel=0.01)
    assert "1 zeros" in P.histogram("h", [0.0, 1.0], by="octave").svg


def test_matrices_say_their_numbers():
    assert re.findall(r">([^<]*)</text>", P.matrices("m", [("W", W)]).svg) == ["m", "W", "2.09", "−0.98", "0.05",
                                                                              "−0.14"]
    assert "−0<" not in P.matrices("m", [("W", [[-0.001]])]).svg


@pytest.mark.parametrize("call", [
    lambda: P.bars("", P.Axis("y"), ["a"], [("s", [1, 2])]), lambda: P.bars("", P.Axis("y"), [], []),
    lambda: P.histogram("", []), lambda: P.histogram("", [float("nan")]), lambda: P.matrices("", [("v", [1, 2])]),
    lambda: P.matrices("", []), lambda: P.matrices("", [("big", np.zeros((17, 2)))]),
    lambda: P.table(["a"], [[1, 2]]), lambda: P.histogram("", [1.0], by="bit")])
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(OptionError):
        call()


def test_tables():
    assert not doctest.testmod(importlib.import_module("fewbits.plots.table")).failed
    text = str(P.table(["name", "n"], [["a", 1], ["b", None], ["c", 2.123456]]))
    assert text.splitlines() == ["name      n", "────  ─────", "a         1", "b", "c     2.123"]
