"""Bars side by side: one group for each thing compared, one bar in it for each series."""

import math
import textwrap
from collections.abc import Sequence
from html import escape

from fewbits.errors import OptionError
from fewbits.options import options_checked
from fewbits.plots.axes import LEFT, RIGHT, WIDTH, Axis, Field, beside_title, colours, legend, number, text
from fewbits.plots.picture import Picture


@options_checked
def bars(title: str, y: Axis, groups: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], *,
         spread: Sequence[Sequence[float]] = ()) -> Picture:
    """Bars from 0 up (on a logarithmic axis from below the smallest).

    groups: what stands under each group; series: a name and one number for each group; spread: for each series, half
    the length of the whisker of each bar. Raises OptionError where these do not fit each other.
    """
    if not series or not groups or any(len(values) != len(groups) for _, values in series) or (
            spread and [len(each) for each in spread] != [len(groups)] * len(series)):
        raise OptionError(f"each series has one number for each of the {len(groups)} groups, and spread as many")
    whiskers = spread or [[0.0] * len(groups)] * len(series)
    ends = [y.scaled(end) for (_, values), spans in zip(series, whiskers, strict=True)
            for value, span in zip(values, spans, strict=True) for end in (value - span, value + span) if y.shows(end)]
    low, high = (min(ends, default=0.0), max(ends, default=1.0))
    low, high = (low, high) if y.logarithmic else (min(low, 0.0), max(high, 0.0))
    names = [name for name, _ in series]
    inside = len(series) > 1 and not beside_title(names, title)
    span, key = (high - low) or 1.0, 0.05 * len(series) if inside else 0.0  # room for the names of the series
    low, high = (low - 0.1 * span if y.logarithmic or low < 0 else low), high + (0.1 + key) * span
    field = Field(Axis(""), y, (0.0, float(len(groups))), (low, high))
    bottom = field.floor if y.logarithmic else field.up(0.0)
    parts = [*field.open(title), *field.grid_y(), *field.titles()]
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = 0.8 * room / len(series)
    for place, ((name, values), colour) in enumerate(zip(series, colours(len(series)), strict=True)):
        for group, (value, span) in enumerate(zip(values, whiskers[place], strict=True)):
            if not y.shows(value):
                continue
            x, top = LEFT + room * (group + 0.1) + width * place, field.up(value)
            parts.append(f'<rect x="{x:.1f}" y="{min(top, bottom):.1f}" width="{width * 0.94:.1f}" '
                         f'height="{abs(bottom - top):.1f}" fill="{colour}"><title>{escape(name)}, '
                         f"{escape(groups[group])}: {number(value)}</title></rect>")
            middle = x + 0.47 * width
            highest = top
            if span:
                highest, lowest = (field.up(end) for end in (value + span, value - span))
                parts.append(f'<path d="M{middle:.1f} {highest:.1f}V{lowest:.1f}" stroke="#111111"/>')
            if width > 26:
                below = value < 0 and not y.logarithmic
                parts.append(text(middle, highest + 13 if below else highest - 4, number(_short(value)), "middle",
                                  "#111111", 10))
    for group, name in enumerate(groups):
        parts += _under(LEFT + room * (group + 0.5), field.floor + 15, name, room)
    if len(series) > 1:
        parts += legend(names, title)
    return Picture("\n".join([*parts, "</svg>", ""]))


def _short(value: float) -> float:
    """Three significant digits."""
    return value if value == 0 else round(value, max(0, 2 - math.floor(math.log10(abs(value)))))


def _under(x: float, y: float, name: str, room: float) -> list[str]:
    """The text under a group, in up to three lines."""
    lines = textwrap.wrap(name, max(6, int(room / 6.0))) or [""]
    return [text(x, y + 12 * place, line, "middle", size=11) for place, line in enumerate(lines[:3])]
