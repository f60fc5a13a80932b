"""Range rule for logits: keeps the order of the two largest values of a row."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fewbits.errors import CalibrationError, EncodingError
from fewbits.numerics.block import TENSOR, Block
from fewbits.ranges.observer import Observer
from fewbits.ranges.rule import Range, RangeRule, Target

_PER_OCTAVE = 16  # candidate scales between s and 2s
_SMALLEST, _LARGEST = -80, 80  # octaves


class TopTwo(Observer):
    """How often the largest value and its lead over the second fell where, along the last axis.

    Both are kept as logarithms in a table, so memory does not grow; which is an upper estimate of the largest
    and a lower one of the lead, by 2^(1/16) at most: what is promised for them holds for the values.
    """

    def __init__(self, block: Block):
        super().__init__(block)
        self.rows: dict[tuple[int, int], int] = {}
        """(bin of the second largest magnitude, bin of the lead) → rows; ties and single values left out."""
        self._low, self._high = math.inf, -math.inf

    def _extremes(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self._low), np.array(self._high)

    def _take(self, x: torch.Tensor, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        if x.ndim < 2 or x.shape[-1] < 2:
            raise CalibrationError("isotone needs rows of at least two values to order")
        top = x.reshape(-1, x.shape[-1]).double().topk(2, dim=1).values.cpu().numpy()
        lead = top[:, 0] - top[:, 1]
        distinct = lead > 0
        second = np.maximum(top[distinct, 1], 0.0)
        bins = np.stack([np.ceil(_octaves(second)), np.floor(_octaves(lead[distinct]))], 1).astype(np.int64)
        for pair, count in zip(*np.unique(bins, axis=0, return_counts=True), strict=True):
            key = (int(pair[0]), int(pair[1]))
            self.rows[key] = self.rows.get(key, 0) + int(count)

    def _join(self, later: Observer) -> None:
        assert isinstance(later, TopTwo)
        low, high = later.extremes()
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        for key, count in later.rows.items():
            self.rows[key] = self.rows.get(key, 0) + count


def _octaves(x: np.ndarray) -> np.ndarray:
    """log2 in sixteenths of an octave, held within the table."""
    with np.errstate(divide="ignore"):
        return (np.log2(x) * _PER_OCTAVE).clip(_SMALLEST * _PER_OCTAVE, _LARGEST * _PER_OCTAVE)


@dataclass(frozen=True)
class IsotoneRule(RangeRule):
    """`isotone`: min-max whose step is moved so that most rows keep their largest value the largest.

    A row is kept for certain when step < lead (two values further apart than a step never share a code) and
    the second largest is not clipped, second ≤ (q_max − zero point − 1)·step. Of the steps that keep most rows
    the one nearest to min-max is taken; min-max itself when none keeps more. For classifier outputs, per tensor.
    Source: PPQ (openppl-public), TorchIsotoneObserver, with sufficient instead of necessary conditions.
    """

    name = "isotone"
    even_grids_only = True

    def check(self, block: Block) -> None:
        if block != TENSOR:
            raise EncodingError(f"isotone per {block} has no meaning: values are ordered across blocks; "
                                "use it per tensor")

    def observer(self, block: Block) -> Observer:
        return TopTwo(block)

    def range(self, observer: Observer, target: Target) -> Range:
        assert isinstance(observer, TopTwo)
        low, high = observer.extremes()
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        if not observer.rows or high <= 0:
            return low, high
        pairs = np.array(list(observer.rows), np.float64)
        count = np.array(list(observer.rows.values()))
        second, lead = np.exp2(pairs[:, 0] / _PER_OCTAVE), np.exp2(pairs[:, 1] / _PER_OCTAVE)
        shares = np.exp2(-np.arange(8 * _PER_OCTAVE) / _PER_OCTAVE)  # of the largest value; 1 is min-max
        steps = shares * float(high) / target.format.high if target.symmetric else \
            (shares * float(high) - float(low)) / (target.format.high - target.format.low)
        reach = shares * float(high) - steps
        kept = ((steps[:, None] < lead) & (second <= reach[:, None])) @ count
        share = shares[int(kept.argmax())]
        if target.symmetric:  # the largest magnitude sets the step, so both ends move to it
            return np.maximum(low, -high * share) if target.format.signed else low, high * share
        return low, high * share
