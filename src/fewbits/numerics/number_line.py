"""Number-line plot of a format as SVG: its numbers on a linear axis, and the positive ones on a logarithmic axis."""

from html import escape

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.catalogue import Entry
from fewbits.numerics.datasheet import exact
from fewbits.numerics.formats import Int
from fewbits.plots.picture import Picture

_WIDTH, _MARGIN = 1000, 40
_STROKE = '<line x1="{x:.2f}" y1="{top}" x2="{x:.2f}" y2="{bottom}"/>'
_TEXT = '<text x="{x:.2f}" y="{y}" text-anchor="{anchor}">{text}</text>'


def number_line(entry: Entry) -> Picture:
    """A picture of 1000 by 150 or 260 units; numbers that fall on one hundredth of a unit share a stroke.

    Raises EncodingError for formats of more than 20 bits.
    """
    format = entry.format
    if format.bits > 20:
        raise EncodingError(f"{entry.name} has too many numbers for a picture: choose a format of 20 bits or fewer")
    point = 0 if not isinstance(format, Int) or format.fraction is None else format.fraction
    numbers = format.values().astype(np.float64) * 2.0**-point
    positive = numbers[numbers > 0]
    logarithmic = len(positive) > 1 and positive[-1] / positive[0] >= 8
    height = 260 if logarithmic else 150
    title = f"{entry.name}: {len(numbers)} numbers from {exact(numbers[0])} to {exact(numbers[-1])}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
             'font-family="sans-serif" font-size="13" fill="#222">',
             f"<title>{escape(title)}</title>", '<rect width="100%" height="100%" fill="white"/>',
             _TEXT.format(x=_MARGIN, y=28, anchor="start", text=escape(title))]
    parts += _line(numbers, 50, [numbers[0], *([0.0] if numbers[0] < 0 < numbers[-1] else []), numbers[-1]],
                   [exact(numbers[0]), *(["0"] if numbers[0] < 0 < numbers[-1] else []), exact(numbers[-1])])
    if logarithmic:
        logs = np.log2(positive)
        parts.append(_TEXT.format(x=_MARGIN, y=150, anchor="start", text="above 0, logarithmic"))
        parts += _line(logs, 170, [logs[0], logs[-1]], [exact(positive[0]), exact(positive[-1])])
    return Picture("\n".join([*parts, "</svg>\n"]))


def _line(places: np.ndarray, top: int, marks: list[float], labels: list[str]) -> list[str]:
    """An axis at top + 30 with a stroke at each number and labels under some."""
    low, high = float(places[0]), float(places[-1])
    scale = (_WIDTH - 2 * _MARGIN) / (high - low)

    def x(place: float) -> float:
        return _MARGIN + (place - low) * scale

    strokes = np.unique(np.round(_MARGIN + (places - low) * scale, 2))
    thin = 0.5 if len(strokes) > 300 else 1.2
    parts = [f'<line x1="{_MARGIN}" y1="{top + 40}" x2="{_WIDTH - _MARGIN}" y2="{top + 40}" stroke="#888"/>',
             f'<g stroke="#1f5fa8" stroke-width="{thin}">',
             *(_STROKE.format(x=v, top=top, bottom=top + 40) for v in strokes), "</g>"]
    anchors = {0: "start", len(marks) - 1: "end"}
    for i, (mark, label) in enumerate(zip(marks, labels, strict=True)):
        anchor = anchors.get(i, "middle")
        if anchor == "middle":
            parts.append(f'<line x1="{x(mark):.2f}" y1="{top + 40}" x2="{x(mark):.2f}" y2="{top + 46}" stroke="#222"/>')
        parts.append(_TEXT.format(x=x(mark), y=top + 62, anchor=anchor, text=escape(label)))
    return parts
