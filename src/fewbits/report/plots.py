"""Histograms as shapes on a page: where each bar stands, and what is said of it. The template only draws."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fewbits.plots.counted import Counted, Where, by_octave, by_value
from fewbits.report.causes import Plot
from fewbits.report.text import MINUS, count, percent

WIDTH, HEIGHT = 320.0, 110.0  # of the bars' field, in units of the drawing
_ONE = 0.6  # height of a bar of a single value on a logarithmic scale, where ten times as many stand 1 higher
_LABEL = 40.0  # width that a label of an axis takes, in the same units
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


@dataclass(frozen=True)
class Bar:
    """x, width: along the axis; linear, logarithmic: heights by count and by its logarithm; label: what it stands for;
    where: within the chosen range, beyond it, or below half a step."""

    x: float
    width: float
    linear: float
    logarithmic: float
    label: str
    where: Where


@dataclass(frozen=True)
class Panel:
    """One histogram. start, end: of the chosen range along the axis; ticks: (place, text); caption: what is shown."""

    bars: tuple[Bar, ...]
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    caption: str


def linear_panel(plot: Plot) -> Panel:
    """The values as they are."""
    found = by_value(plot.counts, plot.edges, plot.low, plot.high)
    low, high = found.first, found.last
    return _panel(found, _number, tuple((v, _number(v)) for v in _apart([low, 0.0, high], low, high)),
                  f"values, and the widest range, from {_number(plot.low)} to {_number(plot.high)}")


def log2_panel(plot: Plot) -> Panel:
    """Magnitudes by powers of two, as Ristretto's pages plot them; the range is from half a step to its end."""
    found = by_octave(plot.log2_counts, plot.exponents, max(abs(plot.low), abs(plot.high)), plot.step)
    first, last = int(found.first), int(found.last)
    unit = WIDTH / (last - first)
    every = max(1, math.ceil((last - first) * _LABEL / WIDTH))
    ticks = tuple((e, _power(e)) for e in range(last, first - 1, -every)
                  if e in (first, last) or unit * (e - first) > _LABEL / 2)
    total = plot.zeros + sum(plot.log2_counts)
    return _panel(found, _power, ticks,
                  "magnitudes; the widest range, from half a step to its end; "
                  f"{percent(plot.zeros / total, 1)} are 0, or too near to it to be counted here")


def _panel(found: Counted, name: Callable[[float], str], ticks: Iterable[tuple[float, str]], caption: str) -> Panel:
    span = (found.last - found.first) or 1.0

    def place(value: float) -> float:
        return WIDTH * (value - found.first) / span

    most = max((bar.count for bar in found.bars), default=1)
    tallest = math.log10(most) + _ONE
    bars = tuple(Bar(place(bar.left), place(bar.right) - place(bar.left), HEIGHT * bar.count / most,
                     HEIGHT * (math.log10(bar.count) + _ONE) / tallest,
                     f"{name(bar.left)} to {name(bar.right)}: {count(bar.count)} value{'s' if bar.count != 1 else ''}",
                     bar.where) for bar in found.bars)
    assert found.start is not None and found.end is not None, "a tensor's own plot has a range"
    return Panel(bars, place(found.start), place(found.end), tuple((place(at), text) for at, text in ticks), caption)


def _apart(values: list[float], low: float, high: float) -> list[float]:
    """Those that stand far enough from both ends to be read, and the ends."""
    span = high - low
    return [v for v in values if v in (low, high) or min(v - low, high - v) > 0.12 * span]


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", MINUS)


def _power(exponent: float) -> str:
    return f"2{str(int(exponent)).translate(_RAISED)}"
