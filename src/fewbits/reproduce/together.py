"""Two networks on the same images, seed by seed, and over all seeds."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from fewbits.report.accuracy import Comparison
from fewbits.report.intervals import Interval, paired_difference

_GAINED, _LOST, _IMAGES = ", gained", ", lost", "test images"


def counted(what: str, seen: Comparison) -> dict[str, int]:
    """Figures of a record: images that only the second network, and that only the first, gets right. what: the two,
    such as `program less float`."""
    return {what + _GAINED: seen.gained, what + _LOST: seen.lost, _IMAGES: seen.samples}


def together(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, Interval]]:
    """(what, difference in points, its 95 % interval in points) of each two that all records counted: means over the
    seeds of the differences, and of the ends of their intervals, each exact image by image (`paired_difference`).

    Seeds are tested on the same images, and may err on the same ones; then all their images together tell no more than
    those of one, and an interval that counts them as separate would be too narrow.
    """
    for name in found[0]:
        what = name.removesuffix(_GAINED)
        if what == name or not all({name, what + _LOST, _IMAGES} <= one.keys() for one in found):
            continue
        counts = [(one[name], one[what + _LOST], one[_IMAGES]) for one in found]
        ends = [paired_difference(*each) for each in counts]
        yield what, 100 * mean((gained - lost) / images for gained, lost, images in counts), (
            100 * mean(low for low, _ in ends), 100 * mean(high for _, high in ends))
