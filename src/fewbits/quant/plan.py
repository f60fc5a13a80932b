"""Plans: a recipe resolved on one model. Every tensor that is quantized, and what every node becomes."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.graph.graph import Graph, Node, Param, Shape
from fewbits.graph.model import Model
from fewbits.graph.operators import OPERATORS, operator_of
from fewbits.program.program import leaves
from fewbits.quant.recipe import Recipe, Rule, recipe
from fewbits.quant.spec import Spec

Kind = Literal["input", "activation", "weight", "constant", "bias", "accumulator"]


@dataclass(frozen=True)
class Site:
    """A tensor that gets codes.

    name: of the value (`conv1`), the parameter (`conv1.weight`) or a node's bias (`conv1.bias`);
    spec: how its encoding is found; None for biases and accumulators, whose scale is that of the products;
    because: the rule that decided.
    """

    name: str
    kind: Kind
    shape: Shape
    spec: Spec | None
    because: str

    def __str__(self) -> str:
        becomes = self.spec or "int32 at the scale of its products"
        return f"{self.name} ({self.kind}): {becomes}  [{self.because}]"


@dataclass(frozen=True)
class Step:
    """What becomes of one node. grid: name of the value whose encoding its result has."""

    node: str
    op: str
    treatment: Literal["integer", "part of the node before", "passes codes on", "gone", "sizes only"]
    grid: str
    source: str


@dataclass(frozen=True)
class Plan:
    """Every site and every node of one model, decided. `print(plan)` shows all of it."""

    sites: Mapping[str, Site]
    steps: Mapping[str, Step]

    def grid(self, value: str) -> str:
        """Name of the site whose encoding a value has: itself, or what its codes were passed on from."""
        return self.steps[value].grid if value in self.steps else value

    def __str__(self) -> str:
        lines = [f"{len(self.sites)} sites"]
        lines += [f"  {site}" for site in self.sites.values()]
        lines += [f"{len(self.steps)} nodes"]
        lines += [f"  {step.node} = {step.op}: {step.treatment}"
                  + (f", grid of {step.grid}" if step.grid not in (step.node, "") else "")
                  for step in self.steps.values()]
        return "\n".join(lines)


def plan(model: Model, source: str | Path | Recipe) -> Plan:
    """The recipe (a preset's name, a file, or a Recipe) resolved on a captured model.

    Raises UnsupportedError, one sentence per operator with its source line, when some have no integer form;
    RecipeError when a rule matches nothing or two uses of one weight are given different Specs.
    """
    decided = recipe(source)
    _check_supported(model.graph)
    _check_rules(model.graph, decided)
    return _Planner(model, decided).plan()


def _check_supported(graph: Graph) -> None:
    problems = []
    for node in graph.nodes:
        row = operator_of(node)
        where = f" at {node.source}" if node.source else ""
        if row is None:
            problems.append(f"{node.name} ({node.target}){where}: no integer form of this operator is known")
        elif row.role == "norm":
            problems.append(f"{node.name} (batch norm){where}: fold the model first, with fb.fold(model)")
        elif (reason := row.refuse(node)) is not None:
            problems.append(f"{node.name} ({row.name}){where}: {reason}")
        elif not node.refs and row.role != "size":
            problems.append(f"{node.name} ({row.name}){where}: it reads no input; fold the model first")
    for item in graph.inputs:
        if item.dtype != "float32":
            problems.append(f"input {item.name}: it is {item.dtype}, and only float32 is quantized")
    if problems:
        raise UnsupportedError(f"{len(problems)} operators cannot become integers:\n  " + "\n  ".join(problems))


def _matches(rule: Rule, node: Node) -> bool:
    row = operator_of(node)
    return ((rule.op is None or (row is not None and row.name == rule.op))
            and (rule.module is None or fnmatchcase(node.name, rule.module)
                 or fnmatchcase(node.module, rule.module)))


def _check_rules(graph: Graph, decided: Recipe) -> None:
    names = {row.name for row in OPERATORS}
    for number, rule in enumerate(decided.rules, 1):
        if rule.op is not None and rule.op not in names:
            raise RecipeError(f"rule {number} {rule}: no operator is called {rule.op!r}; "
                              f"choose one of {', '.join(sorted(names))}")
        matched = [node for node in graph.nodes if _matches(rule, node)]
        if not matched and not rule.optional:
            raise RecipeError(f"rule {number} {rule} matches nothing in this model: correct it, or mark it "
                              "`optional: true`")
        if rule.keep_float and matched:
            raise RecipeError(f"rule {number} {rule} keeps {matched[0].name!r} in float: integer programs "
                              "have no float islands yet, so take the rule out")


class _Planner:
    """Walks the graph once; the rules of where quantizers stand are `_value_site` and `_grid_of`."""

    def __init__(self, model: Model, decided: Recipe):
        self.model, self.recipe, self.graph = model, decided, model.graph
        self.readers = self.graph.consumers()
        self.outputs = set(leaves(self.graph.structure))
        self.sites: dict[str, Site] = {}
        self.steps: dict[str, Step] = {}

    def plan(self) -> Plan:
        for item in self.graph.inputs:
            if self.readers[item.name] or item.name in self.outputs:
                self._add(Site(item.name, "input", item.shape, self.recipe.activation_spec, "activations"))
        for node in self.graph.nodes:
            row = operator_of(node)
            assert row is not None, "checked before"
            if row.role == "dot":
                self._dot_sites(node)
            elif row.role == "combine":
                self._constant_sites(node)
            self.steps[node.name] = Step(node.name, row.name, self._treatment(node, row.role),
                                         self._grid_of(node, row.role), node.source)
        return Plan(self.sites, self.steps)

    def _treatment(self, node: Node, role: str) -> Any:
        if role == "clamp":
            return "part of the node before" if self._closes(node) else "integer"
        return {"dot": "integer", "combine": "integer", "pass": "passes codes on", "gone": "gone",
                "size": "sizes only"}[role]

    def _grid_of(self, node: Node, role: str) -> str:
        """Makes the node's own site, or finds the one it shares."""
        if role == "size":
            return ""
        if role in ("pass", "gone"):
            source = node.refs[0]
            return self.steps[source].grid if source in self.steps else source
        last = self._closing_clamp(node) if role in ("dot", "combine") else None
        if last is not None:
            return last.name
        self._value_site(node, role)
        return node.name

    def _closing_clamp(self, node: Node) -> Node | None:
        """The ReLU or clamp that alone reads the node's result: the quantizer stands behind that one."""
        readers = self.readers[node.name]
        if len(readers) != 1 or node.name in self.outputs:
            return None
        row = operator_of(readers[0])
        return readers[0] if row is not None and row.role == "clamp" else None

    def _closes(self, clamp: Node) -> bool:
        before = self.steps.get(clamp.refs[0])
        return before is not None and before.grid == clamp.name

    def _value_site(self, node: Node, role: str) -> None:
        assert node.shape is not None, "operators that make numbers return one tensor"
        if role == "dot" and self.recipe.outputs == "float" and node.name in self.outputs and \
                not self.readers[node.name]:
            self._add(Site(node.name, "accumulator", node.shape, None, "outputs: float"))
            return
        spec, because = self._resolve(node, "activations")
        self._add(Site(node.name, "activation", node.shape, spec, because))

    def _dot_sites(self, node: Node) -> None:
        spec, because = self._resolve(node, "weights")
        self._param_site(node["weight"], "weight", spec, because)
        if node["bias"] is not None:
            shape = tuple(self.model.tensor(node["bias"].name).shape)
            self._add(Site(f"{node.name}.bias", "bias", shape, None, "biases follow input and weight"))

    def _constant_sites(self, node: Node) -> None:
        """Operands of an addition or concatenation that are parameters."""
        spec, because = self._resolve(node, "activations")
        for name in node.params:
            self._param_site(Param(name), "constant", spec, because)

    def _param_site(self, param: Param, kind: Kind, spec: Spec, because: str) -> None:
        shape = tuple(self.model.tensor(param.name).shape)
        site = Site(param.name, kind, shape, spec, because)
        if param.name in self.sites and self.sites[param.name] != site:
            raise RecipeError(f"{param.name!r} is used twice and the recipe wants two things of it: "
                              f"{self.sites[param.name].spec} and {spec}")
        self.sites[param.name] = site

    def _add(self, site: Site) -> None:
        if site.name in self.sites:
            raise RecipeError(f"two sites are called {site.name!r}: rename the module of that name")
        self.sites[site.name] = site

    def _resolve(self, node: Node, what: Literal["weights", "activations"]) -> tuple[Spec, str]:
        spec = self.recipe.weight_spec if what == "weights" else self.recipe.activation_spec
        because: str = what
        origin = node
        if what == "activations" and (row := operator_of(node)) is not None and row.role == "clamp" \
                and self._closes(node):
            origin = next(n for n in self.graph.nodes if n.name == node.refs[0])
        for number, rule in enumerate(self.recipe.rules, 1):
            text = rule.weights if what == "weights" else rule.activations
            if text is not None and (_matches(rule, node) or _matches(rule, origin)):
                spec, because = text.over(spec), f"rule {number} {rule}"
        return spec, because


