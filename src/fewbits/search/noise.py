"""How much noise each tensor's candidates put into the outputs: measured one by one, then corrected by whole plans.

The noise of a plan is a power of the sum of what its tensors put in: the sum itself (power 1) as long as errors are
small and independent. What that misses is learned from plans that were measured whole: a factor for each tensor
(clipping, noise that later layers amplify or absorb), and the power (errors that saturate). Both are the most probable
ones, where logarithms of factors are normal about 0, those of measurements about the prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fewbits.search.space import Assignment

_ROUNDS = 30
_FACTORS = 0.5  # standard deviation of a factor's logarithm, before anything was measured
_POWERS = 0.3  # of the power, about 1
_CLOSEST, _FIRST = 0.05, 0.2  # of a measurement's logarithm: at least, and before it is known
_STEP = 0.5  # of a factor's logarithm in one round
_LEAST = 1e-30


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """noise: per group float64 [candidates], of the outputs' energy, infinite for what has no program; factors: float64
    [groups]; level, power: a plan's noise is exp(level) · sum ** power."""

    noise: tuple[np.ndarray, ...]
    factors: np.ndarray = field(default_factory=lambda: np.ones(0))
    level: float = 0.0
    power: float = 1.0

    @classmethod
    def of(cls, noise: Sequence[np.ndarray]) -> "NoiseModel":
        """The plain sum."""
        return cls(tuple(noise), np.ones(len(noise)))

    @cached_property
    def of_candidates(self) -> tuple[np.ndarray, ...]:
        """What each candidate of each group is predicted to put in: terms of the sum."""
        return tuple(factor * each for factor, each in zip(self.factors, self.noise, strict=True))

    def sum(self, assignment: Assignment) -> float:
        """What a plan's tensors put in together."""
        return float(sum(each[number] for each, number in zip(self.of_candidates, assignment, strict=True)))

    def sum_for(self, noise: float) -> float:
        """The sum of which a noise is predicted."""
        return float(np.exp((np.log(noise) - self.level) / self.power))

    def predict(self, assignment: Assignment) -> float:
        """Predicted noise of a plan."""
        return float(np.exp(self.level) * max(self.sum(assignment), _LEAST) ** self.power)

    def corrected(self, plans: Sequence[Assignment], measured: Sequence[float]) -> "NoiseModel":
        """The most probable model, given what plans were measured to do: by Gauss and Newton's method."""
        if not plans:
            return self
        target = np.log(np.maximum(np.array(measured, float), _LEAST))
        terms = np.array([[each[number] for each, number in zip(self.noise, plan, strict=True)] for plan in plans])
        terms = np.maximum(terms, _LEAST)
        logs, line, spread = np.zeros(len(self.noise)), np.array([0.0, 1.0]), _FIRST
        prior = np.array([[0.0, 0.0], [0.0, _POWERS**-2]])
        for _ in range(_ROUNDS):
            parts = terms * np.exp(logs)
            total = parts.sum(1)
            known = np.column_stack([np.ones(len(plans)), np.log(total)])
            line = np.linalg.solve(known.T @ known / spread**2 + prior,
                                   known.T @ target / spread**2 + prior @ np.array([0.0, 1.0]))
            rest = target - known @ line
            spread = max(float(np.sqrt(np.mean(rest**2))), _CLOSEST)
            slopes = line[1] * parts / total[:, None]
            step = np.linalg.solve(slopes.T @ slopes / spread**2 + np.eye(len(logs)) / _FACTORS**2,
                                   slopes.T @ rest / spread**2 - logs / _FACTORS**2)
            logs = logs + np.clip(step, -_STEP, _STEP)
        return NoiseModel(self.noise, np.exp(logs), float(line[0]), float(line[1]))
