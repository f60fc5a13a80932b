"""The interface of range rules: the statistics a rule needs, and the range it makes of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from fewbits.numerics.block import Block
from fewbits.numerics.formats import Format
from fewbits.options import options_checked
from fewbits.ranges.observer import MinMax, Observer
from fewbits.ranges.scale import Convention

Range = tuple[np.ndarray, np.ndarray]
"""(low, high) per block, float64."""


@options_checked
@dataclass(frozen=True)
class Target:
    """The format a range is for: rules that weigh rounding against clipping must know it."""

    format: Format
    symmetric: bool
    convention: Convention = "restricted"


class RangeRule(ABC):
    """A frozen dataclass whose fields are the rule's parameters, in the order a recipe writes them."""

    name: ClassVar[str]
    even_grids_only: ClassVar[bool] = False
    """Whether the rule reckons with evenly spaced codes, so that Floats and Tables have no use for it."""

    def check(self, block: Block) -> None:  # noqa: B027  (most rules serve every block)
        """Raises EncodingError when the rule has no meaning for such blocks."""

    @abstractmethod
    def observer(self, block: Block) -> Observer:
        """A fresh observer of what the rule needs."""

    @abstractmethod
    def range(self, observer: Observer, target: Target) -> Range:
        """The range for what was observed. Raises CalibrationError when it is not enough."""

    def __str__(self) -> str:
        """As a recipe writes it: `percentile(99.99)`; without parameters, the name."""
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return f"{self.name}({', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)})" if values \
            else self.name


@dataclass(frozen=True)
class MinMaxRule(RangeRule):
    """`minmax`: from the smallest value to the largest."""

    name = "minmax"

    def observer(self, block: Block) -> Observer:
        return MinMax(block)

    def range(self, observer: Observer, target: Target) -> Range:
        return observer.extremes()
