"""Histograms as shapes: bars stand where their values lie, and the chosen range where the grid ends."""

import math

import pytest

from fewbits.report.causes import Plot
from fewbits.report.plots import HEIGHT, WIDTH, linear_panel, log2_panel

PLOT = Plot(edges=(-2.0, -1.0, 0.0, 1.0, 2.0), counts=(1, 0, 100, 10), exponents=(-4, -1, 0), log2_counts=(3, 50, 57),
            zeros=1, low=-0.9, high=3.0, step=0.5)


def test_linear():
    panel = linear_panel(PLOT)  # the axis runs from -2 to 3
    unit = WIDTH / 5
    assert [bar.x for bar in panel.bars] == pytest.approx([0, 2 * unit, 3 * unit])
    assert [bar.width for bar in panel.bars] == pytest.approx([unit] * 3)
    assert [bar.linear for bar in panel.bars] == pytest.approx([HEIGHT / 100, HEIGHT, HEIGHT / 10])
    assert panel.bars[1].logarithmic == pytest.approx(HEIGHT)
    assert panel.bars[2].logarithmic - panel.bars[0].logarithmic == pytest.approx(HEIGHT / 2.6)
    assert [bar.where for bar in panel.bars] == ["beyond", "within", "within"]
    assert (panel.start, panel.end) == pytest.approx((1.1 * unit, WIDTH))
    assert panel.bars[0].label == "−2 to −1: 1 value"
    assert [text for _, text in panel.ticks] == ["−2", "0", "3"]


def test_log2():
    panel = log2_panel(PLOT)  # from 2^-4 to 2^2, half a step is 2^-2
    unit = WIDTH / 6
    assert [bar.x for bar in panel.bars] == pytest.approx([0, 3 * unit, 4 * unit])
    assert [bar.where for bar in panel.bars] == ["below", "within", "within"]
    assert (panel.start, panel.end) == pytest.approx((2 * unit, unit * (4 + math.log2(3))))
    assert panel.bars[1].label == "2⁻¹ to 2⁰: 50 values"
    assert "0.9" in panel.caption


def test_a_constant_of_zeros():
    flat = Plot((0.0, 0.0), (7,), (), (), 7, 0.0, 1.0, 1.0)
    assert len(linear_panel(flat).bars) == 1
    assert log2_panel(flat).bars == ()
