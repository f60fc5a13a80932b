"""Range rules that look at a histogram of each block by itself."""

from abc import abstractmethod

from fewbits.numerics.block import Block
from fewbits.ranges.histogram import Counts, Histogram
from fewbits.ranges.observer import Observer
from fewbits.ranges.rule import Range, RangeRule, Target


class HistogramRule(RangeRule):
    """A rule that finds the range of a block from the counts of its values."""

    def observer(self, block: Block) -> Observer:
        return Histogram(block)

    def range(self, observer: Observer, target: Target) -> Range:
        assert isinstance(observer, Histogram)
        return observer.range_by_block(lambda counts: self.of_block(counts, target))

    @abstractmethod
    def of_block(self, counts: Counts, target: Target) -> tuple[float, float]:
        """(low, high) of one block. Raises CalibrationError when its values are not enough."""
