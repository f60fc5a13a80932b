"""Sums of products cut into parts that fit a narrow accumulator (docs/numerics.md, eq. 23)."""

import numpy as np

from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.program.accumulator import centred_weight, interval


def parts(weight: Quantized, x: Encoding, bits: int) -> tuple[slice, ...] | None:
    """Longest runs of a dot product's terms whose every partial sum fits `bits`, for all channels at once.

    x: of what the weight is multiplied with. The terms are those of the weight [O, K], its axes behind the first made
    one. The bias is none of them: it is added in the accumulator. None when a single product does not fit.
    """
    low, high = interval(x)
    w = centred_weight(weight).astype(np.int64)
    least, most = np.minimum(w * low, w * high), np.maximum(w * low, w * high)
    limits = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if least.min(initial=0) < limits[0] or most.max(initial=0) > limits[1]:
        return None
    cuts, start = [], 0
    below, above = np.zeros(len(w), np.int64), np.zeros(len(w), np.int64)
    for k in range(w.shape[1]):
        below, above = below + least[:, k], above + most[:, k]
        if below.min() < limits[0] or above.max() > limits[1]:
            cuts.append(slice(start, k))
            start, below, above = k, least[:, k], most[:, k]
    return (*cuts, slice(start, w.shape[1]))
