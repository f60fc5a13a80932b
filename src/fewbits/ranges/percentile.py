"""Range rule that leaves out a stated share of the values."""

import math
from dataclasses import dataclass

import numpy as np

from fewbits.errors import CalibrationError, EncodingError
from fewbits.ranges.histogram import Counts
from fewbits.ranges.histogram_rule import HistogramRule
from fewbits.ranges.rule import Target


def percentile(counts: Counts, percent: float) -> float:
    """An upper bound, at most one bin wide, of the ⌈n·percent/100⌉-th smallest value; never beyond the largest."""
    rank = max(1, math.ceil(counts.total * percent / 100 - 1e-9))
    at = int(np.searchsorted(np.cumsum(counts.count), rank))
    return min(float(counts.index[at] + 1) * counts.width, counts.high)


def lower_percentile(counts: Counts, percent: float) -> float:
    """As `percentile`, counted from the largest down: a lower bound; never beyond the smallest."""
    rank = max(1, math.ceil(counts.total * percent / 100 - 1e-9))
    at = counts.index.size - 1 - int(np.searchsorted(np.cumsum(counts.count[::-1]), rank))
    return max(float(counts.index[at]) * counts.width, counts.low)


def magnitude_percentile(counts: Counts, percent: float) -> float:
    """The edge below which `percent` of all |x| lie, as NVIDIA's library reads it, at most one bin too high.

    Source: NVIDIA pytorch-quantization, `_compute_amax_percentile` (edge at searchsorted(cdf, p)).
    """
    magnitudes, width = counts.magnitudes(counts.bins)
    rank = max(1, math.ceil(counts.total * percent / 100 - 1e-9))
    at = int(np.searchsorted(np.cumsum(magnitudes), rank))
    return min((at + 1) * width, max(-counts.low, counts.high))


@dataclass(frozen=True)
class PercentileRule(HistogramRule):
    """`percentile(p)`: symmetric grids hold p percent of all magnitudes; asymmetric ones leave out 100 − p
    percent at each end. percentile(100) is min-max.

    Raises CalibrationError when there are so few values that less than one lies outside.
    """

    percent: float = 99.99
    name = "percentile"

    def __post_init__(self):
        if not 50 < self.percent <= 100:
            raise EncodingError(f"a percentile lies above 50 and at most at 100, not at {self.percent:g}")

    def of_block(self, counts: Counts, target: Target) -> tuple[float, float]:
        outside = counts.total * (1 - self.percent / 100)
        if self.percent < 100 and outside < 1 - 1e-6:
            needed = math.ceil(1 / (1 - self.percent / 100) - 1e-6)
            raise CalibrationError(f"{counts.total} values are too few for {self}, which needs at least {needed}: "
                                   "calibrate on more data, or choose a lower percentile or minmax")
        if target.symmetric:
            reach = magnitude_percentile(counts, self.percent)
            return max(counts.low, -reach), min(counts.high, reach)
        return lower_percentile(counts, self.percent), percentile(counts, self.percent)
