"""What of each tensor's error arrives at the outputs of a whole plan: it meets a signal that other tensors weakened.

A candidate alone moves the outputs in three ways: along themselves (it weakens them), by the same for every sample (a
shift), and by what differs from sample to sample (the rest). In a plan the first multiply, shifts add as vectors, which
reinforce each other or cancel, and rests add in power. What a tensor puts in is weakened by what the tensors behind it
take from the signal, and changed by what those before it took: where few bits are met everywhere, errors no longer add.

A factor of each tensor for each of these five is learned from plans that were measured whole, as are six exponents and
levels that all tensors share: the most probable ones, where their logarithms are normal about 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fewbits.search.space import Assignment

_FACTORS = 0.5  # standard deviation of the logarithms of factors, and of what all tensors share
_MEASURED = 0.1  # of a measured plan's logarithm of noise about the prediction
_STEPS = 150
_LEAST_GAIN = 0.01
_LEAST = 1e-30
_SHARED = 6  # levels of shifts and rests; exponents of what weakens them behind, and of what was weakened before


@dataclass(frozen=True, eq=False)
class Alone:
    """What each candidate does to the outputs of the finest ones, groups as data flows; energies and lengths in units
    of the float outputs'.

    gain: per group float64 [candidates], logarithm of what it leaves of the outputs; shift: per group [candidates,
    directions]; rest: per group [candidates], energy, infinite for what has no program. The noise of the finest
    candidates themselves is among their rests.
    """

    gain: tuple[np.ndarray, ...]
    shift: tuple[np.ndarray, ...]
    rest: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, noise: Sequence[np.ndarray], along: Sequence[np.ndarray], shift: Sequence[np.ndarray]) -> "Alone":
        """noise: of each candidate, of which `along` [candidates] lies along the outputs and `shift` [candidates,
        directions] is the same for all samples."""
        return cls(tuple(np.log(np.maximum(1 + each, _LEAST_GAIN)) for each in along), tuple(shift),
                   tuple(np.maximum(whole - part**2 - (vectors**2).sum(1), 0.0)
                         for whole, part, vectors in zip(noise, along, shift, strict=True)))


@dataclass(frozen=True, eq=False)
class Propagation:
    """alone: of the candidates; factors: float64 [5, groups], logarithms, of gains, shifts, rests, and of what weakens
    behind and before; shared: float64 [6]."""

    alone: Alone
    factors: torch.Tensor = field(repr=False)
    shared: torch.Tensor

    @classmethod
    def of(cls, alone: Alone) -> "Propagation":
        """As it is before any plan was measured."""
        return cls(alone, torch.zeros(5, len(alone.gain), dtype=torch.float64),
                   torch.zeros(_SHARED, dtype=torch.float64))

    def predict(self, plans: Sequence[Assignment]) -> np.ndarray:
        """Predicted noise of plans, float64."""
        with torch.no_grad():
            return _noise(*_taken(self.alone, plans), self.factors, self.shared).numpy()

    def corrected(self, plans: Sequence[Assignment], measured: Sequence[float]) -> "Propagation":
        """The most probable model, given what plans were measured to do."""
        if not plans:
            return self
        taken = _taken(self.alone, plans)
        target = torch.tensor(np.log(np.maximum(np.array(measured, float), _LEAST)))
        factors, shared = (each.clone().requires_grad_() for each in (self.factors, self.shared))
        found = torch.optim.LBFGS([factors, shared], max_iter=_STEPS, line_search_fn="strong_wolfe", history_size=20)

        def loss() -> torch.Tensor:
            found.zero_grad()
            error = torch.log(_noise(*taken, factors, shared)) - target
            total = (error.square().sum() / _MEASURED**2 + (factors.square().sum() + shared.square().sum())
                     / _FACTORS**2) / 2
            total.backward()
            return total

        found.step(loss)
        return Propagation(self.alone, factors.detach(), shared.detach())


def _taken(alone: Alone, plans: Sequence[Assignment]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gains [plans, groups], shifts [plans, groups, directions], rests [plans, groups] of the candidates of plans."""
    numbers = np.array(plans)
    gain, shift, rest = (torch.tensor(np.stack([each[numbers[:, at]] for at, each in enumerate(part)], 1))
                         for part in (alone.gain, alone.shift, alone.rest))
    return gain, shift, rest


def _noise(gain: torch.Tensor, shift: torch.Tensor, rest: torch.Tensor, factors: torch.Tensor,
           shared: torch.Tensor) -> torch.Tensor:
    """Noise of plans, [plans]: (1 − gain)² + |shift|² + rest."""
    gains, shifts, rests, behind, before = factors
    own = gain * torch.exp(gains)
    taken, met = own * torch.exp(behind), own * torch.exp(before)
    after = taken.sum(1, keepdim=True) - taken.cumsum(1)
    ahead = met.cumsum(1) - met
    weakened = torch.exp(shared[0] + shifts + torch.exp(shared[2]) * after + shared[3] * ahead)
    left = torch.exp(shared[1] + rests + 2 * torch.exp(shared[4]) * after + 2 * shared[5] * ahead)
    return ((1 - torch.exp(own.sum(1))).square() + (weakened[:, :, None] * shift).sum(1).square().sum(1)
            + (left * rest).sum(1))
