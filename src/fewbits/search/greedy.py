"""What other tools do: tensors narrowed in the order of what each does alone.

`greedy` takes one tensor at a time, the least noise over what is saved first (sensitivity over gain, as ModelOpt ranks
formats), and goes on past a candidate that breaks the limit, which those tools do not. `mixed_precision` is AIMET's
automatic mixed precision: tensors in the groups that it ties, and the longest head of its list that keeps the limit.
"""

from itertools import product

import numpy as np

from fewbits.search.costs import Cost, widths
from fewbits.search.evaluations import Evaluations
from fewbits.search.limit import Limit
from fewbits.search.space import Assignment, Space

Step = tuple[tuple[int, int], ...]
"""Groups and the candidates that they take together."""


def greedy(evaluations: Evaluations, cost: Cost, limit: Limit, alone: tuple[np.ndarray, ...]) -> Assignment:
    """From the finest candidates on, each (tensor, candidate) in the order of the noise it adds alone over what it
    saves, kept where the program still keeps the limit. alone: noise per group and candidate."""
    problem = evaluations.problem
    best = problem.space.finest
    steps = []
    for at, noise in enumerate(alone):
        for number in range(1, len(noise)):
            saved = cost.of(best) - cost.of(_with(best, ((at, number),)))
            if saved > 0 and np.isfinite(noise[number]):
                steps.append((max(noise[number] - noise[0], 0.0) / saved, at, number))
    for _, at, number in sorted(steps):
        tried = _with(best, ((at, number),))
        if cost.of(tried) >= cost.of(best):
            continue
        if limit.excess(problem, evaluations.measured([tried])[0]) <= 0:
            best = tried
    return best


def mixed_precision(evaluations: Evaluations, limit: Limit) -> Assignment:
    """AIMET's automatic mixed precision, phases 1 and 2 (aimet_common/amp/mixed_precision_algo.py, 2024).

    Phase 1: an activation and the weights that meet it are one group; each group alone takes each pair of candidates,
    and all pairs of all groups are listed from the best score to the worst, then by the sum of their bits from many to
    few. Phase 2: heads of that list are applied, later entries over earlier ones, and the longest that keeps the limit
    is found by bisection. Two liberties: scores are the noise of the outputs, finer than an accuracy; and in phase 1
    the other groups have the finest candidates where AIMET leaves them in float.
    """
    problem, space = evaluations.problem, evaluations.problem.space
    entries = [step for members in tied(space) for step in _pairs(space, members)]
    plans = [_with(space.finest, step) for step in entries]
    scores = evaluations.measured(plans, "moved", "phase 1")
    bits = widths(space)
    listed = [step for _, _, _, step in sorted(
        (score.noise, -sum(bits[at][number] for at, number in step), place, step)
        for place, (score, step) in enumerate(zip(scores, entries, strict=True)) if np.isfinite(score.noise))]

    def head(count: int) -> Assignment:
        plan = space.finest
        for step in listed[:count]:
            plan = _with(plan, step)
        return plan

    low, high = 0, len(listed) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if limit.excess(problem, evaluations.measured([head(middle)])[0]) <= 0:
            low = middle
        else:
            high = middle
    return head(low)


def tied(space: Space) -> list[tuple[int, ...]]:
    """Groups of a space that AIMET ties: each activation with the weights of the layers that read it."""
    index = {group.site: at for at, group in enumerate(space.groups)}
    plan = space.plan(space.finest)
    members: dict[int, list[int]] = {at: [at] for at, group in enumerate(space.groups) if group.kind != "weight"}
    for node in space.model.graph.nodes:
        if node.role == "dot" and node["weight"].name in index:
            source = index.get(plan.grid(node["input"].name))
            weight = index[node["weight"].name]
            if source is None:
                members[weight] = [weight]
            elif weight not in members[source]:
                members[source].append(weight)
    return [tuple(each) for each in members.values()]


def _pairs(space: Space, members: tuple[int, ...]) -> list[Step]:
    """Every pair of a candidate for the activation and one for all weights but the finest of both."""
    first, *rest = members
    counts = len(space.groups[first].specs), min((len(space.groups[at].specs) for at in rest), default=1)
    return [((first, one), *((at, other) for at in rest)) for one, other in product(*map(range, counts))
            if one or (other and rest)]


def _with(assignment: Assignment, step: Step) -> Assignment:
    plan = list(assignment)
    for at, number in step:
        plan[at] = number
    return tuple(plan)
