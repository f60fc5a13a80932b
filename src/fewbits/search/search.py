"""The search: least cost under a limit, by a model of noise, an exact solver, and measurements that correct both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewbits.errors import SearchError
from fewbits.search.costs import COSTS, Cost
from fewbits.search.evaluations import Evaluations
from fewbits.search.greedy import greedy
from fewbits.search.limit import Limit
from fewbits.search.noise import NoiseModel
from fewbits.search.problem import Measured
from fewbits.search.solver import solve, within
from fewbits.search.space import Assignment, Space

_STARTS = 24  # plans measured whole before the first is solved for, drawn uniformly
_ROUNDS = 16  # plans solved for and measured
_CLOSE = 1.02  # budgets of noise nearer than this to each other are one
_NEIGHBOURS = 60  # plans one step from the best that are measured in the end


@dataclass(frozen=True)
class Point:
    """A plan: its assignment, what it costs by every objective, and what its program does on the samples."""

    assignment: Assignment
    costs: Mapping[str, float]
    measured: Measured


@dataclass(frozen=True)
class Result:
    """best: the cheapest plan that was measured within the limit, None where no plan keeps it; closest: the one that
    comes nearest; excess: by how much that misses the limit, 0 where it does not; bound: no plan whose predicted noise
    is that of `best` costs less, by the model as it was in the end; worst: the tensor that holds most of the noise of
    `closest`; points: every plan measured; alone: noise of each candidate alone."""

    best: Point | None
    closest: Point
    excess: float
    bound: float
    worst: str
    points: tuple[Point, ...]
    alone: tuple[np.ndarray, ...]


def sensitivities(evaluations: Evaluations) -> tuple[np.ndarray, ...]:
    """Noise of the outputs with one tensor at each of its candidates and all else in float: per group float64."""
    groups = evaluations.problem.space.groups
    partials = [tuple(number if other == at else None for other in range(len(groups)))
                for at, group in enumerate(groups) for number in range(len(group.specs))]
    found = iter(evaluations.measured(partials, "simulated", "sensitivity"))
    return tuple(np.array([next(found).noise for _ in group.specs]) for group in groups)


def drawn(evaluations: Evaluations, count: int, seed: int = 0) -> list[Assignment]:
    """Plans drawn uniformly from the menu."""
    rng = np.random.default_rng(seed)
    return [tuple(int(rng.integers(len(group.specs))) for group in evaluations.problem.space.groups)
            for _ in range(count)]


def search(evaluations: Evaluations, minimize: str, limit: Limit, limits: Mapping[str, float] | None = None,
           *, seed: int = 0) -> Result:
    """The plan that costs least of what keeps the limit on the samples, and other costs below `limits`.

    minimize, limits: names of COSTS. Noise is measured of each candidate alone, the model is corrected by plans drawn
    at random, and then solved for under a budget of noise; each solution is measured as a program, corrects the model,
    and moves the budget, until it lies between a plan that keeps the limit and one that does not. Last come the plans
    one step from the best. Raises SearchError for names that are none, and where no plan has costs that are allowed.
    """
    problem, bounds = evaluations.problem, dict(limits or {})
    costs = _costs(problem.space, minimize, bounds)
    limit.warn_if_undecided(problem)
    alone = sensitivities(evaluations)
    pairs = [(costs[name], most) for name, most in bounds.items()]
    plans = drawn(evaluations, _STARTS, seed)
    noises = [each.noise for each in evaluations.measured(plans, "simulated", "plans at random")]
    seen: dict[Assignment, Measured] = {}

    def measure(assignments: Sequence[Assignment]) -> None:
        for assignment, measured in zip(assignments, evaluations.measured(assignments), strict=True):
            seen[assignment] = measured

    finest = solve([each - each.min() for each in alone], None, None, pairs)
    if finest is None:
        raise SearchError("no plan of this menu has costs as low as are allowed: "
                          + ", ".join(f"{name} at most {most:g}, and the least is {_least(costs[name]):g}"
                                      for name, most in bounds.items()))
    measure([finest.assignment])
    low, high, budget = 0.0, np.inf, _first_budget(limit, seen[finest.assignment].noise)
    model = NoiseModel(alone, np.ones(len(alone)))
    for _ in range(_ROUNDS):
        model = _corrected(NoiseModel(alone, np.ones(len(alone))), plans, noises, seen)
        solution = solve(model.of_candidates, costs[minimize], budget, pairs)
        if solution is not None:
            measure([solution.assignment])
        kept = solution is not None and limit.excess(problem, seen[solution.assignment]) <= 0
        if kept or solution is None:
            low = budget
        else:
            high = budget
        if low and high / low < _CLOSE:
            break
        budget = budget * 4 if high == np.inf else high / 4 if not low else (low * high) ** 0.5
    best = _best(problem, seen, limit, costs, minimize, bounds)
    if best is not None:
        for _ in range(2):
            measure(_neighbours(best, model, costs, minimize, bounds)[:_NEIGHBOURS])
            moved = _best(problem, seen, limit, costs, minimize, bounds)
            assert moved is not None, "the best so far is among them"
            if moved == best:
                break
            best = moved
    closest = best or min(seen, key=lambda each: (limit.excess(problem, seen[each]), costs[minimize].of(each), each))
    points = tuple(_point(each, costs, seen[each]) for each in seen)
    solved = solve(model.of_candidates, costs[minimize], model.predict(closest), pairs)
    share = [each[number] for each, number in zip(model.of_candidates, closest, strict=True)]
    return Result(None if best is None else _point(best, costs, seen[best]), _point(closest, costs, seen[closest]),
                  max(limit.excess(problem, seen[closest]), 0.0), solved.bound if solved else float("nan"),
                  problem.space.groups[int(np.argmax(share))].site, points, alone)


def search_greedily(evaluations: Evaluations, minimize: str, limit: Limit) -> Point:
    """The peers' greedy choice under the same limit (search/greedy.py)."""
    costs = _costs(evaluations.problem.space, minimize, {})
    found = greedy(evaluations, costs[minimize], limit, sensitivities(evaluations))
    return _point(found, costs, evaluations.measured([found])[0])


def front(points: Sequence[Point], cost: str) -> list[Point]:
    """Those of some plans that no other beats in both the cost and the noise, cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each.costs[cost], each.measured.noise, each.assignment)):
        if not best or point.measured.noise < best[-1].measured.noise:
            best.append(point)
    return best


def costs_of(space: Space) -> dict[str, Cost]:
    """Every cost of a space, by name."""
    return {name: make(space) for name, make in COSTS.items()}


def _costs(space: Space, minimize: str, limits: Mapping[str, float]) -> dict[str, Cost]:
    for name in (minimize, *limits):
        if name not in COSTS:
            raise SearchError(f"no cost is called {name!r}: choose one of {', '.join(COSTS)}")
    return costs_of(space)


def _first_budget(limit: Limit, finest: float) -> float:
    """The noise that the limit seems to allow."""
    if limit.sqnr is not None:
        return 10 ** (-limit.sqnr / 10)
    return max(16 * finest, 1e-4)


def _corrected(model: NoiseModel, plans: list[Assignment], noises: list[float],
               seen: Mapping[Assignment, Measured]) -> NoiseModel:
    whole = [(plan, noise) for plan, noise in zip([*plans, *seen], [*noises, *(each.noise for each in seen.values())],
                                                  strict=True) if np.isfinite(noise) and noise > 0]
    return model.corrected([plan for plan, _ in whole], [noise for _, noise in whole])


def _best(problem, seen: Mapping[Assignment, Measured], limit: Limit, costs: Mapping[str, Cost], minimize: str,
          bounds: Mapping[str, float]) -> Assignment | None:
    kept = [each for each, measured in seen.items()
            if limit.excess(problem, measured) <= 0 and within(costs, bounds, each)]
    return min(kept, key=lambda each: (costs[minimize].of(each), seen[each].noise, each)) if kept else None


def _neighbours(best: Assignment, model: NoiseModel, costs: Mapping[str, Cost], minimize: str,
                bounds: Mapping[str, float]) -> list[Assignment]:
    """Cheaper plans that differ in one tensor, or in two of which one gets finer, those of the least predicted noise
    first."""
    here, cost, noise = costs[minimize].of(best), costs[minimize], model.predict(best)
    steps = [(at, number) for at, each in enumerate(model.noise) for number in range(len(each)) if number != best[at]]

    def moved(changes: Sequence[tuple[int, int]]) -> Assignment:
        plan = list(best)
        for at, number in changes:
            plan[at] = number
        return tuple(plan)

    coarser = [step for step in steps if cost.of(moved([step])) < here]
    finer = [step for step in steps if model.predict(moved([step])) < noise]
    found = {moved([step]) for step in coarser}
    found |= {moved([down, up]) for down in coarser for up in finer if down[0] != up[0]}
    cheaper = [plan for plan in found if cost.of(plan) < here and within(costs, bounds, plan)]
    return sorted(cheaper, key=lambda plan: (max(model.predict(plan) / noise, 1.0), cost.of(plan), plan))


def _point(assignment: Assignment, costs: Mapping[str, Cost], measured: Measured) -> Point:
    return Point(assignment, {name: cost.of(assignment) for name, cost in costs.items()}, measured)


def _least(cost: Cost) -> float:
    peaks = cost.peaks or (cost,)
    return max(peak.constant + sum(float(each.min()) for each in peak.linear.values())
               + sum(float(each.min()) for each in peak.pairs.values()) for peak in peaks)
