"""The KL threshold of one histogram, with the curve it was chosen on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewbits.errors import EncodingError
from fewbits.numerics.given import array
from fewbits.options import arguments_checked
from fewbits.ranges.kl import Threshold, Variant, divergences, threshold


@dataclass(frozen=True)
class KlCurve:
    """chosen: the threshold of least divergence; bins: [n], the candidates; divergence: [n], of each, in nats."""

    chosen: Threshold
    bins: np.ndarray
    divergence: np.ndarray


@arguments_checked
def kl_threshold(histogram: npt.ArrayLike, levels: int = 128, *, variant: Variant = "slides") -> KlCurve:
    """Where to clip a histogram of magnitudes, so that `levels` levels change its distribution least.

    histogram: counts of |x| in bins of equal width, from 0 up; levels: 128 for 8 bits with a sign. variant: `slides`,
    as Migacz's slides have it, or `nvidia`, as NVIDIA's code (ranges/kl.py tells them apart).
    `.chosen.reach` times the width of a bin is the threshold. Raises EncodingError for counts that are none, and for
    fewer bins than levels.
    Source: S. Migacz, GTC 2017, s7310.

    >>> kl_threshold([10, 8, 6, 4, 2, 1, 0, 1], levels=4).chosen.bins
    5
    """
    counts = array(histogram).astype(np.float64)
    if counts.ndim != 1 or counts.size < levels or levels < 1:
        raise EncodingError(f"a histogram of shape {list(counts.shape)} has no threshold for {levels} levels: give one "
                            "axis with at least as many bins as levels")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.any()):
        raise EncodingError("a histogram holds counts: finite, not negative, not all 0")
    curve = divergences(counts, levels, variant)
    return KlCurve(threshold(counts, levels, variant), np.array(list(curve)), np.array(list(curve.values())))
