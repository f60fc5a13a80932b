"""The best assignment under a model of noise and cost, exactly: a mixed integer linear program, solved by HiGHS.

One binary variable per group and candidate; a pair of groups whose costs multiply (bit operations) has one per pair of
candidates, tied to both. Source of the solver: Huangfu and Hall 2018, Math. Prog. Comp. 10, 119-142 (`highspy`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbits.errors import SearchError
from fewbits.search.costs import Cost
from fewbits.search.space import Assignment


@dataclass(frozen=True)
class Solution:
    """assignment; value: of what was minimised; bound: that no assignment goes below; equal where it is proved best."""

    assignment: Assignment
    value: float
    bound: float


def solve(noise: Sequence[np.ndarray], minimize: Cost | None, most_noise: float | None,
          limits: Sequence[tuple[Cost, float]] = (), seconds: float = 60.0) -> Solution | None:
    """The assignment of least cost (of least noise, where `minimize` is None) whose noise and costs stay within limits;
    None where there is none. noise: predicted, per group and candidate,
    infinite for what may not be chosen. Raises SearchError where highspy is missing."""
    try:
        import highspy
    except ImportError:
        raise SearchError("the exact search needs the package highspy: pip install 'fewbits[search]'") from None
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("random_seed", 0)
    solver.setOptionValue("time_limit", seconds)
    solver.setOptionValue("mip_rel_gap", 0.0)
    chosen: list[list[Any]] = [[solver.addVariable(lb=0, ub=float(np.isfinite(value)),
                                                   type=highspy.HighsVarType.kInteger) for value in each]
                               for each in noise]
    noise = [np.where(np.isfinite(each), each, 0.0) for each in noise]
    for variables in chosen:
        one: Any = sum(variables)
        solver.addConstr(one == 1)
    made: dict[tuple[int, int], list[list[Any]]] = {}

    def expression(cost: Cost) -> Any:
        total: Any = cost.constant
        for group, values in cost.linear.items():
            total = total + sum(float(value) * variable for value, variable in zip(values, chosen[group], strict=True))
        for (g, h), values in cost.pairs.items():
            if (g, h) not in made:
                made[g, h] = _pair(solver, chosen[g], chosen[h])
            total = total + sum(float(values[c, d]) * made[g, h][c][d] for c in range(values.shape[0])
                                for d in range(values.shape[1]))
        return total

    # Noise spans many orders of magnitude: reckoned with in units of its limit, or of its largest.
    scale = 1.0
    unit = most_noise if most_noise else max(float(each.max()) for each in noise) or 1.0
    noise_cost = Cost(0.0, {group: each / unit for group, each in enumerate(noise)})
    if most_noise is not None:
        solver.addConstr(expression(noise_cost) <= 1.0)
    for cost, most in limits:
        for peak in cost.peaks or (cost,):
            solver.addConstr(expression(_scaled(peak, most)) <= 1.0)
    aim = noise_cost if minimize is None else minimize
    if aim.peaks:
        top = solver.addVariable(lb=0.0)
        scale = max(1.0, max(sum(float(each.max()) for each in peak.linear.values()) for peak in aim.peaks))
        for peak in aim.peaks:
            solver.addConstr(expression(_scaled(peak, scale)) - top <= 0.0)
        solver.minimize(top)
    else:
        solver.minimize(expression(aim))
    if solver.getModelStatus() not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kTimeLimit):
        return None
    if solver.getInfo().primal_solution_status != 2:
        return None
    values: list[list[Any]] = [[solver.variableValue(variable) for variable in variables] for variables in chosen]
    assignment = tuple(int(np.argmax(each)) for each in values)
    factor = scale if aim.peaks else unit if minimize is None else 1.0
    return Solution(assignment, factor * float(solver.getInfo().objective_function_value),
                    factor * float(solver.getInfo().mip_dual_bound))


def _pair(solver: Any, first: list[Any], second: list[Any]) -> list[list[Any]]:
    """Variables that are 1 for the pair of candidates chosen."""
    both = [[solver.addVariable(lb=0.0, ub=1.0) for _ in second] for _ in first]
    for row, variable in zip(both, first, strict=True):
        solver.addConstr(sum(row) - variable == 0)
    for column, variable in enumerate(second):
        solver.addConstr(sum(row[column] for row in both) - variable == 0)
    return both


def _scaled(cost: Cost, unit: float) -> Cost:
    return Cost(cost.constant / unit, {group: each / unit for group, each in cost.linear.items()},
                {pair: each / unit for pair, each in cost.pairs.items()})


def within(costs: Mapping[str, Cost], limits: Mapping[str, float], assignment: Assignment) -> bool:
    """Whether an assignment's costs stay within limits, by name."""
    return all(costs[name].of(assignment) <= most for name, most in limits.items())
