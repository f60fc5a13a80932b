"""Observers: what a site has seen so far. Two halves of the data, merged in order, equal the whole."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from fewbits.errors import CalibrationError
from fewbits.numerics.block import Block
from fewbits.numerics.finite import not_finite


class Observer(ABC):
    """Running statistics of one site, per block of its tensor, in memory that no number of batches grows."""

    def __init__(self, block: Block):
        self.block = block
        self.count = 0
        """Elements seen."""

    def update(self, x: torch.Tensor) -> None:
        """Takes in one tensor. Raises CalibrationError when it holds NaN or Inf, before anything is counted."""
        if x.numel() == 0:
            return
        kind = not_finite(x)
        if kind:
            bad = x.numel() - int(torch.isfinite(x).sum())
            raise CalibrationError(f"{bad} of {x.numel()} values are not finite (the first kind: {kind})")
        self._take(x.detach())
        self.count += x.numel()

    def merge(self, later: "Observer") -> None:
        """Takes in what another observer saw after this one."""
        if type(later) is not type(self) or later.block != self.block:
            raise CalibrationError(f"a {type(later).__name__} per {later.block} cannot be merged into "
                                   f"a {type(self).__name__} per {self.block}")
        if later.count:
            self._join(later)
            self.count += later.count

    @abstractmethod
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) per block, float64. Raises CalibrationError when nothing was seen."""

    @abstractmethod
    def _take(self, x: torch.Tensor) -> None: ...

    @abstractmethod
    def _join(self, later: "Observer") -> None: ...


class MinMax(Observer):
    """Smallest and largest value of each block."""

    def __init__(self, block: Block):
        super().__init__(block)
        self._low = self._high = np.zeros(0)

    def range(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.count:
            raise CalibrationError("no value was seen")
        return self._low, self._high

    def _take(self, x: torch.Tensor) -> None:
        values, axes = self.block.split(x)
        low, high = (values.amin(axes), values.amax(axes)) if axes else (values, values)
        self._widen(low.double().cpu().numpy(), high.double().cpu().numpy())

    def _join(self, later: Observer) -> None:
        self._widen(*later.range())

    def _widen(self, low: np.ndarray, high: np.ndarray) -> None:
        first = not self.count
        self._low = low if first else np.minimum(self._low, low)
        self._high = high if first else np.maximum(self._high, high)


RANGE_RULES: dict[str, type[Observer]] = {"minmax": MinMax}
"""Range rules by the name a recipe uses."""
