"""Whether a range rule cut off more than it gained: the error of each range beside that of min-max.

A rule that clips trades large errors of few values for smaller ones of all others. Where its data are not what it was
made for (a value far more frequent than its neighbours, a first batch unlike the others), it loses instead, and nothing
but the accuracy would tell.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fewbits.errors import ClippingWarning
from fewbits.numerics.formats import Int
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.ranges.histogram import Histogram
from fewbits.ranges.mse import error_on_grids
from fewbits.ranges.scale import encoding_for

WORSE = 3.0
"""dB above the squared error of the whole range, beyond which a tensor is reported."""
_SHOWN = 3


@dataclass(frozen=True)
class Clipped:
    """A tensor whose squared error lies `decibels` above that of the whole range."""

    site: str
    rule: str
    decibels: float

    def __str__(self) -> str:
        return f"{self.site!r} ({self.rule}, {self.decibels:.1f} dB)"


def clipped(quantizer: FakeQuantize) -> Clipped | None:
    """What a fitted quantizer loses by its range, where that is more than 3 dB; None too where its rule keeps no counts
    of what it saw, or its format is none of integers."""
    spec, observer = quantizer.spec, quantizer.observer
    if not isinstance(observer, Histogram) or not observer.blocks or not isinstance(spec.format, Int):
        return None
    shape = quantizer.encoding.scale.shape
    low, high = (np.array([getattr(counts, end) for counts in observer.blocks]).reshape(shape)
                 for end in ("low", "high"))
    grids = (quantizer.encoding, encoding_for(low, high, spec.format, spec.symmetric, spec.scale, spec.block))
    chosen, whole = (_error(observer, grid.scale, grid.zero_point, spec.format) for grid in grids)
    if chosen <= 0:
        return None
    worse = 10 * np.log10(chosen / max(whole, chosen * 1e-12))
    return Clipped(quantizer.site, spec.range, float(worse)) if worse > WORSE else None


def warn_of_clipping(quantizers: Iterable[FakeQuantize]) -> None:
    """One ClippingWarning for all of them, the worst first, where there is any."""
    found = [item for quantizer in quantizers if (item := clipped(quantizer)) is not None]
    if not found:
        return
    found.sort(key=lambda item: -item.decibels)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    warnings.warn(f"the range cuts off so much that the squared error is more than {WORSE:g} dB above that of min-max "
                  f"at {', '.join(map(str, found[:_SHOWN]))}{more}: give them the range minmax or mse, or look "
                  "for calibration batches unlike the others", ClippingWarning, stacklevel=3)


def _error(observer: Histogram, scale: np.ndarray, zero_point: np.ndarray, format: Int) -> float:
    """Squared error of all blocks together, in units of the data."""
    scales, zeros = (np.broadcast_to(part, observer.shape).ravel() for part in (scale, zero_point))
    return sum(float(error_on_grids(counts, scales[i:i + 1].astype(np.float64), zeros[i:i + 1], format)[0])
               * counts.total for i, counts in enumerate(observer.blocks))
