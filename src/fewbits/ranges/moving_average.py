"""Moving average of the batches' extremes."""

from dataclasses import dataclass

import numpy as np
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.block import Block
from fewbits.ranges.histogram import Histogram
from fewbits.ranges.observer import Observer
from fewbits.ranges.rule import Range, RangeRule, Target

_BINS = 1024  # enough to tell what a range cuts off


class MovingAverage(Histogram):
    """e ← momentum·e + (1 − momentum)·extreme of the batch, starting at the first batch's. Counts the values as
    well, so that what this range cuts off can be told.

    After n batches e = momentum^(n−1)·first + rest; keeping `first` and `rest` apart is what lets shards
    observed separately be merged in order: the later shard's `first` then joins with weight 1 − momentum.
    """

    def __init__(self, block: Block, momentum: float):
        super().__init__(block, _BINS)
        self.momentum = momentum
        self._batches = 0
        self._first = self._rest = np.zeros(0)  # [2, ...]: low, high

    def settings(self) -> tuple:
        return self.block, self.momentum

    def _extremes(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.momentum ** (self._batches - 1) * self._first + self._rest
        return low, high

    def _take(self, x: torch.Tensor, low: np.ndarray, high: np.ndarray) -> None:
        super()._take(x, low, high)
        extremes = np.stack((low, high))
        self._append(1, extremes, np.zeros_like(extremes))

    def _join(self, later: Observer) -> None:
        assert isinstance(later, MovingAverage)
        super()._join(later)
        self._append(later._batches, later._first, later._rest)

    def _append(self, batches: int, first: np.ndarray, rest: np.ndarray) -> None:
        if not self._batches:
            self._first, self._rest = first, rest
        else:
            decay = self.momentum ** (batches - 1)
            self._rest = decay * (self.momentum * self._rest + (1 - self.momentum) * first) + rest
        self._batches += batches


@dataclass(frozen=True)
class MovingAverageRule(RangeRule):
    """`moving_average(momentum)`: of each batch's min and max. Depends on the order of the batches.

    momentum: in [0, 1). Source: Jacob et al. 2018, arXiv:1712.05877, §3.1; PyTorch's observers use 0.99.
    """

    momentum: float = 0.9
    name = "moving_average"

    def __post_init__(self):
        if not 0 <= self.momentum < 1:
            raise EncodingError(f"a momentum lies in [0, 1), not at {self.momentum:g}")

    def observer(self, block: Block) -> Observer:
        return MovingAverage(block, self.momentum)

    def range(self, observer: Observer, target: Target) -> Range:
        return observer.extremes()
