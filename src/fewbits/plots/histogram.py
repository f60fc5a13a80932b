"""How often numbers occur: by value, or by powers of two of their magnitude."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import OptionError
from fewbits.options import options_checked
from fewbits.plots.axes import Axis, Field, number
from fewbits.plots.picture import Picture

_WITHIN, _BEYOND = "#1f5fa8", "#c4571a"


@options_checked
def histogram(title: str, values: npt.ArrayLike | torch.Tensor, *, by: Literal["value", "octave"] = "value",
              bins: int = 64, range: tuple[float, float] | None = None, step: float | None = None,
              marks: Sequence[tuple[float, str]] = (), logarithmic: bool = False) -> Picture:
    """A histogram with the range that a quantizer represents.

    values: any shape; by: `value`, or `octave`, one bar for the magnitudes from 2^e to 2^(e+1), where 0 is left out and
    counted in the title; range: the lowest and highest number represented, what lies beyond is of another colour;
    step: the distance of two codes: half of it is where magnitudes fall to 0; marks: (value, text) of vertical lines;
    logarithmic: the count. Raises OptionError for no values and for those that are not finite.
    """
    flat = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, np.float64).reshape(-1)
    if not flat.size or not np.isfinite(flat).all():
        raise OptionError("a histogram is of one finite number or more")
    if by == "octave":
        zeros = int((flat == 0).sum())
        magnitudes = np.log2(np.abs(flat[flat != 0]))
        first, last = (math.floor(magnitudes.min()), math.floor(magnitudes.max()) + 1) if magnitudes.size else (0, 1)
        counts, edges = np.histogram(magnitudes, last - first, (first, last))
        title = f"{title} ({zeros} zeros)" if zeros else title
        ends = [] if range is None else [math.log2(max(abs(range[0]), abs(range[1])))]
        beyond = [bool(ends) and left >= ends[0] for left in edges[:-1]]
        lines = [(end, "end of range") for end in ends] + ([] if step is None else [(math.log2(step / 2), "step / 2")])
        lines += [(math.log2(abs(at)), what) for at, what in marks if at]
        axis = Axis("log2 |x|")
    else:
        counts, edges = np.histogram(flat, bins)
        beyond = [range is not None and (right < range[0] or left > range[1])
                  for left, right in pairwise(edges)]
        lines = [] if range is None else [(range[0], number(range[0])), (range[1], number(range[1]))]
        lines += list(marks)
        axis = Axis("x")
    return counted(title, axis, counts, edges, beyond, lines, logarithmic)


def counted(title: str, x: Axis, counts: npt.ArrayLike, edges: npt.ArrayLike, beyond: Sequence[bool],
            lines: Sequence[tuple[float, str]] = (), logarithmic: bool = False) -> Picture:
    """A histogram that was counted elsewhere. counts: [n]; edges: [n + 1]; beyond: of each bar, whether it lies outside
    of the range; lines: (place, text) of vertical lines."""
    counts, edges = np.asarray(counts, np.float64), np.asarray(edges, np.float64)
    y = Axis("count", logarithmic)
    places = [*edges.tolist(), *(at for at, _ in lines)]
    low, high = min(places), max(places)
    margin = 0.03 * ((high - low) or 1.0)
    top = float(counts.max()) or 1.0
    field = Field(x, y, (low - margin, high + margin), (-0.3, math.log10(top) + 0.2) if logarithmic else (0, 1.1 * top))
    parts = [*field.open(title), *field.grid_x(), *field.grid_y(), *field.titles()]
    for (left, right), count, outside in zip(pairwise(edges), counts, beyond, strict=True):
        if count:
            a, b, up = field.across(left), field.across(right), field.up(float(count))
            parts.append(f'<rect x="{a:.2f}" y="{up:.1f}" width="{max(0.94 * (b - a), 0.5):.2f}" '
                         f'height="{field.floor - up:.1f}" fill="{_BEYOND if outside else _WITHIN}"><title>'
                         f"{escape(f'{number(left)} to {number(right)}')}: {int(count)}</title></rect>")
    parts += field.marks(lines)
    return Picture("\n".join([*parts, "</svg>", ""]))
