"""What a histogram shows, before it is drawn: bars, and where each lies beside the range that codes represent."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Where = Literal["within", "beyond", "below"]
"""Of the range: at least in part, wholly beyond it, or of magnitudes wholly below half a step, which become 0."""


@dataclass(frozen=True)
class Bar:
    """left, right: along the axis; count: how many numbers lie there; where: beside the range."""

    left: float
    right: float
    count: int
    where: Where


@dataclass(frozen=True)
class Counted:
    """bars: those that are not empty; start, end: of the range along the axis, None where there is none or where it
    reaches no end; first, last: the ends of the axis."""

    bars: tuple[Bar, ...]
    start: float | None
    end: float | None
    first: float
    last: float


def by_value(counts: Iterable[int], edges: Sequence[float], low: float | None, high: float | None) -> Counted:
    """counts: [n]; edges: [n + 1]; low, high: the lowest and the highest number represented, None: not said."""
    lowest, highest = -math.inf if low is None else low, math.inf if high is None else high
    bars = tuple(Bar(left, right, int(count), "within" if left <= highest and right >= lowest else "beyond")
                 for (left, right), count in zip(pairwise(edges), counts, strict=False) if count)
    places = [edges[0], edges[-1], *(end for end in (low, high) if end is not None)]
    return Counted(bars, low, high, min(places), max(places))


def by_octave(counts: Iterable[int], exponents: Iterable[int], largest: float | None, step: float | None) -> Counted:
    """Along log2 |x|: how many magnitudes lie from 2^e to 2^(e+1). largest: the largest magnitude represented; step:
    the distance of two codes, below half of which magnitudes become 0; None: not said."""
    start = None if step is None else math.log2(step / 2)
    end = None if not largest else math.log2(largest)
    bars = tuple(Bar(e, e + 1, int(count), "below" if start is not None and e + 1 <= start else
                     "beyond" if end is not None and e > end else "within")
                 for e, count in zip(exponents, counts, strict=True) if count)
    places = [*(place for bar in bars for place in (bar.left, bar.right)),
              *([] if start is None else [math.floor(start)]), *([] if end is None else [math.ceil(end)])] or [0, 1]
    return Counted(bars, start, end, min(places), max(places))
