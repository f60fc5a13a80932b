"""Histogram observer whose bins widen with the data and never lose or move a count.

Bins lie on a lattice through 0, [i·w, (i+1)·w), whose width w = 2^k is the smallest at which everything seen
fits into `bins` of them. When data comes that does not fit, neighbours 2j and 2j+1 become bin j: exactly
the histogram that wider bins would have had from the start. So the state is a function of the data alone,
neither of its order nor of how it was cut into batches or shards, and merging is exact.

How fine it is: w < 2·(max − min)/(bins − 1), or w ≤ max|x|/2^29 where that is larger (a spread so small
beside its distance from 0 that float32 itself has few steps there). A percentile read from it is at most one
w above the order statistic it stands for.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from fewbits.kernels.histogram import count_into
from fewbits.numerics.block import Block
from fewbits.ranges.observer import Observer

BINS = 8192
_INDEX_BITS = 30
_SMALLEST_EXPONENT = -149  # of float32's smallest number: no finer lattice tells two floats apart


class Counts:
    """The histogram of one block: bins that hold something, ascending.

    exponent: k of the width 2^k; low, high: the exact extremes.
    """

    def __init__(self, bins: int):
        self.bins = bins
        self.exponent = _SMALLEST_EXPONENT
        self.low, self.high = math.inf, -math.inf
        self._index = self._count = np.zeros(0, np.int64)
        # What was counted last and is not among these yet: of every bin from a first one on. Kept only while more
        # values come at a time than it has bins, so that many small blocks take little memory.
        self._first, self._recent = 0, np.zeros(0, np.int64)

    @property
    def index(self) -> np.ndarray:
        """Lattice positions, int64 [n]."""
        self._settle()
        return self._index

    @property
    def count(self) -> np.ndarray:
        """Values in each bin, int64 [n], all > 0."""
        self._settle()
        return self._count

    @property
    def width(self) -> float:
        """Of a bin, in units of the data."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.count.sum())

    def take(self, values: torch.Tensor, low: float, high: float) -> None:
        """Counts values: any shape, float, all within [low, high], which some of them reach."""
        self._fit(low, high)
        self._make_room(self._position(self.low), self._position(self.high))
        row = values.reshape(-1).cpu()
        row = row if row.dtype == torch.float64 else row.float()
        count_into(self._recent, row.numpy(), self.exponent, self._first)
        if row.numel() < self._recent.size:
            self._settle()

    def join(self, other: "Counts") -> None:
        """Adds another block's counts."""
        self._fit(other.low, other.high)
        self._add(other.index >> (self.exponent - other.exponent), other.count)

    def centres(self) -> np.ndarray:
        """The middle of each bin, held within the extremes: float64 [n]."""
        return ((self.index + 0.5) * self.width).clip(self.low, self.high)

    def magnitudes(self, bins: int) -> tuple[np.ndarray, float]:
        """(counts, width): of |x| in at most `bins` bins from 0 up, the last one filled: float64 [n].

        A negative number on the edge between two bins counts to the lower one.
        """
        index = np.where(self.index < 0, -1 - self.index, self.index)
        largest, shift = int(index.max()), 0
        while largest >> shift >= bins:
            shift += 1
        return np.bincount(index >> shift, self.count), math.ldexp(1.0, self.exponent + shift)

    def _fit(self, low: float, high: float) -> None:
        """Widens the range to hold [low, high], and the bins to hold the range."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-self.low, self.high)
        exponent = max(self.exponent, math.frexp(largest)[1] - _INDEX_BITS if largest else _SMALLEST_EXPONENT)
        spread = self.high - self.low
        if spread > 0:  # no need to try widths that are certainly too small
            exponent = max(exponent, math.frexp(spread)[1] - 2 - self.bins.bit_length())
        while (math.floor(math.ldexp(self.high, -exponent)) - math.floor(math.ldexp(self.low, -exponent))
               >= self.bins):
            exponent += 1
        if exponent == self.exponent:
            return
        shift, self.exponent = min(exponent - self.exponent, 63), exponent
        index, count = self._index, self._count
        self._index = self._count = np.zeros(0, np.int64)
        self._add(index >> shift, count)
        if self._recent.size:
            first, self._first = self._first, self._first >> shift
            bins = np.arange(first, first + self._recent.size) >> shift
            # Summed in float64, exact below 2^53 values.
            self._recent = np.bincount(bins - self._first, self._recent).astype(np.int64)

    def _position(self, x: float) -> int:
        return math.floor(math.ldexp(x, -self.exponent))

    def _make_room(self, start: int, end: int) -> None:
        """Lets what is counted from now on lie within [start, end], which holds all bins so far."""
        if self._recent.size and start >= self._first and end < self._first + self._recent.size:
            return
        wider = np.zeros(end - start + 1, np.int64)
        if self._recent.size:
            wider[self._first - start:][:self._recent.size] = self._recent
        self._first, self._recent = start, wider

    def _settle(self) -> None:
        """Takes what was counted last in among the rest."""
        filled = np.flatnonzero(self._recent)
        first, recent, self._recent = self._first, self._recent, np.zeros(0, np.int64)
        self._add(filled + first, recent[filled])

    def _add(self, index: np.ndarray, count: np.ndarray) -> None:
        """index: [m], in any order, repeats allowed; the span of all of them is at most `bins`."""
        if not index.size:
            return
        index = np.concatenate([self._index, index])
        start = int(index.min())
        # Summed in float64, exact below 2^53 values.
        dense = np.bincount(index - start, np.concatenate([self._count, count]))
        filled = np.flatnonzero(dense)
        self._index, self._count = filled + start, dense[filled].astype(np.int64)


class Histogram(Observer):
    """One `Counts` for each block, in row-major order of the scales."""

    def __init__(self, block: Block, bins: int = BINS):
        super().__init__(block)
        self.bins = bins
        self.shape: tuple[int, ...] = ()
        self.blocks: list[Counts] = []

    def settings(self) -> tuple:
        return self.block, self.bins

    def range_by_block(self, choose: Callable[[Counts], tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) per block, float64, as `choose` finds them from a block's counts. Raises CalibrationError when
        nothing was seen."""
        self.extremes()
        return self._by_block(choose)

    def _by_block(self, choose: Callable[[Counts], tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
        ends = np.array([choose(counts) for counts in self.blocks], np.float64).reshape(-1, 2)
        return ends[:, 0].reshape(self.shape), ends[:, 1].reshape(self.shape)

    def _extremes(self) -> tuple[np.ndarray, np.ndarray]:
        return self._by_block(lambda counts: (counts.low, counts.high))

    def _take(self, x: torch.Tensor, low: np.ndarray, high: np.ndarray) -> None:
        self._make(low.shape)
        values, axes = self.block.split(x)
        kept = [axis for axis in range(values.ndim) if axis not in axes]
        rows = values.permute([*kept, *axes]).reshape(len(self.blocks), -1)
        for counts, row, least, most in zip(self.blocks, rows, low.ravel(), high.ravel(), strict=True):
            counts.take(row, float(least), float(most))

    def _join(self, later: Observer) -> None:
        assert isinstance(later, Histogram)
        self._make(later.shape)
        for counts, other in zip(self.blocks, later.blocks, strict=True):
            counts.join(other)

    def _make(self, shape: tuple[int, ...]) -> None:
        if not self.blocks:
            self.shape = shape
            self.blocks = [Counts(self.bins) for _ in range(math.prod(shape))]
