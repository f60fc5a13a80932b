"""Specs: how to find an encoding."""

from dataclasses import dataclass

from fewbits.errors import EncodingError
from fewbits.numerics.block import Block
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Format, Int, Levels
from fewbits.numerics.rounding import RULES
from fewbits.options import options_checked
from fewbits.ranges.dynamic import DynamicRule
from fewbits.ranges.observer import Observer
from fewbits.ranges.registry import parse_rule
from fewbits.ranges.rule import RangeRule, Target
from fewbits.ranges.scale import Convention, encoding_for

CALIBRATED_METHODS = ("current", "moving", "after-training")
"""Methods whose numbers, before anything is trained, are those that calibration finds."""


@options_checked
@dataclass(frozen=True)
class Spec:
    """What is wanted of a tensor.

    format, block: what its codes are and who shares a scale; symmetric: zero point 0; range: the range
    rule as a recipe writes it (ranges/registry.py); scale: convention of the symmetric scale (ranges/scale.py);
    integers: to what the numbers of a Float or Table are rounded, so that integer sums can be taken of them
    (numerics/integer_form.py); rounding: rule of numerics/rounding.py by name, where the format has none of its own;
    method: how the tensor learns, by a name of train/registry.py, None where it does not. Raises EncodingError for a
    rule that is none, or has no meaning for such blocks or formats.
    """

    format: Format
    symmetric: bool
    block: Block
    range: str = "minmax"
    scale: Convention = "restricted"
    integers: Int | None = None
    rounding: str = "half_even"
    method: str | None = None

    def __post_init__(self):
        if self.rounding not in RULES:
            raise EncodingError(f"no rounding is called {self.rounding!r}: choose one of {', '.join(RULES)}")
        if self.rounding != "half_even" and isinstance(self.format, Levels):
            raise EncodingError(f"{self.format} has thresholds of its own: it takes no rounding {self.rounding}")
        self.rule.check(self.block)
        if self.rule.even_grids_only and not isinstance(self.format, Int):
            raise EncodingError(f"range rule {self.range} reckons with evenly spaced codes, which {self.format} does "
                                "not have: use minmax or a percentile")

    @property
    def method_name(self) -> str | None:
        """The method without what stands in its brackets."""
        return None if self.method is None else self.method.partition("(")[0].strip()

    @property
    def is_dynamic(self) -> bool:
        """Whether the range is that of each run, so that there is nothing to find beforehand."""
        return isinstance(self.rule, DynamicRule)

    @property
    def rule(self) -> RangeRule:
        """The range rule."""
        return parse_rule(self.range)

    def observer(self) -> Observer:
        """A fresh observer for the range rule."""
        return self.rule.observer(self.block)

    def fit(self, observer: Observer) -> Encoding:
        """The encoding for what was observed. Raises CalibrationError or EncodingError."""
        low, high = self.rule.range(observer, Target(self.format, self.symmetric, self.scale))
        return encoding_for(low, high, self.format, self.symmetric, self.scale, self.block)

    def __str__(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        scale = f" {self.scale}" if self.symmetric and self.scale != "restricted" else ""
        rounded = f" as {self.integers}" if self.integers else ""
        rounded += f" {self.rounding}" if self.rounding != "half_even" else ""
        learned = f", trained by {self.method}" if self.method else ""
        return f"{self.format}{rounded} per {self.block}, {kind}{scale}, {self.range}{learned}"
