"""The staircase of a format as SVG: what each real number becomes."""

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.catalogue import Entry
from fewbits.numerics.formats import Int
from fewbits.plots.axes import Axis
from fewbits.plots.picture import Picture
from fewbits.plots.points import Series, points

_STEPS = 32  # shown at most: of a format with more numbers the staircase is drawn around 0


def staircase(entry: Entry) -> Picture:
    """Q(x) at scale 1, and x itself, over all numbers of the format or the 32 around the middle one.

    Raises EncodingError for formats of more than 20 bits, and of one number.
    """
    format = entry.format
    if format.bits > 20:
        raise EncodingError(f"{entry.name} has too many numbers for a picture: choose a format of 20 bits or fewer")
    unit = 2.0**-format.fraction if isinstance(format, Int) and format.fraction is not None else 1.0
    numbers = np.asarray(format.values(), np.float64) * unit
    if len(numbers) < 2:
        raise EncodingError(f"{entry.name} has one number only, and no steps")
    middle = int(np.argmin(np.abs(numbers)))
    first = max(0, min(middle - _STEPS // 2, len(numbers) - _STEPS))
    shown = numbers[first:first + _STEPS]
    margin = 0.12 * (shown[-1] - shown[0])
    low = shown[0] - (margin if first == 0 else 0.0)
    high = shown[-1] + (margin if first + _STEPS >= len(numbers) else 0.0)
    x = np.linspace(low, high, 2001)
    q = np.asarray(format.nearest((x / unit).astype(np.float64)), np.float64) * unit
    ends = [(float(shown[-1]), "largest")] if first + _STEPS >= len(numbers) else []
    ends += [(float(shown[0]), "lowest")] if first == 0 else []
    return points(f"{entry.name}: Q(x)", Axis("x"), Axis("Q(x)"),
                  [Series("x", x.tolist(), x.tolist(), line=True), Series("Q(x)", x.tolist(), q.tolist(), line=True)],
                  marks=ends, key="left")
