"""The search: least cost under a limit, by a model of noise, an exact solver, and measurements that correct both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewbits.errors import SearchError
from fewbits.search.costs import COSTS, Cost
from fewbits.search.evaluations import Evaluations, How
from fewbits.search.greedy import greedy, mixed_precision
from fewbits.search.limit import Limit
from fewbits.search.noise import NoiseModel
from fewbits.search.problem import Measured
from fewbits.search.propagation import Alone, Propagation
from fewbits.search.solver import solve, within
from fewbits.search.space import Assignment, Space

_STARTS = 48  # plans measured whole before the first is solved for, drawn uniformly
_ROUNDS = 16  # plans solved for and measured
_CLOSE = 1.02  # budgets of noise nearer than this to each other are one
_NEIGHBOURS = 60  # plans one step from the best that are measured in one round
_NEIGHBOUR_ROUNDS = 6
_LOOKED_AT = 2000  # of them, by the sum, that are ranked by what arrives
_FRONT = 12  # budgets that the front is solved for
_NEAR = 3.0  # of logarithms of noise: plans that correct the model for a budget
_ENOUGH = 24
_WIDER = 4.0  # how far a budget moves while it is open to one side
_WORST = 1.0  # noise of its last plan: as much as the outputs themselves
_REPAIRED_ROUNDS = 10  # and likewise of plans measured repaired
_REPAIRED_CLOSE = 1.15


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
    """Noise that each candidate adds to the program of the finest ones, the others left as they are: per group float64,
    infinite for what has no program. The finest themselves share the noise of that program like their next candidates.
    Raises SearchError where the finest have no program."""
    space = evaluations.problem.space
    finest = evaluations.measured([space.finest])[0]
    if not np.isfinite(finest.noise):
        raise SearchError("the finest candidates of all tensors have no program together: choose another menu or "
                          "profile")
    found = iter(evaluations.measured(_single(space), "moved", "sensitivity"))
    added = [np.array([next(found).noise for _ in group.specs[1:]]) for group in space.groups]
    least = np.array([min((value for value in each if value > 0), default=0.0) for each in added])
    least = np.where(np.isfinite(least), least, 0.0)
    shares = finest.noise * least / least.sum() if least.sum() else np.full(len(added), finest.noise / len(added))
    return tuple(np.append(share, each) for share, each in zip(shares, added, strict=True))


def effects(evaluations: Evaluations, alone: Sequence[np.ndarray]) -> Alone:
    """What each candidate does alone, in more than its noise. alone: `sensitivities` of the same."""
    space = evaluations.problem.space
    finest, *single = evaluations.measured([space.finest, *_single(space)], "moved", "sensitivity")
    found = iter(single)
    each = [[finest, *(next(found) for _ in group.specs[1:])] for group in space.groups]
    return Alone.of(alone, [np.array([one.along for one in group]) for group in each],
                    [np.array([one.shift or finest.shift for one in group]) for group in each])


def drawn(noise: Sequence[np.ndarray], count: int, seed: int = 0) -> list[Assignment]:
    """Plans drawn uniformly from the candidates that have a program. noise: of each candidate alone."""
    rng, allowed = np.random.default_rng(seed), [np.flatnonzero(np.isfinite(each)) for each in noise]
    return [tuple(int(rng.choice(each)) for each in allowed) for _ in range(count)]


def spread(noise: Sequence[np.ndarray], count: int, seed: int = 0) -> list[Assignment]:
    """Plans drawn at random such that small noise and large is met alike: a budget from the least noise to that of no
    use, shared among the tensors at random, each of which takes its coarsest candidate within its share."""
    rng, least = np.random.default_rng(seed), max(sum(float(each.min()) for each in noise), 1e-9)
    found = []
    for _ in range(count):
        budget = float(np.exp(rng.uniform(np.log(least), np.log(max(_WORST, 2 * least)))))
        shares = budget / len(noise) * np.exp(rng.normal(size=len(noise)))
        found.append(tuple(_coarsest(each, share) for each, share in zip(noise, shares, strict=True)))
    return found


def _coarsest(noise: np.ndarray, most: float) -> int:
    """The last candidate within a noise, that of the least where none is."""
    within_it = np.flatnonzero(noise <= most)
    return int(within_it[-1]) if len(within_it) else int(np.argmin(noise))


def search(evaluations: Evaluations, minimize: str, limit: Limit, limits: Mapping[str, float] | None = None,
           *, seed: int = 0) -> Result:
    """The plan that costs least of what keeps the limit on the samples, and other costs below `limits`.

    minimize, limits: names of COSTS. Noise is measured of each candidate alone, the model is corrected by plans drawn
    at random, and then solved for under a budget of noise; each solution is measured as a program, corrects the model,
    and moves the budget, until it lies between a plan that keeps the limit and one that does not. Then come the greedy
    choice, the plans one step from the best that the finer model of noise (search/propagation.py) puts first, and plans
    for budgets from the least noise to the most, for the front.
    Where the recipe names repairs, the budget is moved once more, by plans that are measured repaired.
    Raises SearchError for names and limits that are none, and where no plan has costs that are allowed.
    """
    problem, bounds = evaluations.problem, dict(limits or {})
    costs = _costs(problem.space, minimize, bounds)
    for name, most in bounds.items():
        if not most > 0:
            raise SearchError(f"a limit on {name} is a number above 0, not {most:g}")
    limit.check(problem)
    limit.warn_if_undecided(problem)
    alone = sensitivities(evaluations)
    pairs = [(costs[name], most) for name, most in bounds.items()]
    finest = solve([each - each.min() for each in alone], None, None, pairs)
    if finest is None:
        raise SearchError("no plan of this menu has costs as low as are allowed: "
                          + ", ".join(f"{name} at most {most:g}, and the least is {_least(costs[name]):g}"
                                      for name, most in bounds.items()))
    run = _Run(evaluations, costs, minimize, limit, bounds, alone)
    run.measure([finest.assignment], "program")
    run.measure(spread(alone, _STARTS, seed), "program", "plans at random")
    budget = run.bracketed("program", run.first_budget(finest.assignment), _ROUNDS, _CLOSE)
    run.measure([greedy(evaluations, run.cost, limit, alone)], "program", "the greedy choice")
    run.improve()
    run.draw_front(finest.assignment)
    if not problem.space.base.repairs:
        return run.result("program")
    run.measure([run.closest("program")], "repaired", "repairing")
    run.bracketed("repaired", budget * 2, _REPAIRED_ROUNDS, _REPAIRED_CLOSE, low=budget)
    return run.result("repaired")


class _Run:
    """What one search has measured, and what it makes of it."""

    def __init__(self, evaluations: Evaluations, costs: Mapping[str, Cost], minimize: str, limit: Limit,
                 bounds: Mapping[str, float], alone: tuple[np.ndarray, ...]):
        self.evaluations, self.problem = evaluations, evaluations.problem
        self.costs, self.cost, self.limit, self.bounds = costs, costs[minimize], limit, bounds
        self.pairs = [(costs[name], most) for name, most in bounds.items()]
        self.alone = alone
        self.seen: dict[How, dict[Assignment, Measured]] = {"program": {}, "repaired": {}}

    def measure(self, assignments: Sequence[Assignment], how: How, doing: str = "measuring") -> None:
        """Measures plans, and keeps what came of it."""
        for assignment, measured in zip(assignments, self.evaluations.measured(assignments, how, doing), strict=True):
            self.seen[how][assignment] = measured

    def near(self, noise: float | None = None) -> tuple[list[Assignment], list[float]]:
        """All programs and their noise, or those whose noise is near some, where there are enough."""
        whole = [(plan, each.noise) for plan, each in self.seen["program"].items()
                 if np.isfinite(each.noise) and each.noise > 0]
        near = [(plan, each) for plan, each in whole if noise is not None and abs(np.log(each / noise)) < _NEAR]
        chosen = near if len(near) >= _ENOUGH else whole
        return [plan for plan, _ in chosen], [each for _, each in chosen]

    def model(self, noise: float | None = None) -> NoiseModel:
        """The sum that the solver reckons with, corrected by the programs near some noise."""
        return NoiseModel.of(self.alone).corrected(*self.near(noise))

    def excess(self, assignment: Assignment, how: How) -> float:
        """By how much a measured plan misses the limit."""
        return self.limit.excess(self.problem, self.seen[how][assignment])

    def first_budget(self, finest: Assignment) -> float:
        """The noise that the limit seems to allow."""
        if self.limit.sqnr is not None:
            return 10 ** (-self.limit.sqnr / 10)
        return max(16 * self.seen["program"][finest].noise, 1e-4)

    def solved(self, budget: float) -> Assignment | None:
        """The cheapest plan of which no more noise is predicted, by the model near there."""
        model = self.model(budget)
        found = solve(model.of_candidates, self.cost, model.sum_for(budget), self.pairs)
        return None if found is None else found.assignment

    def bracketed(self, how: How, budget: float, rounds: int, close: float, low: float = 0.0) -> float:
        """Moves a budget of noise until it lies between one whose plan keeps the limit, measured, and one whose does
        not; returns the first. low: a budget that is known to keep it, 0 for none."""
        high = np.inf
        for _ in range(rounds):
            plan = self.solved(budget)
            if plan is not None:
                self.measure([plan], how, "repairing" if how == "repaired" else "measuring")
            if plan is None or self.excess(plan, how) <= 0:
                low = budget
            else:
                high = budget
            if low and high / low < close:
                break
            budget = budget * _WIDER if high == np.inf else high / _WIDER if not low else (low * high) ** 0.5
        return low or budget

    def best(self, how: How) -> Assignment | None:
        """The cheapest measured plan that keeps every limit."""
        kept = [each for each in self.seen[how]
                if self.excess(each, how) <= 0 and within(self.costs, self.bounds, each)]
        return min(kept, key=lambda each: (self.cost.of(each), self.seen[how][each].noise, each)) if kept else None

    def closest(self, how: How) -> Assignment:
        """The best, or that which misses the limit by least."""
        allowed = [each for each in self.seen[how] if within(self.costs, self.bounds, each)]
        return self.best(how) or min(allowed, key=lambda each: (self.excess(each, how), self.cost.of(each), each))

    def improve(self) -> None:
        """Measures plans one step from the best until none is better, those of the least predicted noise first."""
        parts = effects(self.evaluations, self.alone)
        for _ in range(_NEIGHBOUR_ROUNDS):
            best = self.best("program")
            if best is None:
                return
            noise = self.seen["program"][best].noise
            unseen = [each for each in _neighbours(best, self.model(noise), self.cost, self.costs, self.bounds)
                      if each not in self.seen["program"]][:_LOOKED_AT]
            here, *predicted = Propagation.of(parts).corrected(*self.near(noise)).predict([best, *unseen])
            order = sorted(range(len(unseen)), key=lambda at: (
                max(predicted[at] / here, 1.0), self.cost.of(unseen[at]), unseen[at]))
            self.measure([unseen[at] for at in order[:_NEIGHBOURS]], "program", "neighbours")
            if self.best("program") == best:
                return

    def draw_front(self, finest: Assignment) -> None:
        """Measures the cheapest plans for budgets from the least noise to that of no use."""
        least = self.seen["program"][finest].noise
        for budget in np.geomspace(2 * least, _WORST, _FRONT) if 0 < least < _WORST / 2 else ():
            plan = self.solved(float(budget))
            if plan is not None:
                self.measure([plan], "program", "front")

    def result(self, how: How) -> Result:
        """What it came to."""
        best, closest = self.best(how), self.closest(how)
        programs = self.seen["program"]
        model = self.model(self.seen["program"].get(closest, self.seen[how][closest]).noise)
        solved = solve(model.of_candidates, self.cost, model.sum(closest), self.pairs)
        share = [each[number] for each, number in zip(model.of_candidates, closest, strict=True)]
        return Result(None if best is None else _point(best, self.costs, self.seen[how][best]),
                      _point(closest, self.costs, self.seen[how][closest]), max(self.excess(closest, how), 0.0),
                      solved.bound if solved else float("nan"), self.problem.space.groups[int(np.argmax(share))].site,
                      tuple(_point(each, self.costs, programs[each]) for each in programs), self.alone)


def search_greedily(evaluations: Evaluations, minimize: str, limit: Limit) -> Point:
    """The peers' greedy choice under the same limit (search/greedy.py)."""
    costs = _costs(evaluations.problem.space, minimize, {})
    limit.check(evaluations.problem)
    found = greedy(evaluations, costs[minimize], limit, sensitivities(evaluations))
    return _point(found, costs, evaluations.measured([found])[0])


def search_mixed_precision(evaluations: Evaluations, limit: Limit) -> Point:
    """AIMET's automatic mixed precision under the same limit (search/greedy.py)."""
    limit.check(evaluations.problem)
    found = mixed_precision(evaluations, limit)
    return _point(found, costs_of(evaluations.problem.space), evaluations.measured([found])[0])


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
        if name == "latency":
            raise SearchError("latency is none of the costs: an engine's time is no sum over tensors, and most widths "
                              "run in the same kernels; search by bops or energy, and time the front's plans with "
                              "`fewbits compare-plans --engine`")
        if name not in COSTS:
            raise SearchError(f"no cost is called {name!r}: choose one of {', '.join(COSTS)}")
    return costs_of(space)


def _neighbours(best: Assignment, model: NoiseModel, cost: Cost, costs: Mapping[str, Cost],
                bounds: Mapping[str, float]) -> list[Assignment]:
    """Cheaper plans that differ in one tensor, or in two of which one gets finer, those of the least predicted noise
    first."""
    here, noise = cost.of(best), model.predict(best)
    steps = [(at, number) for at, each in enumerate(model.noise) for number in range(len(each))
             if number != best[at] and np.isfinite(each[number])]

    def moved(changes: Sequence[tuple[int, int]]) -> Assignment:
        plan = list(best)
        for at, number in changes:
            plan[at] = number
        return tuple(plan)

    coarser = [step for step in steps if cost.of(moved([step])) < here]
    finer = [step for step in steps if model.predict(moved([step])) < noise]
    found = {moved([step]) for step in coarser}
    found |= {moved([down, up]) for down in coarser for up in finer if down[0] != up[0]}
    priced = {plan: cost.of(plan) for plan in found}
    cheaper = [plan for plan in found if priced[plan] < here and within(costs, bounds, plan)]
    return sorted(cheaper, key=lambda plan: (max(model.predict(plan) / noise, 1.0), priced[plan], plan))


def _single(space: Space) -> list[Assignment]:
    """Plans of the finest candidates but one."""
    return [(*space.finest[:at], number, *space.finest[at + 1:])
            for at, group in enumerate(space.groups) for number in range(1, len(group.specs))]


def _point(assignment: Assignment, costs: Mapping[str, Cost], measured: Measured) -> Point:
    return Point(assignment, {name: cost.of(assignment) for name, cost in costs.items()}, measured)


def _least(cost: Cost) -> float:
    peaks = cost.peaks or (cost,)
    return max(peak.constant + sum(float(each.min()) for each in peak.linear.values())
               + sum(float(each.min()) for each in peak.pairs.values()) for peak in peaks)
