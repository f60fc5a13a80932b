"""What a plan must keep: how much accuracy, or how close to the float outputs."""

import warnings
from dataclasses import dataclass
from math import ceil, inf, isfinite

from fewbits.errors import SearchError, UndecidedWarning
from fewbits.search.problem import Measured, Problem

_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Limit:
    """One or more of these hold. drop: percentage points of top-1 accuracy that may be lost on the samples that decide;
    sqnr: dB that the outputs keep in the mean; flips: share of samples whose class may change, in percent. Raises
    SearchError for none, and for what none of them can be."""

    drop: float | None = None
    sqnr: float | None = None
    flips: float | None = None

    def __post_init__(self):
        if self.drop is None and self.sqnr is None and self.flips is None:
            raise SearchError("a search needs a limit: how many points may be lost (--max-drop), how many dB are kept "
                              "(--min-sqnr), or which share of classes may change (--max-flips)")
        for value, least, most, says in ((self.drop, 0.0, 100.0, "the points that may be lost are between 0 and 100"),
                                         (self.sqnr, -inf, inf, "the dB to keep are a number"),
                                         (self.flips, 0.0, 100.0, "the classes that may change are 0 to 100 percent")):
            if value is not None and not (isfinite(value) and least <= value <= most):
                raise SearchError(f"{says}, not {value:g}")

    def check(self, problem: Problem) -> None:
        """Raises SearchError for a drop without labels."""
        if self.drop is not None and problem.float_right is None:
            raise SearchError("a limit on accuracy needs labels, and the samples have none: limit the dB or flips")

    def excess(self, problem: Problem, measured: Measured) -> float:
        """How far what was measured is beyond the limit, 0 or less where it keeps it: each part in its own unit, the
        largest counts. Raises SearchError as `check` does."""
        beyond = []
        if self.drop is not None:
            self.check(problem)
            lost = (problem.float_right or 0) - (measured.right or 0)
            beyond.append(100 * lost / problem.samples - self.drop)
        if self.sqnr is not None:
            beyond.append(self.sqnr - measured.sqnr)
        if self.flips is not None:
            beyond.append(100 * measured.flip_rate - self.flips)
        return max(beyond)

    def warn_if_undecided(self, problem: Problem) -> None:
        """Warns where so few samples cannot tell the allowed drop from none: its 95 % interval is wider than the drop.

        The difference of two accuracies on the same n samples, of which a share d changes sides, has a standard error
        of √(d / n); d is taken for twice the share that the float network gets wrong, at least 1 %.
        """
        if self.drop is None or problem.float_right is None or self.drop <= 0:
            return
        changing = max(2 * (1 - problem.float_right / problem.samples), 0.01)
        needed = ceil(changing * (_Z / (self.drop / 100)) ** 2)
        if needed > problem.samples:
            warnings.warn(f"{problem.samples} samples cannot tell a drop of {self.drop:g} points from none: the 95 % "
                          f"interval is ±{100 * _Z * (changing / problem.samples) ** 0.5:.2g} points; it takes "
                          f"{needed} samples", UndecidedWarning, stacklevel=3)

    def __str__(self) -> str:
        parts = [(self.drop, "at most {:g} points lost"), (self.sqnr, "at least {:g} dB"),
                 (self.flips, "at most {:g} % of classes changed")]
        return ", ".join(text.format(value) for value, text in parts if value is not None)
