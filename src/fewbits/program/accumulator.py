"""How wide an accumulator must be, proved from the actual weights and code ranges."""

from dataclasses import dataclass

import numpy as np

from fewbits.numerics.encoding import Encoding, Quantized

_AT_ONCE = 2**20  # codes


@dataclass(frozen=True)
class Bound:
    """low ≤ every partial sum, in any order, bias included or not, ≤ high."""

    low: int
    high: int

    @property
    def bits(self) -> int:
        """Width of the smallest two's complement integer that holds the bound."""
        return max(self.high.bit_length(), (-self.low - 1).bit_length() if self.low < 0 else 0) + 1

    @property
    def magnitude(self) -> int:
        """Largest absolute value; below 2^24 float32 sums are exact in any order, below 2^53 float64 ones."""
        return max(self.high, -self.low)


def dot_bound(weight: Quantized, bias: np.ndarray | None, low: int, high: int) -> Bound:
    """Interval of the sums of products of a weight [O, ...] with numbers in [low, high], which holds 0, and of those
    sums with their bias [O] (eq. 9)."""
    positive, negative = _sums_by_sign(weight)
    lowest, highest = low * positive + high * negative, high * positive + low * negative
    if bias is not None:
        lowest, highest = (np.concatenate([bound, bound + bias]) for bound in (lowest, highest))
    return Bound(int(lowest.min()), int(highest.max()))


def _sums_by_sign(weight: Quantized) -> tuple[np.ndarray, np.ndarray]:
    """Of each output's numbers above 0, and below: int64 [O]. Some rows at a time: of a large weight 8 bytes a code are
    more than all else."""
    codes, zero = weight.codes.reshape(len(weight.codes), -1), weight.encoding.zero_point.reshape(-1, 1)
    step = max(1, _AT_ONCE // max(codes.shape[1], 1))
    found = []
    for first in range(0, len(codes), step):
        w = codes[first:first + step].astype(np.int64)
        if zero.any():
            w -= zero[first:first + step] if len(zero) > 1 else zero
        found.append((np.maximum(w, 0).sum(1), np.minimum(w, 0).sum(1)))
    positive, negative = zip(*found, strict=True)
    return np.concatenate(positive), np.concatenate(negative)


def centred_weight(weight: Quantized) -> np.ndarray:
    """Codes less their zero points, [O, K]."""
    w, zero = weight.codes.reshape(len(weight.codes), -1), weight.encoding.zero_point
    return w.astype(np.int64) - zero.reshape(-1, 1) if zero.any() else w


def interval(encoding: Encoding) -> tuple[int, int]:
    """Lowest and highest code less the zero point: at most 0, at least 0."""
    return encoding.format.low - int(encoding.zero_point), encoding.format.high - int(encoding.zero_point)

