"""Small matrices as coloured squares with their numbers, one beside the other: before and after."""

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from fewbits.errors import OptionError
from fewbits.plots.axes import BLACK, text
from fewbits.plots.picture import Picture

_CELL, _GAP, _HEAD = 58, 28, 30
_LOW, _MIDDLE, _HIGH = (196, 87, 26), (255, 255, 255), (31, 95, 168)


def matrices(title: str, named: Sequence[tuple[str, npt.ArrayLike]], digits: int = 2) -> Picture:
    """Matrices, each under its name; colours by its own largest magnitude, white for 0.

    named: (name, [rows, columns]) of at most 16 rows and columns. Raises OptionError for others.
    """
    arrays = [(name, np.asarray(matrix, np.float64)) for name, matrix in named]
    if not arrays or any(each.ndim != 2 or not each.size or max(each.shape) > 16 for _, each in arrays):
        raise OptionError("matrices are drawn that have two axes and at most 16 rows and columns")
    width = sum(_CELL * each.shape[1] + _GAP for _, each in arrays) + _GAP
    height = 2 * _HEAD + _CELL * max(len(each) for _, each in arrays) + 16
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
             f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
             f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
             text(_GAP, 20, title, "start", BLACK, 14)]
    left = float(_GAP)
    for name, matrix in arrays:
        parts.append(text(left, 2 * _HEAD - 10, name, "start", BLACK, 12))
        reach = float(np.abs(matrix).max()) or 1.0
        for row, numbers in enumerate(matrix):
            for column, value in enumerate(numbers):
                x, y = left + _CELL * column, 2 * _HEAD + _CELL * row
                shade = float(value) / reach
                parts.append(f'<rect x="{x:g}" y="{y:g}" width="{_CELL - 2}" height="{_CELL - 2}" '
                             f'fill="{_colour(shade)}" stroke="#cccccc"/>')
                parts.append(text(x + _CELL / 2 - 1, y + _CELL / 2 + 4, _written(value, digits), "middle",
                                  "#ffffff" if abs(shade) > 0.6 else BLACK))
        left += _CELL * matrix.shape[1] + _GAP
    return Picture("\n".join([*parts, "</svg>", ""]))


def _written(value: float, digits: int) -> str:
    rounded = f"{value:.{digits}f}"
    return (rounded.rstrip("0").rstrip(".") if digits else rounded).replace("-0", "0" if float(rounded) == 0 else "-0"
                                                                             ).replace("-", "\u2212")


def _colour(shade: float) -> str:
    """From the colour of −1 over white at 0 to that of 1."""
    end = _HIGH if shade > 0 else _LOW
    return "#" + "".join(f"{round(a + (b - a) * min(abs(shade), 1.0)):02x}" for a, b in zip(_MIDDLE, end, strict=True))
