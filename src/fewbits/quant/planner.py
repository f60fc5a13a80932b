"""The planner: a recipe resolved on one model, and where its quantizers stand."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from fewbits.errors import EncodingError, RecipeError, UnsupportedError
from fewbits.fold.decompose import TAKEN_APART, why_left
from fewbits.fold.exact import exact_names
from fewbits.graph.graph import Body, Graph, Node, Operator, Param, Role
from fewbits.graph.model import Model
from fewbits.graph.operators import OPERATORS
from fewbits.graph.selection import way_by_parts
from fewbits.numerics.block import TENSOR
from fewbits.numerics.formats import parse
from fewbits.options import check_stage
from fewbits.program.exact_calls import DTYPES, EXACT_CALLS
from fewbits.program.float_calls import FLOAT_CALLS, call_name
from fewbits.quant.inner import inner_values
from fewbits.quant.padding import warn_of_padding
from fewbits.quant.plan import Kind, NodePlan, Plan, Site, Treatment
from fewbits.quant.recipe import PLAIN_ACTIVATIONS, PLAIN_WEIGHTS, Recipe, Rule, over, recipe
from fewbits.quant.spec import Spec

DYNAMIC = Spec(parse("uint8"), symmetric=False, block=TENSOR, range="dynamic")
"""The one Spec that can be found as the program runs (docs/numerics.md, eq. 28)."""


def plan(model: Model, source: str | Path | Recipe) -> Plan:
    """The recipe (a preset's name, a file, or a Recipe) resolved on a captured model.

    Raises UnsupportedError, one sentence per operator with its source line, when some have no integer form;
    RecipeError when a rule matches nothing or two uses of one weight are given different Specs. Warns (PaddingWarning)
    where ranges found at run time are taken over places that an input hides.
    """
    check_stage("model", model, Model, "fb.capture(net, example)")
    decided = recipe(source)
    refused = _refused_as_integers(model)
    _check_rules(model.graph, decided)
    made = _Planner(model, decided).plan()
    left = {name: told for name, told in refused.items() if made.steps[name].treatment != Treatment.FLOAT}
    _raise(model.graph, left.values(), left)
    warn_of_padding(model.graph, [site.name for site in made.sites.values() if site.kind == "dynamic"])
    return made


def _raise(graph: Graph, problems: Iterable[str], refused: Iterable[str]) -> None:
    """Raises UnsupportedError for the problems, if there are any. refused: the nodes that have them."""
    told = list(problems)
    if told:
        raise UnsupportedError(f"{len(told)} operators cannot become integers:\n  " + "\n  ".join(told)
                               + way_by_parts(graph, set(refused)))


def _refused_as_integers(model: Model) -> Mapping[str, str]:
    """What has no integer form but runs in float, by node, each in a sentence. Raises UnsupportedError, these included,
    where something has neither."""
    graph, problems, refused = model.graph, [], set()
    floats: dict[str, str] = {}
    shapes, exact = model.shapes(), exact_names(graph)
    for node in graph.everything:
        row = node.operator
        where = f" at {node.source}" if node.source else ""
        if node.role != "size" and node.dtype is not None and node.dtype not in DTYPES:
            problems.append(f"{node.name} ({node.target}){where}: it makes {node.dtype}, and a program holds float32, "
                            "integers and truth values: leave the cast out of the network")
            refused.add(node.name)
        elif not model.folded and not node.refs and node.role != "size" and node.op != "state":
            problems.append(f"{node.name} ({node.target}){where}: it reads no input; fold the model first, with "
                            "fb.fold(model)")
            refused.add(node.name)
        elif node.name in exact and node.role not in ("pass", "size"):
            if node.role != "gone" and call_name(node.target) not in EXACT_CALLS:
                problems.append(f"{node.name} ({node.target}){where}: of integers and truth values no exact form of it "
                                "is known")
                refused.add(node.name)
        elif row is None:
            mend = "no integer form of this operator is known"
            if node.target in TAKEN_APART and model.folded:
                mend = why_left(node, shapes)
            elif node.target in TAKEN_APART:
                mend = "folding takes it apart where it can: fold the model first, with fb.fold(model)"
            problems.append(f"{node.name} ({node.target}){where}: {mend}")
            refused.add(node.name)
        elif (reason := row.refuse(node, shapes)) is not None:
            told = f"{node.name} ({row.name}){where}: {reason}"
            if row.role in ("combine", "clamp") and call_name(node.target) in FLOAT_CALLS:
                floats[node.name] = told
            else:
                problems.append(told)
                refused.add(node.name)
        elif not node.refs and row.role != "size" and row.name != "state":
            problems.append(f"{node.name} ({row.name}){where}: it reads no input; fold the model first")
    for item in graph.inputs:
        if item.dtype in ("float64", "float16", "bfloat16"):
            problems.append(f"input {item.name}: it is {item.dtype}, and quantizing starts from float32: call "
                            "net.float() and give float32 data")
        elif item.dtype not in DTYPES:
            problems.append(f"input {item.name}: it is {item.dtype}, and a program takes {', '.join(DTYPES)}")
    if problems:
        _raise(graph, [*problems, *floats.values()], refused | floats.keys())
    return floats


def _ends(graph: Graph) -> dict[str, str]:
    """Names of the first and the last layer with weights."""
    layers = [node.name for node in graph.everything if node.role == "dot"]
    return {"first": layers[0], "last": layers[-1]} if layers else {}


def _matches(rule: Rule, node: Node, ends: Mapping[str, str]) -> bool:
    return ((rule.layer is None or ends.get(rule.layer) == node.name)
            and (rule.op is None or node.op == rule.op)
            and (rule.module is None or fnmatchcase(node.name, rule.module)
                 or fnmatchcase(node.module, rule.module)))


def _check_rules(graph: Graph, decided: Recipe) -> None:
    names, ends = {row.name for row in OPERATORS}, _ends(graph)
    for number, rule in enumerate(decided.rules, 1):
        if rule.op is not None and rule.op not in names:
            raise RecipeError(f"rule {number} {rule}: no operator is called {rule.op!r}; "
                              f"choose one of {', '.join(sorted(names))}")
        matched = [node for node in graph.everything if _matches(rule, node, ends)]
        if not matched and not rule.optional:
            raise RecipeError(f"rule {number} {rule} matches nothing in this model: correct it, or mark it "
                              "`optional: true`")


def _check_blocks(sites: Iterable[Site]) -> None:
    """Raises RecipeError, naming every tensor whose blocks do not divide its axes."""
    problems = []
    for site in sites:
        if site.spec is None:
            continue
        try:
            site.spec.block.scale_shape([1 if size is None else size for size in site.shape])
        except EncodingError:
            shape = "×".join("N" if size is None else str(size) for size in site.shape)
            problems.append(f"{site.name} [{shape}] by {site.spec.block}")
    if problems:
        raise RecipeError("these tensors do not divide into their blocks: "
                          f"{', '.join(problems)}; give them a rule of their own with a block that divides, such as "
                          "{op: conv, weights: {block: channel}}")


def _row(node: Node) -> Operator:
    assert node.operator is not None, "operators without a row were refused before"
    return node.operator


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


_TREATMENTS: Mapping[Role, Treatment] = {
    "dot": Treatment.INTEGER, "combine": Treatment.INTEGER, "norm": Treatment.FUSED, "pass": Treatment.PASSED,
    "gone": Treatment.GONE, "size": Treatment.SIZE, "exact": Treatment.EXACT}
"""Of nodes that read codes; a clamp's depends on what it reads."""


class _Planner:
    """Walks the graph once; the rules of where quantizers stand are `_value_site` and `_grid_of`."""

    def __init__(self, model: Model, decided: Recipe):
        self.model, self.recipe, self.graph = model, decided, model.graph
        self.shapes, self.ends = model.shapes(), _ends(self.graph)
        self.sites: dict[str, Site] = {}
        self.wanted: dict[str, str] = {}  # of each parameter, so that two uses of one agree
        self.steps: dict[str, NodePlan] = {}
        self.exact = exact_names(self.graph)
        self.inner = (frozenset() if decided.inner is None
                      else inner_values(self.graph, returned=decided.outputs == "float"))

    def plan(self) -> Plan:
        for item in self.graph.inputs:
            readers = self.graph.consumers[item.name]
            read = item.name in self.graph.outputs or any(not self._reads_as_it_is(reader) for reader in readers)
            if item.dtype == "float32" and read:
                spec, because = self._wanted_by_takers(item.name, self.recipe.input_spec,
                                                       "inputs" if self.recipe.inputs else "activations")
                if spec is not None and not spec.is_dynamic:
                    self._add(Site(item.name, "input", item.shape, spec, because))
        for node in self.graph.everything:
            if node.name in self.exact:
                self.steps[node.name] = NodePlan(node.name, node.op or "exact", Treatment.EXACT, "", node.source)
                continue
            row, role = _row(node), self._role(node)
            if role == "dot":
                self._dot_sites(node)
            elif role == "combine":
                self._constant_sites(node, row.operands)
                if row.name == "embedding" and isinstance(node["weight"], Param) and self._stores_rows(node):
                    self._param_site(node["weight"], "weight", *self._resolve(node, "weights"))
            treatment, grid = self._treatment(node, role), self._grid_of(node, role)
            coded = tuple(name for name, value in node.arguments.items() if self._is_coded(node, name, value))
            self.steps[node.name] = NodePlan(node.name, row.name, treatment, grid, node.source, coded)
        for node in self.graph.everything:
            self._settle(node)
        self._check_dynamic()
        _check_blocks(self.sites.values())
        return Plan(self.sites, self.steps, self.recipe.repairs, self.model.folded)

    def _reads_as_it_is(self, node: Node) -> bool:
        """Whether a node reads a float input as the numbers it is given."""
        return node.name in self.exact or node.op == "enter"

    def _is_coded(self, node: Node, argument: str, value: Any) -> bool:
        """Whether an argument holds parameters that become codes before the node reads them. The table of an embedding
        does where its rows are not brought to codes behind it."""
        row = _row(node)
        weight = row.role == "dot" or (row.name == "embedding" and self._stores_rows(node))
        read = argument in row.operands or (weight and argument == "weight")
        return read and any(isinstance(item, Param) and item.name in self.sites for item in _as_list(value))

    def _stores_rows(self, node: Node) -> bool:
        """Whether an embedding's table is stored as weights are: its result stays float, though nobody asked to keep
        the node so."""
        wanted, _ = self._wanted_by_takers(node.name, *self._resolve(node, "activations"))
        return not self._kept(node) and (wanted is None or wanted.is_dynamic)

    def _settle(self, node: Node) -> None:
        """A node whose result is not quantized computes it in float; only dot products have integer sums to return."""
        step = self.steps[node.name]
        if step.treatment == Treatment.EXACT:
            return
        if (self._role(node) in ("combine", "clamp") and step.grid not in self.sites
                and step.treatment in (Treatment.INTEGER, Treatment.FUSED)):
            self.steps[node.name] = replace(step, treatment=Treatment.FLOAT)

    def _role(self, node: Node) -> Role:
        """That of its row; a batch norm that moves into no dot product makes numbers as an operator of its own."""
        if node.name in self.exact:
            return "exact"
        role = _row(node).role
        return "combine" if role == "norm" and node.name not in self.graph.dots_before else role

    def _treatment(self, node: Node, role: Role) -> Treatment:
        if f"{node.name}.input" in self.sites:
            return Treatment.DYNAMIC
        kept = self._kept(node) and role != "pass"  # what only moves codes keeps them
        if role not in ("gone", "size") and (kept or self._reads_floats(node)):
            return Treatment.FLOAT
        if role == "clamp":
            return Treatment.FUSED if self._closes(node) else Treatment.INTEGER
        return _TREATMENTS[role]

    def _kept(self, node: Node) -> bool:
        """Whether the recipe keeps the node in float: neither its operands nor its result are quantized."""
        return any(rule.keep_float and _matches(rule, node, self.ends) for rule in self.recipe.rules)

    def _reads_floats(self, node: Node) -> bool:
        """Whether an operand is a number of the network that the recipe leaves in float."""
        row = _row(node)
        if row.name == "enter":
            return False
        if row.role in ("dot", "combine"):
            arguments = ("weight",) if row.role == "dot" else row.operands
            given = [value for argument in arguments for value in _as_list(node[argument])]
            if any(isinstance(value, Param) and value.name not in self.sites for value in given):
                return True
        return any(self._is_float(name) for name in node.refs)

    def _is_float(self, value: str) -> bool:
        """Whether a value made so far is left in float: sums that a quantizer still follows are not."""
        step = self.steps.get(value)
        if step is None:
            return self.graph.inputs_by_name[value].dtype == "float32" and value not in self.sites
        if step.treatment == Treatment.SIZE:
            return False
        if step.op == "state" and step.grid not in self.steps:  # of what is still to come, its own result decides
            return self._has_no_codes(self.graph.by_name[step.grid])
        if step.treatment == Treatment.EXACT:
            return self.graph.by_name[value].dtype == "float32"
        if step.grid in self.graph.by_name and step.grid not in self.steps:  # a clamp or batch norm to come makes it
            return step.treatment in (Treatment.FLOAT, Treatment.DYNAMIC)
        return step.grid not in self.sites and self._source_is_float(step.grid)

    def _has_no_codes(self, node: Node) -> bool:
        """Whether the result of a node that makes numbers is left in float."""
        spec, _ = self._wanted_by_takers(node.name, *self._resolve(node, "activations"))
        return spec is None or spec.is_dynamic

    def _source_is_float(self, grid: str) -> bool:
        """Whether a value without an encoding is float: an int64 input's row numbers are not."""
        item = self.graph.inputs_by_name.get(grid)
        return item is None or item.dtype == "float32"

    def _grid_of(self, node: Node, role: Role) -> str:
        """Gives the node's result an encoding of its own, or finds the one it shares."""
        if role == "size":
            return ""
        if node.op == "state":  # carried from one step to the next, under one encoding
            return str(node["following"])
        if role in ("pass", "gone"):
            source = node.refs[0]
            if (body := self._body_behind(node)) is not None:
                source = body.results[node["argument1"]]
            return self.steps[source].grid if source in self.steps else source
        if role in ("dot", "combine"):
            last = self._last(node, ("norm", "clamp") if role == "dot" else ("clamp",))
            if last is not node:
                return last.name
        elif role == "norm" and not self._closes(node):
            return self.steps[node.refs[0]].grid
        self._value_site(node, role)
        return node.name

    def _body_behind(self, node: Node) -> Body | None:
        """The body of the recurrence one of whose results a node picks out; None of any other node."""
        return self.graph.by_name[node.refs[0]].body if node.op == "item" else None

    def _last(self, node: Node, followers: tuple[str, ...]) -> Node:
        """The last node that works on the numbers before they are quantized: of the wanted roles, in that order, each
        alone reading what comes before."""
        if node.op == "enter":
            return node
        for wanted in followers:
            readers = self.graph.consumers[node.name]
            if len(readers) == 1 and node.name not in self.graph.outputs and self._role(readers[0]) == wanted:
                node = readers[0]
        return node

    def _closes(self, node: Node) -> bool:
        before = self.steps.get(node.refs[0])
        return before is not None and before.grid == node.name

    def _merged(self, node: Node) -> list[Node]:
        """The node and those before it whose results share its site: a dot product, its batch norm."""
        merged = [node]
        while True:
            if self._role(merged[-1]) not in ("clamp", "norm"):
                return merged
            before = self.steps.get(merged[-1].refs[0])
            if before is None or before.grid != node.name:
                return merged
            merged.append(self.graph.by_name[before.node])

    def _value_site(self, node: Node, role: Role) -> None:
        assert node.shape is not None, "operators that make numbers return one tensor"
        returned = node.name in self.graph.outputs and not self.graph.consumers[node.name]
        if role in ("dot", "norm") and self.recipe.outputs == "float" and returned:
            if not self._kept(node) and not self._reads_floats(node):
                self._add(Site(node.name, "accumulator", node.shape, None, "outputs: float"))
            return
        spec, because = self._wanted_by_takers(node.name, *self._resolve(node, "activations"))
        if spec is not None and not spec.is_dynamic:
            self._add(Site(node.name, "activation", node.shape, spec, because))

    def _dot_sites(self, node: Node) -> None:
        spec, because = self._resolve(node, "weights")
        self._param_site(node["weight"], "weight", spec, because)
        if spec is not None and self._is_float(node["input"].name):
            self._dynamic_site(node)
        normed = node.name in self.graph.norms_behind
        if (node["bias"] is not None or normed) and not self._kept(node) and not self._reads_floats(node):
            outputs = len(self.model.tensor(node["weight"].name))
            because = "batch norm's offset" if normed else "biases follow input and weight"
            self._add(Site(f"{node.name}.bias", "bias", (outputs,), None, because))

    def _dynamic_site(self, node: Node) -> None:
        """The input of a layer, where its recipe quantizes it dynamically."""
        spec, because = self.recipe.activation_spec, "activations"
        for number, rule in enumerate(self.recipe.rules, 1):
            if not _matches(rule, node, self.ends):
                continue
            if rule.keep_float:
                return
            for wish in (rule.activations, rule.inputs):
                if wish is not None:
                    spec, because = over(wish, spec, PLAIN_ACTIVATIONS), f"rule {number} {rule}"
        if spec is not None and spec.is_dynamic:
            shape = self.shapes[node["input"].name]
            assert shape is not None, "a layer takes one tensor"
            self._add(Site(f"{node.name}.input", "dynamic", shape, spec, because))

    def _check_dynamic(self) -> None:
        """Raises RecipeError where a range per run is asked for of something else than plain uint8."""
        for site in self.sites.values():
            spec = site.spec
            if spec is None or not spec.is_dynamic:
                continue
            if site.kind != "dynamic":
                raise RecipeError(f"{site.name!r} ({site.kind}) has range dynamic, which is for inputs of layers: give "
                                  "it another range")
            if spec != DYNAMIC:
                raise RecipeError(f"{site.name!r} is {spec}, but dynamically quantized inputs are {DYNAMIC}")

    def _constant_sites(self, node: Node, operands: tuple[str, ...]) -> None:
        """Operands of an addition, product or concatenation that are parameters."""
        spec, because = self._resolve(node, "constants")
        spec = None if spec is not None and spec.is_dynamic else spec
        for argument in operands:
            for value in _as_list(node[argument]):
                if isinstance(value, Param):
                    self._param_site(value, "constant", spec, because)

    def _param_site(self, param: Param, kind: Kind, spec: Spec | None, because: str) -> None:
        wanted = str(spec or "float")
        if self.wanted.setdefault(param.name, wanted) != wanted:
            raise RecipeError(f"{param.name!r} is used twice and the recipe wants two things of it: "
                              f"{self.wanted[param.name]} and {wanted}")
        if spec is None:
            return
        shape = tuple(self.model.tensor(param.name).shape)
        site = Site(param.name, kind, shape, spec, because)
        if param.name in self.sites and self.sites[param.name] != site:
            raise RecipeError(f"{param.name!r} is used twice and the recipe wants two things of it: "
                              f"{self.sites[param.name].spec} and {spec}")
        self.sites[param.name] = site

    def _add(self, site: Site) -> None:
        if site.name in self.sites:
            raise RecipeError(f"two tensors are called {site.name!r}: rename the module of that name")
        self.sites[site.name] = site

    def _resolve(self, node: Node, what: Literal["weights", "activations", "constants"]) -> tuple[Spec | None, str]:
        otherwise = PLAIN_WEIGHTS if what == "weights" else PLAIN_ACTIVATIONS
        spec = self.recipe.weight_spec if what == "weights" else self.recipe.activation_spec
        because = "weights" if what == "weights" else "activations"
        if what == "activations" and node.name in self.inner:
            spec, because = self.recipe.inner_spec, "inner"
        nodes = [node] if what == "weights" else self._merged(node)
        for number, rule in enumerate(self.recipe.rules, 1):
            if rule.keep_float and any(_matches(rule, each, self.ends) for each in nodes):
                return None, f"rule {number} {rule}"
            text = rule.weights if what == "weights" else rule.activations
            if text is not None and any(_matches(rule, each, self.ends) for each in nodes):
                spec, because = over(text, spec, otherwise), f"rule {number} {rule}"
        return spec, because

    def _wanted_by_takers(self, value: str, spec: Spec | None, because: str) -> tuple[Spec | None, str]:
        """What rules for the inputs of layers make of a value's Spec."""
        for number, rule in enumerate(self.recipe.rules, 1):
            if rule.inputs is not None and any(_matches(rule, each, self.ends) for each in self._takers(value)):
                spec, because = over(rule.inputs, spec, PLAIN_ACTIVATIONS), f"rule {number} {rule}"
        return spec, because

    def _takers(self, value: str) -> list[Node]:
        """The layers with weights that take a value's codes, at once or passed on."""
        found = []
        for node in self.graph.consumers[value]:
            role = self._role(node)
            if role == "dot":
                found.append(node)
            elif role in ("pass", "gone") and node.body is None:
                found += self._takers(node.name)
        return found
