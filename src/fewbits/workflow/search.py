"""The search as one job: what the verb and `fb.search` share, and the plan files that it writes."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.table import Table

from fewbits.engines.engine import Engine
from fewbits.errors import SearchError
from fewbits.files import write_whole
from fewbits.graph.model import Model
from fewbits.options import options_checked
from fewbits.plots.axes import Axis
from fewbits.plots.picture import Picture
from fewbits.plots.points import Series, points
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, Wish
from fewbits.search.costs import Cost
from fewbits.search.evaluations import Evaluations
from fewbits.search.limit import Limit
from fewbits.search.problem import Problem
from fewbits.search.ristretto import ristretto, ristretto_menu
from fewbits.search.search import Point, Result, costs_of, front, search, search_greedily, search_mixed_precision
from fewbits.search.space import RANGES, Assignment, Space, escaped, menu

Method = Literal["solver", "greedy", "amp", "ristretto"]
_UNIFORM = (8, 6, 4)
_FRONT = 12  # points of the front that get a plan file


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to. recipe: the plan of the winner, or of the closest where none keeps the limit, as a recipe;
    point: what it costs and does on the samples that decided; excess: by how much it misses the limit, 0 where it does
    not; note: in a sentence, what is to be known of it; front: plans that none beats, cheapest first."""

    recipe: Recipe
    point: Point
    excess: float
    note: str
    front: tuple[tuple[Recipe, Point], ...]

    @property
    def is_within(self) -> bool:
        """Whether the limit is kept."""
        return self.excess == 0


@options_checked
def run_search(model: Model, calibration: Any, samples: Any, limit: Limit, *, base: str | Recipe = "w8a8",
               candidates: str | Sequence[str] = "int", minimize: str = "bytes",
               limits: Mapping[str, float] | None = None, method: Method = "solver", profile: str = "onnxruntime",
               ranges: str | Sequence[str] = RANGES, repairs: Sequence[str] | None = None,
               log: Path | None = None, executor: Executor | None = None, workers: int = 1, seed: int = 0,
               engine: str | Engine = "fastest") -> Found:
    """Searches (search/search.py). calibration: batches that ranges come from; samples: batches of inputs, or of
    (inputs, labels), that decide: not those that are reported in the end. ranges: rules that candidates
    come with; repairs: of the winner, in place of those that the base recipe names. log: of all evaluations, gone on
    from where it exists; engine: runs the programs."""
    space = Space.of(model, base, ristretto_menu() if method == "ristretto" else menu(candidates, ranges), repairs)
    if method != "solver" and space.base.repairs:
        raise SearchError(f"method {method} makes no repairs: leave out {', '.join(space.base.repairs)}")
    if method != "solver" and limits:
        raise SearchError(f"method {method} knows no limits of cost: leave out {', '.join(limits)}, or take the solver")
    evaluations = Evaluations(Problem.of(space, calibration, samples, profile, engine), log, executor, workers)
    if method == "ristretto":
        swept = ristretto(evaluations, limit)
        whole = tuple(number or 0 for number in swept.assignment)  # costs of 16 bits, where some stay float
        point = Point(whole, _priced(costs_of(space), whole), swept.combined)
        excess = max(limit.excess(evaluations.problem, swept.combined), 0.0)
        return Found(space.recipe(swept.assignment), point, excess, swept.suggestion, ())
    if method in ("greedy", "amp"):
        point = (search_greedily(evaluations, minimize, limit) if method == "greedy"
                 else search_mixed_precision(evaluations, limit))
        excess = max(limit.excess(evaluations.problem, point.measured), 0.0)
        return Found(space.recipe(point.assignment), point, excess, "", ())
    result = search(evaluations, minimize, limit, limits, seed=seed)
    beyond = [*result.points, *_uniform(evaluations, result.points)]
    best = front(beyond, minimize)
    thinned = [best[round(at * (len(best) - 1) / (_FRONT - 1))] for at in range(_FRONT)] if len(best) > _FRONT else best
    return Found(space.recipe(result.closest.assignment), result.closest, result.excess, _note(result, limit),
                 tuple((space.recipe(point.assignment), point) for point in _once(thinned)))


def learning(found: Recipe, methods: str | Path | Recipe, model: Model) -> Recipe:
    """A plan whose tensors learn as a recipe says: the formats are the plan's, the methods, and what shares a scale in
    weights, those that the recipe has for each tensor of the model. Raises SearchError for a recipe that names none."""
    own = plan(model, methods)
    specs = {site.name: site.spec for site in own.sites.values() if site.spec is not None}
    if all(spec.method is None for spec in specs.values()):
        raise SearchError(f"recipe {methods} names no method that learns: take one such as lsq-w4a4 or qat-w8a8")
    weights = {escaped(node.name): param for node in model.graph.nodes for param in node.params if param in specs}
    values = {escaped(node.name): own.grid(node.name) for node in model.graph.nodes}

    def taught(wish: Wish | None, site: str | None, keys: tuple[str, ...]) -> Wish | None:
        spec = specs.get(site or "")
        if spec is None or wish is None or wish == "float":
            return wish
        says = {"method": spec.method or "none", "block": tuple(spec.block.sizes) or "tensor"}
        return wish.model_copy(update={key: says[key] for key in keys})

    rules = [rule.model_copy(update={
        "weights": taught(rule.weights, weights.get(rule.module or ""), ("method", "block")),
        "activations": taught(rule.activations, values.get(rule.module or ""), ("method",))}) for rule in found.rules]
    inputs = next((item.name for item in model.graph.inputs), None)
    return Recipe.model_validate(found.model_copy(update={
        "inputs": taught(found.inputs, inputs, ("method",)), "rules": tuple(rules), "repairs": ()},
    ).model_dump(exclude_none=True))


def plan_text(recipe: Recipe, about: str = "") -> str:
    """A recipe as YAML that `--recipe` reads. about: a comment in front."""
    head = "".join(f"# {line}\n" for line in about.splitlines())
    return head + yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
                                 | {"version": recipe.version}, sort_keys=False)


def write(found: Found, out: Path, minimize: str, limit: Limit) -> list[Path]:
    """plan.yaml, plans of the front, front.json and front.svg in a folder; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    kept = "" if found.is_within else f"\nIt misses the limit by {found.excess:.3g}."
    files = {out / "plan.yaml": plan_text(found.recipe, f"least {minimize}, {limit}{kept}\n{summary(found.point)}")}
    for number, (recipe, point) in enumerate(found.front):
        files[out / "plans" / f"{number:02}.yaml"] = plan_text(recipe, summary(point))
    if found.front:
        files[out / "front.json"] = json.dumps([_as_json(point) for _, point in found.front], indent=1) + "\n"
        files[out / "front.svg"] = picture(found, minimize).svg
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    return list(files)


def picture(found: Found, minimize: str) -> Picture:
    """The front and the chosen plan, cost against signal to noise."""
    best = [point for _, point in found.front]
    labels = [f"{number:02}" for number in range(len(best))]
    chosen = found.point
    return points(f"Plans by {minimize} and signal to noise", Axis(minimize, logarithmic=True), Axis("dB"),
                   [Series("front", [each.costs[minimize] for each in best],
                           [each.measured.sqnr for each in best], labels, line=True),
                    Series("plan.yaml", [chosen.costs[minimize]], [chosen.measured.sqnr], ["plan.yaml"])])


def summary(point: Point) -> str:
    """Costs and measurements of a plan in a line."""
    measured = point.measured
    right = "" if measured.right is None else f", {100 * measured.right / measured.samples:.2f} % right"
    costs = ", ".join(f"{name} {value:.6g}" for name, value in point.costs.items())
    return f"{measured.sqnr:.2f} dB, {measured.flips} of {measured.samples} classes changed{right}; {costs}"


def table(found: Found, minimize: str, console: Console) -> None:
    """Prints the front."""
    rows = Table(box=None, pad_edge=False)
    for head in ("plan", minimize, "dB", "classes changed", "right"):
        rows.add_column(head, justify="left" if head == "plan" else "right")
    shown = [(f"plans/{number:02}.yaml", point) for number, (_, point) in enumerate(found.front)]
    for name, point in [*shown, ("plan.yaml", found.point)]:
        measured = point.measured
        rows.add_row(name, f"{point.costs[minimize]:.6g}", f"{measured.sqnr:.2f}",
                     f"{measured.flips} of {measured.samples}",
                     "" if measured.right is None else f"{100 * measured.right / measured.samples:.2f} %")
    console.print(rows)


def _once(points: Sequence[Point]) -> list[Point]:
    return list({point.assignment: point for point in points}.values())


def _uniform(evaluations: Evaluations, known: Sequence[Point]) -> list[Point]:
    """The plans of one width everywhere, where the menu has it."""
    space, found = evaluations.problem.space, []
    costs = costs_of(space)
    for bits in _UNIFORM:
        numbers = [next((at for at, spec in enumerate(group.specs) if spec.format.bits == bits), None)
                   for group in space.groups]
        if None not in numbers:
            assignment: Assignment = tuple(number or 0 for number in numbers)
            if all(point.assignment != assignment for point in known):
                found.append(Point(assignment, _priced(costs, assignment), evaluations.measured([assignment])[0]))
    return found


def _priced(costs: Mapping[str, Cost], assignment: Assignment) -> dict[str, float]:
    return {name: cost.of(assignment) for name, cost in costs.items()}


def _note(result: Result, limit: Limit) -> str:
    if result.best is None:
        return (f"no plan of this menu keeps {limit}: the closest misses it by {result.excess:.3g}, and "
                f"{result.worst!r} holds most of its noise; give it a finer candidate, or leave it in float")
    return f"by the model of noise no plan with as little of it costs less than {result.bound:.6g}"


def _as_json(point: Point) -> dict[str, Any]:
    return {"assignment": list(point.assignment), "costs": dict(point.costs), "measured": asdict(point.measured)}


def check_samples(count: int) -> None:
    """Raises SearchError for a split that leaves nothing to decide by."""
    if count < 2:
        raise SearchError(f"{count} samples cannot decide: give a data set with training images")
