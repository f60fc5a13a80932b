"""A run beside what was recorded of it before: the same on the same machine, and within chance on another."""

from collections.abc import Iterator, Sequence
from math import sqrt

from fewbits.reproduce.row import RowResult

COMPARED, DIFFERING = "codes compared", "codes differing"
_DEVIATIONS = 1.959964  # of a normal distribution: 95 %


def fault_of(result: RowResult) -> str:
    """A sentence where engines gave different codes, which no processor excuses; empty where none did."""
    differing = result.measured.get(DIFFERING, 0)
    if not differing:
        return ""
    return (f"{differing} of {result.measured.get(COMPARED, '?')} codes differ between engines on {result.machine}: "
            "a fault of fewbits, whatever the accuracies say")


def beside_earlier(result: RowResult, earlier: Sequence[RowResult]) -> Iterator[str]:
    """A line for each figure that is another than a record of the same seed has. earlier: those records.

    On the same processor and versions every difference is told: the same seed gives the same figures, unless the row or
    its recipe has changed since. On another one training rounds otherwise and goes its own way, so that accuracies
    compare by interval: 95 % of the difference of two shares of the same number of images, taken as independent.
    """
    for before in earlier:
        same = before.machine == result.machine
        for figure, value in result.measured.items():
            old = before.measured.get(figure)
            if not (isinstance(value, int | float) and isinstance(old, int | float)) or value == old:
                continue
            told = f"{figure}: {value:g}, recorded as {old:g}"
            if same:
                yield f"{told} with the same seed on the same machine: the row or its recipe has changed since"
            else:
                judged = _judged(figure, value, old, result)
                yield f"{told} on another machine ({before.machine.split(' (')[0]}){judged}"


def _judged(figure: str, value: float, old: float, result: RowResult) -> str:
    images = result.measured.get("test images")
    if figure in ("test images", COMPARED, DIFFERING) or not isinstance(images, int):
        return ""
    shares = value / 100, old / 100
    if not all(0 <= share <= 1 for share in shares):
        return ""
    margin = 100 * _DEVIATIONS * sqrt(sum(share * (1 - share) for share in shares) / images)
    within = abs(value - old) <= margin
    return (f": {'within' if within else 'BEYOND'} the 95 % interval of ±{margin:.2f} points of a difference on "
            f"{images} images")
