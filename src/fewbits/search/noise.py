"""How much noise each tensor's candidates put into the outputs: measured one by one, then corrected by whole plans.

The noise of a plan is taken for the sum of what its tensors put in, as for independent errors that are small. What that
misses (clipping, noise that later layers amplify or absorb) is learned from plans that were measured whole: each tensor
gets a factor, by non-negative least squares of the relative errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewbits.search.space import Assignment

_ROUNDS = 500
_TOWARDS_ONE = 0.05  # weight of keeping a factor at 1, so that few plans do not decide many factors


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """noise: per group float64 [candidates], of the outputs' energy; factors: float64 [groups]."""

    noise: tuple[np.ndarray, ...]
    factors: np.ndarray

    @property
    def of_candidates(self) -> tuple[np.ndarray, ...]:
        """What each candidate of each group is predicted to put in."""
        return tuple(factor * each for factor, each in zip(self.factors, self.noise, strict=True))

    def predict(self, assignment: Assignment) -> float:
        """Predicted noise of a plan."""
        return float(sum(each[number] for each, number in zip(self.of_candidates, assignment, strict=True)))

    def corrected(self, plans: Sequence[Assignment], measured: Sequence[float]) -> "NoiseModel":
        """The model whose predictions fit measured plans best: min Σ (1 − prediction / measured)² + what keeps factors
        near 1, factors not negative; by multiplicative updates (Lee and Seung 2001)."""
        if not plans:
            return self
        target = np.maximum(np.array(measured, float), 1e-30)
        rows = np.array([[each[number] for each, number in zip(self.noise, plan, strict=True)] for plan in plans])
        rows = rows / target[:, None]
        share = np.sqrt(_TOWARDS_ONE * len(plans) / len(self.noise)) * np.maximum(rows.mean(0), 1e-12)
        a = np.concatenate([rows, np.diag(share)])
        b = np.concatenate([np.ones(len(plans)), share])
        wanted, square, factors = a.T @ b, a.T @ a, np.ones(len(self.noise))
        for _ in range(_ROUNDS):
            factors = factors * wanted / np.maximum(square @ factors, 1e-300)
        return NoiseModel(self.noise, factors)
