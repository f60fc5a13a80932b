"""Two networks on the same images, seed by seed, and the images of all seeds together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fewbits.report.accuracy import Comparison
from fewbits.report.intervals import Interval, paired_difference

_GAINED, _LOST, _IMAGES = ", gained", ", lost", "test images"


def counted(what: str, seen: Comparison) -> dict[str, int]:
    """Figures of a record: images that only the second network, and that only the first, gets right. what: the two,
    such as `program less float`."""
    return {what + _GAINED: seen.gained, what + _LOST: seen.lost, _IMAGES: seen.samples}


def together(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, Interval]]:
    """(what, difference in points, its 95 % interval in points) of each two that all records counted.

    The interval is exact image by image (`paired_difference`); the images of all seeds count as so many separate ones,
    so that it is of the method on these images, training's chance with it, and not of other test images.
    """
    for name in found[0]:
        what = name.removesuffix(_GAINED)
        if what == name or not all({name, what + _LOST, _IMAGES} <= one.keys() for one in found):
            continue
        gained, lost, images = (sum(one[key] for one in found) for key in (name, what + _LOST, _IMAGES))
        low, high = paired_difference(gained, lost, images)
        yield what, 100 * (gained - lost) / images, (100 * low, 100 * high)
