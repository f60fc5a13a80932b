"""Observers: running statistics of a tensor. Two halves of the data, merged in order, equal the whole."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from fewbits.errors import CalibrationError
from fewbits.numerics.block import Block
from fewbits.numerics.finite import not_finite


class Observer(ABC):
    """Running statistics of one tensor, per block, in memory that does not grow with the number of batches."""

    def __init__(self, block: Block):
        self.block = block
        self.count = 0
        """Elements seen."""

    def update(self, x: torch.Tensor) -> None:
        """Adds one tensor. Raises CalibrationError when it holds NaN or Inf, before anything is counted."""
        if x.numel() == 0:
            return
        x = x.detach()
        low, high = block_extremes(self.block, x)  # which NaN and infinities reach
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            bad = x.numel() - int(torch.isfinite(x).sum())
            raise CalibrationError(f"{bad} of {x.numel()} values are not finite (the first kind: {not_finite(x)})")
        self._take(x, low, high)
        self.count += x.numel()

    def merge(self, later: "Observer") -> None:
        """Adds the statistics of another observer, which come after this one's."""
        if type(later) is not type(self) or later.settings() != self.settings():
            raise CalibrationError(f"a {type(later).__name__} per {later.block} cannot be merged into "
                                   f"a {type(self).__name__} per {self.block} of other settings")
        if later.count:
            self._join(later)
            self.count += later.count

    def settings(self) -> tuple:
        """What two observers must share to be merged."""
        return (self.block,)

    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """(smallest, largest) per block, float64. Raises CalibrationError when nothing was seen."""
        if not self.count:
            raise CalibrationError("no value was seen")
        return self._extremes()

    @abstractmethod
    def _extremes(self) -> tuple[np.ndarray, np.ndarray]: ...

    @abstractmethod
    def _take(self, x: torch.Tensor, low: np.ndarray, high: np.ndarray) -> None:
        """Counts a finite tensor. low, high: its extremes per block, float64."""

    @abstractmethod
    def _join(self, later: "Observer") -> None: ...


class MinMax(Observer):
    """Smallest and largest value of each block."""

    def __init__(self, block: Block):
        super().__init__(block)
        self._low = self._high = np.zeros(0)

    def _extremes(self) -> tuple[np.ndarray, np.ndarray]:
        return self._low, self._high

    def _take(self, x: torch.Tensor, low: np.ndarray, high: np.ndarray) -> None:
        self._widen(low, high)

    def _join(self, later: Observer) -> None:
        self._widen(*later.extremes())

    def _widen(self, low: np.ndarray, high: np.ndarray) -> None:
        first = not self.count
        self._low = low if first else np.minimum(self._low, low)
        self._high = high if first else np.maximum(self._high, high)


def block_extremes(block: Block, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(smallest, largest) of one tensor, per block, float64."""
    values, axes = block.split(x)
    if len(axes) == values.ndim:  # in one pass
        low, high = values.aminmax()
    else:
        low, high = (values.amin(axes), values.amax(axes)) if axes else (values, values)
    return low.double().cpu().numpy(), high.double().cpu().numpy()
