"""Points on two axes, joined or not: fronts of plans, curves of training, the staircase of a quantizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from fewbits.options import options_checked
from fewbits.plots.axes import RIGHT, WIDTH, Axis, Field, colours, legend, number, reach, text
from fewbits.plots.picture import Picture

_DOTS = 60  # points that are joined and more than these are a line without dots


@dataclass(frozen=True)
class Series:
    """Points of one kind. labels: beside each point, '' for none; line: whether they are joined in their order."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()
    line: bool = False


@options_checked
def points(title: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[tuple[float, str]] = (), *,
           key: Literal["right", "left"] = "right") -> Picture:
    """Points, and the lines between them.

    marks: (x, text) of vertical lines, such as the step at which something was switched on; key: where the names of the
    series stand, if there are several. Points that are not finite, or not above 0 on a logarithmic axis, are left out.
    """
    shown = [[(a, b, label) for a, b, label in zip(one.x, one.y, [*one.labels, *[""] * len(one.x)], strict=False)
              if x.shows(a) and y.shows(b)] for one in series]
    every = [point for some in shown for point in some]
    field = Field(x, y, reach([x.scaled(a) for a, _, _ in every] + [x.scaled(at) for at, _ in marks if x.shows(at)]),
                  reach([y.scaled(b) for _, b, _ in every]))
    parts = [*field.open(title), *field.grid_x(), *field.grid_y(), *field.titles()]
    for colour, one, some in zip(colours(len(series)), series, shown, strict=True):
        if one.line and len(some) > 1:
            path = "L".join(f"{field.across(a):.1f} {field.up(b):.1f}" for a, b, _ in some)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if not one.line or len(some) <= _DOTS:
            for a, b, label in some:
                parts.append(f'<circle cx="{field.across(a):.1f}" cy="{field.up(b):.1f}" r="3.5" fill="{colour}">'
                             f"<title>{escape(label or one.name)}: {number(a)}, {number(b)}</title></circle>")
        for a, b, label in some:
            if label:
                right = field.across(a) + 6 * len(label) > WIDTH - RIGHT
                parts.append(text(field.across(a) + (-6 if right else 6), field.up(b) - 5, label,
                                  "end" if right else "start", colour, 10))
    parts += field.marks(marks)
    if len(series) > 1:
        parts += legend([one.name for one in series], title, key == "left")
    return Picture("\n".join([*parts, "</svg>", ""]))
