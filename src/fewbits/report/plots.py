"""Histograms as shapes on a page: where each bar stands, and what is said of it. The template only draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewbits.report.causes import Plot
from fewbits.report.text import MINUS, count, percent

WIDTH, HEIGHT = 320.0, 110.0  # of the bars' field, in units of the drawing
_ONE = 0.6  # height of a bar of a single value on a logarithmic scale, where ten times as many stand 1 higher
_LABEL = 40.0  # width that a label of an axis takes, in the same units
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")

Where = Literal["within", "beyond", "below"]
_Counted = tuple[float, float, int, str, Where]  # x, width, count, label, where


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
    low, high = min(plot.edges[0], plot.low), max(plot.edges[-1], plot.high)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return WIDTH * (value - low) / span

    bars: list[_Counted] = [
        (place(a), place(b) - place(a), n, f"{_number(a)} to {_number(b)}",
         "within" if a <= plot.high and b >= plot.low else "beyond")
        for a, b, n in zip(plot.edges, plot.edges[1:], plot.counts, strict=False)]
    return Panel(_bars(bars), place(plot.low), place(plot.high),
                 tuple((place(v), _number(v)) for v in _apart([low, 0.0, high], low, high)),
                 f"values, and the widest range, from {_number(plot.low)} to {_number(plot.high)}")


def log2_panel(plot: Plot) -> Panel:
    """Magnitudes by powers of two, as Ristretto's pages plot them; the range is from half a step to its end."""
    largest = max(abs(plot.low), abs(plot.high))
    half_step, top = math.log2(plot.step / 2), math.log2(largest)
    first = min([*plot.exponents, math.floor(half_step)])
    last = max([*(e + 1 for e in plot.exponents), math.ceil(top)])
    unit = WIDTH / (last - first)
    bars: list[_Counted] = [
        (unit * (e - first), unit, n, f"2{str(e).translate(_RAISED)} to 2{str(e + 1).translate(_RAISED)}",
         "below" if e + 1 <= half_step else "within" if e <= top else "beyond")
        for e, n in zip(plot.exponents, plot.log2_counts, strict=True)]
    every = max(1, math.ceil((last - first) * _LABEL / WIDTH))
    total = plot.zeros + sum(plot.log2_counts)
    return Panel(_bars(bars), unit * (half_step - first), unit * (top - first),
                 tuple((unit * (e - first), f"2{str(e).translate(_RAISED)}") for e in range(last, first - 1, -every)
                       if e in (first, last) or unit * (e - first) > _LABEL / 2),
                 "magnitudes; the widest range, from half a step to its end; "
                 f"{percent(plot.zeros / total, 1)} are 0, or too near to it to be counted here")


def _bars(items: Sequence[_Counted]) -> tuple[Bar, ...]:
    most = max((n for *_, n, _, _ in items), default=0) or 1
    tallest = math.log10(most) + _ONE
    return tuple(Bar(x, width, HEIGHT * n / most, HEIGHT * (math.log10(n) + _ONE) / tallest,
                     f"{label}: {count(n)} value{'s' if n != 1 else ''}", where)
                 for x, width, n, label, where in items if n)


def _apart(values: list[float], low: float, high: float) -> list[float]:
    """Those that stand far enough from both ends to be read, and the ends."""
    span = high - low
    return [v for v in values if v in (low, high) or min(v - low, high - v) > 0.12 * span]


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", MINUS)
