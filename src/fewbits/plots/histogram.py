"""How often numbers occur: by value, or by powers of two of their magnitude."""

import math
from collections.abc import Sequence
from html import escape
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import OptionError
from fewbits.options import options_checked
from fewbits.plots.axes import Axis, Field, number
from fewbits.plots.counted import Counted, Where, by_octave, by_value
from fewbits.plots.picture import Picture

_COLOURS: dict[Where, str] = {"within": "#1f5fa8", "beyond": "#c4571a", "below": "#7a7a7a"}


@options_checked
def histogram(title: str, values: npt.ArrayLike | torch.Tensor, *, by: Literal["value", "octave"] = "value",
              bins: int = 64, range: tuple[float, float] | None = None, step: float | None = None,
              marks: Sequence[tuple[float, str]] = (), logarithmic: bool = False) -> Picture:
    """A histogram with the range that a quantizer represents.

    values: any shape; by: `value`, or `octave`, one bar for the magnitudes from 2^e to 2^(e+1), where 0 is left out and
    counted in the title; range: the lowest and highest number represented, what lies beyond is of another colour;
    step: the distance of two codes: magnitudes below half of it become 0, and are grey; marks: (value, text) of further
    vertical lines; logarithmic: the count. Raises OptionError for no values and for those that are not finite.
    """
    flat = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, np.float64).reshape(-1)
    if not flat.size or not np.isfinite(flat).all():
        raise OptionError("a histogram is of one finite number or more")
    if by == "octave":
        zeros = int((flat == 0).sum())
        exponents, counts = np.unique(np.floor(np.log2(np.abs(flat[flat != 0]))), return_counts=True)
        found = by_octave(counts.tolist(), exponents.astype(int).tolist(),
                          None if range is None else max(abs(range[0]), abs(range[1])), step)
        title, axis = f"{title} ({zeros} zeros)" if zeros else title, Axis("log2 |x|")
        marks = [(math.log2(abs(at)), what) for at, what in marks if at]
        names = ("step / 2", "end of range")
    else:
        counts, edges = np.histogram(flat, bins)
        found = by_value(counts.tolist(), edges.tolist(), *(range or (None, None)))
        axis, names = Axis("x"), tuple(map(number, range or (0, 0)))
    return drawn(title, axis, found, names, marks, logarithmic)


def drawn(title: str, x: Axis, found: Counted, names: Sequence[str], marks: Sequence[tuple[float, str]] = (),
          logarithmic: bool = False) -> Picture:
    """A histogram that was counted elsewhere. names: of the two ends of its range; marks: (place, text) of further
    vertical lines; logarithmic: the count."""
    y = Axis("count", logarithmic)
    lines = [(end, name) for end, name in zip((found.start, found.end), names, strict=True) if end is not None]
    lines += marks
    places = [found.first, found.last, *(at for at, _ in lines)]
    low, high = min(places), max(places)
    margin = 0.03 * ((high - low) or 1.0)
    top = max((bar.count for bar in found.bars), default=1)
    field = Field(x, y, (low - margin, high + margin), (-0.3, math.log10(top) + 0.2) if logarithmic else (0, 1.1 * top))
    parts = [*field.open(title), *field.grid_x(), *field.grid_y(), *field.titles()]
    for bar in found.bars:
        a, b, up = field.across(bar.left), field.across(bar.right), field.up(float(bar.count))
        parts.append(f'<rect x="{a:.2f}" y="{up:.1f}" width="{max(0.94 * (b - a), 0.5):.2f}" '
                     f'height="{field.floor - up:.1f}" fill="{_COLOURS[bar.where]}"><title>'
                     f"{escape(f'{number(bar.left)} to {number(bar.right)}')}: {bar.count}</title></rect>")
    parts += field.marks(lines)
    return Picture("\n".join([*parts, "</svg>", ""]))
