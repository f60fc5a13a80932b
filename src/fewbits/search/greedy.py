"""The greedy choice that other tools make: tensors narrowed one by one, the least sensitive first.

After AIMET's automatic mixed precision (sensitivity of each tensor alone, then candidates in that order until the
limit is met) and ModelOpt's sensitivity-based choice (sensitivity over what is saved). Unlike both it goes on past a
candidate that breaks the limit, so that it is at least as good.
"""

import numpy as np

from fewbits.search.costs import Cost
from fewbits.search.evaluations import Evaluations
from fewbits.search.limit import Limit
from fewbits.search.space import Assignment


def greedy(evaluations: Evaluations, cost: Cost, limit: Limit, alone: tuple[np.ndarray, ...]) -> Assignment:
    """From the finest candidates on, each (tensor, candidate) in the order of the noise it adds alone over what it
    saves, kept where the program still keeps the limit. alone: noise per group and candidate."""
    problem = evaluations.problem
    best = problem.space.finest
    steps = []
    for at, noise in enumerate(alone):
        for number in range(1, len(noise)):
            saved = cost.of(best) - cost.of(_with(best, at, number))
            if saved > 0:
                steps.append((max(noise[number] - noise[0], 0.0) / saved, at, number))
    for _, at, number in sorted(steps):
        tried = _with(best, at, number)
        if cost.of(tried) >= cost.of(best):
            continue
        if limit.excess(problem, evaluations.measured([tried])[0]) <= 0:
            best = tried
    return best


def _with(assignment: Assignment, at: int, number: int) -> Assignment:
    return (*assignment[:at], number, *assignment[at + 1:])
