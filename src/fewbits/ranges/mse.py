"""Range rule of least mean squared error, rounding and clipping together."""

from dataclasses import dataclass

import numpy as np

from fewbits.numerics import affine
from fewbits.numerics.formats import Format
from fewbits.ranges.histogram import Counts
from fewbits.ranges.histogram_rule import HistogramRule
from fewbits.ranges.rule import Target
from fewbits.ranges.scale import scale_and_zero_point

_SHARES = np.linspace(0.1, 1.0, 91)  # of the range seen: what is tried
_ROUNDS = 3  # an asymmetric range moves one end at a time
_FINE = 4  # steps narrower than this many bins: the error within a bin is that of even spread


def squared_error(counts: Counts, low: np.ndarray, high: np.ndarray, target: Target) -> np.ndarray:
    """Mean squared error of the block's values on the grids for ranges [low, high], float64 [k]. low, high: [k]."""
    # Among candidates for one block there is none whose zero range could take its scale from a neighbour.
    return error_on_grids(counts, *scale_and_zero_point(low, high, target.format, target.symmetric, target.convention),
                          target.format)


def error_on_grids(counts: Counts, scale: np.ndarray, zero_point: np.ndarray, format: Format) -> np.ndarray:
    """Mean squared error of the block's values on integer grids, float64 [k]. scale, zero_point: [k].

    Values stand at the middle of their bins; where the step is not at least four bins wide, what is not clipped has the
    error of values spread evenly over a step, step²/12. Of the values x that round to v, Σ(x − v)² = Σx² − 2vΣx + nv²,
    from prefix sums: O(codes) a grid, and O(bins) where there are fewer of those.
    """
    x, count = counts.centres(), counts.count
    scale, zero_point = scale[:, None], zero_point[:, None].astype(np.float64)
    lowest, highest = format.low, format.high
    coarse = (scale < _FINE * counts.width)[:, 0]
    error = np.empty(len(scale))
    sums = np.zeros((3, len(x) + 1))
    np.cumsum(count * np.stack([np.ones_like(x), x, x * x]), axis=1, out=sums[:, 1:])
    if coarse.any():
        low, high = ((end - zero_point[coarse]) * scale[coarse] for end in (lowest, highest))
        step = scale[coarse]
        below, above = np.searchsorted(x, low - step / 2), np.searchsorted(x, high + step / 2, "right")
        ends = np.zeros_like(below), np.full_like(above, len(x))
        error[coarse] = (_around(sums, ends[0], below, low) + (sums[0, above] - sums[0, below]) * step**2 / 12
                         + _around(sums, above, ends[1], high))[:, 0]
    fine = ~coarse
    if fine.any() and highest - lowest < len(x):
        codes = np.arange(lowest, highest + 1)
        edges = np.searchsorted(x, (codes[1:] - 0.5 - zero_point[fine]) * scale[fine])
        edges = np.pad(edges, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(x))))
        error[fine] = _around(sums, edges[:, :-1], edges[:, 1:], (codes - zero_point[fine]) * scale[fine]).sum(1)
    elif fine.any():
        code = affine.encode(x[None], scale[fine], zero_point[fine], lowest, highest)
        error[fine] = np.square((code - zero_point[fine]) * scale[fine] - x) @ count
    return error.clip(min=0) / counts.total


def _around(sums: np.ndarray, start: np.ndarray, end: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Σ(x − value)² of the values from one position to another. sums: prefix sums of 1, x and x²."""
    number, first, second = (row[end] - row[start] for row in sums)
    return second - 2 * value * first + value**2 * number


@dataclass(frozen=True)
class MseRule(HistogramRule):
    """`mse`: of 91 shares (10 % to all) of the range seen, the one with the least mean squared error.

    Symmetric grids shrink both ends together; asymmetric ones then each end by itself, in turns. Among
    equals the widest is taken. Source: Choukroun et al. 2019, arXiv:1902.06822.
    """

    name = "mse"
    even_grids_only = True

    def of_block(self, counts: Counts, target: Target) -> tuple[float, float]:
        low, high = min(counts.low, 0.0), max(counts.high, 0.0)
        if low == high:
            return low, high
        share = _best(counts, low * _SHARES, high * _SHARES, target)
        ends = [low * share, high * share]
        if not target.symmetric:
            for turn in range(2 * _ROUNDS):
                tried = [np.full(_SHARES.shape, end) for end in ends]
                tried[turn % 2] = (low, high)[turn % 2] * _SHARES
                ends[turn % 2] = (low, high)[turn % 2] * _best(counts, tried[0], tried[1], target)
        return ends[0], ends[1]


def _best(counts: Counts, low: np.ndarray, high: np.ndarray, target: Target) -> float:
    """The fraction of the range with the least error."""
    usable = (high > low)
    errors = np.full(low.shape, np.inf)
    errors[usable] = squared_error(counts, low[usable], high[usable], target)
    return float(_SHARES[::-1][errors[::-1].argmin()])
