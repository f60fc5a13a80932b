"""The ledger: what became of every operation and every tensor, all of it explained, or it is not made."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from fewbits.engines.exactness import listed, reliance
from fewbits.errors import ProgramError
from fewbits.graph.graph import Graph, Node, Shape
from fewbits.lower.inputs import input_codes
from fewbits.numerics.encoding import Quantized
from fewbits.numerics.packing import packed_bytes
from fewbits.program import ops as op
from fewbits.program.float_calls import call_name
from fewbits.program.program import Program
from fewbits.quant.plan import NodePlan, Plan, Treatment

_FLOAT = "float32"
_IN_THRESHOLDS = "part of the thresholds behind"
_BIAS_GRID = "int32 at the scale of its products"
_REAL = 4  # bytes of a scale or a bias


class InputTreatment(StrEnum):
    """What becomes of an input."""

    QUANTIZED = "quantized input"
    """It is quantized."""
    FLOAT = "float input"
    """Float islands and layers of dynamic quantization read it as it is."""
    ROWS = "row numbers"
    """It numbers the rows of an embedding."""
    EXACT = "token numbers or a mask"
    """It is carried as it is: integers or truth values."""
    UNREAD = "unread input"
    """No node reads it."""


@dataclass(frozen=True)
class Operation:
    """One node of the captured graph, or one input.

    treatment: as the plan says; computed_as: the program's node, '' where none is needed; value: the program's name of
    the result, '' for sizes and lists; source: `file.py:31`.
    """

    node: str
    op: str
    treatment: Treatment | InputTreatment
    computed_as: str
    value: str
    source: str


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the program. kind: `float input`, `row numbers`, `input`, `activation`,
    `passed on`, `on the way`, `accumulator`, `constant`, `table`, `weight`, `bias`, `float` inside an island, `decoded`
    on the way into one, `float parameter`, `mask` or `as it is`; code_bytes, scale_bytes: in a
    file, 0 for what is computed; because: the rule that decided its encoding."""

    name: str
    kind: str
    shape: Shape
    encoding: str
    code_bytes: int
    scale_bytes: int
    because: str


@dataclass(frozen=True)
class Accumulation:
    """A node that sums. bits: needed, proved from its weights and code ranges; available: what the profile
    has; weights: their format, '' for pools and means; macs: products per image, 0 for pools and means;
    bytes: of weight codes, weight scales and bias."""

    node: str
    op: str
    weights: str
    bits: int
    available: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class Reliance:
    """What equality with the engine rests on, and the nodes it rests on it for (none: all of them)."""

    on: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """Every operation, tensor and sum of one program, in graph order, and what equality relies on. in_torch: nodes of
    the program for which the native engine has no kernel, which it runs in torch; None where nobody asked it."""

    profile: str
    operations: tuple[Operation, ...]
    tensors: tuple[TensorEntry, ...]
    accumulations: tuple[Accumulation, ...]
    reliances: tuple[Reliance, ...]
    in_torch: tuple[str, ...] | None = None

    @property
    def counts(self) -> dict[Treatment | InputTreatment, int]:
        """Number of operations by treatment."""
        return dict(Counter(operation.treatment for operation in self.operations))

    @property
    def floating(self) -> int:
        """Operations computed in float32, because the recipe left them or what they read so."""
        return sum(operation.treatment is Treatment.FLOAT for operation in self.operations)

    @property
    def islands(self) -> tuple[str, ...]:
        """The names of these operations."""
        return tuple(operation.node for operation in self.operations if operation.treatment is Treatment.FLOAT)

    @property
    def macs(self) -> int:
        """Products per image."""
        return sum(entry.macs for entry in self.accumulations)

    @property
    def bytes(self) -> int:
        """Weight codes, their scales, biases and constants, each once."""
        return sum(entry.code_bytes + entry.scale_bytes for entry in self.tensors)

    def __str__(self) -> str:
        told = "" if self.in_torch is None else f"; {len(self.in_torch)} nodes without a native kernel" + (
            f" ({listed(self.in_torch)})" if self.in_torch else "")
        counts = ", ".join(f"{count} {treatment}" for treatment, count in self.counts.items())
        return (f"{len(self.operations)} operations ({counts}), {len(self.tensors)} tensors, "
                f"{self.floating} in float{told}")


def ledger(program: Program, plan: Plan, graph: Graph, in_torch: tuple[str, ...] | None = None) -> Ledger:
    """What became of every node of `graph` and every tensor, in the program that the plan led to. in_torch: nodes
    without a native kernel, where they are known.

    graph: the folded one that was planned (`simulation.model.graph`). Raises ProgramError, naming the node or
    tensor, when one of the three holds something that the others do not explain.
    """
    return replace(_Accountant(program, plan, graph).ledger(), in_torch=in_torch)


def reliances(program: Program) -> tuple[Reliance, ...]:
    """The profile's reliances that this program needs; one on a feature not known here is kept."""
    rests = reliance(program)
    known = {"FMA": rests.fused, "VNNI": rests.pairs}
    found = []
    for text in program.profile.relies_on:
        nodes = next((nodes for feature, nodes in known.items() if feature in text), None)
        if nodes is None or nodes:
            found.append(Reliance(text, nodes or ()))
    return tuple(found)


class _Accountant:
    def __init__(self, program: Program, plan: Plan, graph: Graph):
        self.program, self.plan, self.graph = program, plan, graph
        self.nodes = {node.name: node for node in program.everything}
        self.values: dict[str, str] = {}      # of the graph → of the program
        self.explained: dict[str, str] = {}   # values of the program → kind of tensor

    def ledger(self) -> Ledger:
        _same("node", "plan", (node.name for node in self.graph.everything), self.plan.steps)
        operations = [self._input(item.name) for item in self.graph.inputs]
        operations += [self._operation(node, self.plan.steps[node.name]) for node in self.graph.everything]
        for name in self.program.inputs:
            self.explained[name] = "float input"
        for name, site in self.plan.sites.items():
            if name in self.nodes and site.kind in ("constant", "weight"):
                self.explained[name] = site.kind
        self._explain_islands()
        self._explain_what_is_on_the_way()
        _same("value", "ledger", self.program.values, self.explained)
        return Ledger(self.program.profile.name, tuple(operations), tuple(self._tensors()),
                      tuple(self._accumulations()), reliances(self.program))

    def _explain_islands(self) -> None:
        """What islands read: parameters of the model, masks, and decoded codes."""
        floats = (Treatment.FLOAT, Treatment.DYNAMIC, Treatment.EXACT)
        read = {name for node in self.graph.everything if self.plan.steps[node.name].treatment in floats
                for name in node.params}
        for node in self.program.everything:
            if isinstance(node, op.ExactConstant):
                self.explained[node.name] = "as it is"
            elif isinstance(node, op.FloatConstant) and node.name.removesuffix(".plain") in read:
                self.explained[node.name] = "float parameter"
            elif isinstance(node, op.Constant) and node.name in read and node.name not in self.plan.sites:
                self.explained[node.name] = "mask"
            elif isinstance(node, op.Dequantize) and node.name not in self.explained:
                self.explained[node.name] = "decoded"

    def _explain_what_is_on_the_way(self) -> None:
        """An operation that takes several nodes calls all but the last `<its name>.<what>`."""
        owners = {node.name for node in self.graph.everything}
        for node in self.program.everything:
            if node.name not in self.explained and any(
                    node.name[:end] in owners for end, letter in enumerate(node.name) if letter == "."):
                self.explained[node.name] = "on the way"

    def _input(self, name: str) -> Operation:
        codes = input_codes(name)
        self.values[name] = codes
        if codes not in self.nodes:
            if name in self.plan.sites:
                raise ProgramError(f"the plan quantizes input {name!r} and the program does not: "
                                   "were they made from one model?")
            rows = next((n for n in self.nodes.values() if isinstance(n, op.Embedding) and n.input == name), None)
            if rows is not None:
                return Operation(name, "input", InputTreatment.ROWS, "", "", "")
            if self.program.values[name].dtype != "float32":
                self.values[name] = name
                return Operation(name, "input", InputTreatment.EXACT, "", name, "")
            if any(name in op.reads(n) for n in self.nodes.values()):
                self.values[name] = name
                return Operation(name, "input", InputTreatment.FLOAT, "", name, "")
            return Operation(name, "input", InputTreatment.UNREAD, "", "", "")
        self.explained[codes] = "input"
        return Operation(name, "input", InputTreatment.QUANTIZED, type(self.nodes[codes]).__name__, codes, "")

    def _operation(self, node: Node, step: NodePlan) -> Operation:
        made, value = self._made(node, step)
        return Operation(node.name, step.op, step.treatment, type(made).__name__ if made else "", value,
                         step.source)

    def _made(self, node: Node, step: NodePlan) -> tuple[op.ProgramNode | None, str]:
        """The program's node for a node of the graph, if it needs one, and the name of its result."""
        match step.treatment:
            case Treatment.SIZE:
                return None, ""
            case Treatment.GONE:
                return None, self._passed(node)
            case Treatment.PASSED:
                return self._moved(node)
            case Treatment.EXACT:
                return self._as_it_is(node)
            case Treatment.FLOAT:
                return self._left_in_float(node, step)
            case Treatment.DYNAMIC:
                return self._summed_as_it_comes(node, step)
            case Treatment.FUSED:
                self.values[node.name] = step.grid
                return None, step.grid
        # Group norm is computed on its groups; the node of its own name brings them back into shape.
        made = self.nodes.get(f"{step.grid}.normal" if step.op == "group_norm" else step.grid)
        if step.op in ("conv", "linear") and step.grid not in self.plan.sites:  # its sums leave as floats
            sums = self.nodes.get(f"{node.name}.sums")
            if isinstance(sums, op.Conv | op.Linear) and isinstance(self.nodes.get(node.name), op.Dequantize):
                self.values[node.name], self.explained[sums.name] = node.name, "accumulator"
                return sums, node.name
        if made is None or step.op not in op.record_of(made).computes:
            raise ProgramError(f"node {node.name!r} ({step.op}) is an integer node in the plan, and the "
                               f"program has {type(made).__name__ if made else 'nothing'} for it: "
                               "were they made from one model?")
        self.values[node.name] = step.grid
        self.explained[step.grid] = "accumulator" if self.program.is_accumulator(step.grid) else "activation"
        return made, step.grid

    def _as_it_is(self, node: Node) -> tuple[op.ProgramNode | None, str]:
        """A call on token numbers, positions or masks, or a move among them."""
        if node.role == "pass":
            return self._moved(node)
        if node.role == "gone" and node.op != "cast":
            return None, self._passed(node)
        made = self.nodes.get(node.name)
        if not isinstance(made, op.ExactCall):
            raise ProgramError(f"node {node.name!r} is carried as it is by the plan, and the program has "
                               f"{type(made).__name__ if made else 'nothing'} for it: were they made from one model?")
        self.values[node.name], self.explained[node.name] = node.name, "as it is"
        return made, node.name

    def _left_in_float(self, node: Node, step: NodePlan) -> tuple[op.ProgramNode | None, str]:
        """A float call, with a quantizer behind it where its result is quantized; or a move among floats."""
        if node.role == "pass":
            return self._moved(node)
        if node.op == "enter":
            return None, self._passed(node)
        coded = node.name in self.plan.sites
        made = self.nodes.get(f"{node.name}.unrounded" if coded else node.name)
        if not isinstance(made, op.FloatCall) or made.call != call_name(node.target):
            raise ProgramError(f"node {node.name!r} ({step.op}) is left in float by the plan, and the program has "
                               f"{type(made).__name__ if made else 'nothing'} for it: were they made from one model?")
        self.values[node.name] = node.name
        self.explained[made.name] = "float"
        if coded:
            self.explained[node.name] = "activation"
        return made, node.name

    def _summed_as_it_comes(self, node: Node, step: NodePlan) -> tuple[op.ProgramNode | None, str]:
        coded = node.name in self.plan.sites
        made = self.nodes.get(f"{node.name}.unrounded" if coded else node.name)
        if not isinstance(made, op.Dynamic):
            raise ProgramError(f"node {node.name!r} ({step.op}) quantizes its input dynamically in the plan, and "
                               f"the program has {type(made).__name__ if made else 'nothing'} for it: were they "
                               "made from one model?")
        self.values[node.name], self.explained[made.name] = node.name, "float"
        if coded:
            self.explained[node.name] = "activation"
        return made, node.name

    def _moved(self, node: Node) -> tuple[op.ProgramNode | None, str]:
        if node.name in self.program.values:  # of its own: a move, or what a recurrence hands in or leaves behind
            self.values[node.name] = node.name
            self.explained[node.name] = "passed on"
            return self.nodes.get(node.name), node.name
        if node.shape is None:  # a list of tensors: each part read is an entry of its own
            return None, ""
        return None, self._passed(node)

    def _passed(self, node: Node) -> str:
        source = self.values.get(node.refs[0], "")
        if source not in self.program.values:
            raise ProgramError(f"node {node.name!r} passes on {node.refs[0]!r}, which the program does not "
                               "hold: were they made from one model?")
        self.values[node.name] = source
        return source

    def _tensors(self) -> Iterable[TensorEntry]:
        parameters = self._stored()
        planned = [name for name, site in self.plan.sites.items()
                   if site.kind in ("weight", "bias", "constant")]
        floats = [name for name, kind in self.explained.items() if kind in ("float parameter", "mask")]
        floats += [node.name for node in self.program.everything if isinstance(node, op.ExactConstant)]
        _same("stored tensor", "program", [*planned, *floats], parameters)
        because = {input_codes(name) if site.kind == "input" else name: site.because
                   for name, site in self.plan.sites.items()}
        for name in self.program.inputs:
            value = self.program.values[name]
            kind = "float input" if value.dtype == "float32" else "as it is"
            kind = "row numbers" if self._numbers_rows(name) else kind
            yield TensorEntry(name, kind, value.shape, value.dtype, 0, 0, "as the model takes it")
        owned: dict[str, list[tuple[str, _Stored]]] = {}
        for name, stored in parameters.items():
            owned.setdefault(stored.owner, []).append((name, stored))
        for node in self.program.everything:
            for name, stored in owned.get(node.name, ()):
                yield TensorEntry(name, stored.kind, stored.shape, stored.encoding, stored.code_bytes,
                                  stored.scale_bytes, because.get(name, "left in float by the recipe"))
            for held in op.record_of(node).holds(node):
                yield TensorEntry(f"{node.name}.{held.suffix}", "table", held.shape,
                                  held.type or str(self.program.values[node.name].encoding), held.bytes, 0,
                                  held.because)
            if not isinstance(node, op.Constant | op.FloatConstant | op.ExactConstant):
                yield from (self._written(node, name, because) for name in node.written)

    def _written(self, node: op.ProgramNode, name: str, because: Mapping[str, str]) -> TensorEntry:
        value = self.program.values[name]
        otherwise = "the encoding of what it reads" if value.encoding else "left in float by the recipe"
        if isinstance(node, op.ExactCall) or value.dtype != "float32":
            otherwise = "token numbers, positions or a mask"
        encoding = str(value.encoding or (_FLOAT if value.dtype == "float32" else value.dtype))
        return TensorEntry(name, self.explained[name], value.shape, encoding, 0, 0, because.get(name, otherwise))

    def _numbers_rows(self, name: str) -> bool:
        return any(isinstance(node, op.Embedding) and node.input == name for node in self.program.everything)

    def _stored(self) -> "dict[str, _Stored]":
        """What a file holds, by name; a weight used twice belongs to the first."""
        found = {node.name: _stored(node.name, self.explained[node.name], node.data) for node in self.program.everything
                 if isinstance(node, op.Constant)}
        found |= {node.name: _Stored(node.name, "float parameter", node.data.shape, _FLOAT, _REAL * node.data.size, 0)
                  for node in self.program.everything if isinstance(node, op.FloatConstant)}
        found |= {node.name: _Stored(node.name, "as it is", node.data.shape, self.program.values[node.name].dtype,
                                     node.data.nbytes, 0)
                  for node in self.program.everything if isinstance(node, op.ExactConstant)}
        for node in self.graph.everything:
            made = self.nodes.get(f"{node.name}.sums") or self.nodes.get(self.values.get(node.name, ""))
            if self.plan.steps[node.name].op in ("conv", "linear") and isinstance(made, op.Conv | op.Linear):
                found.setdefault(node["weight"].name, _stored(made.name, "weight", made.weight))
                if made.name != self.values[node.name] and f"{node.name}.bias" in self.plan.sites:
                    found[f"{node.name}.bias"] = _Stored(made.name, "bias", (len(made.weight.codes),), _IN_THRESHOLDS,
                                                         0, 0)
                if made.bias is not None:
                    found[f"{node.name}.bias"] = _Stored(made.name, "bias", made.bias.shape, _BIAS_GRID,
                                                         _REAL * made.bias.size, 0)
        return found

    def _accumulations(self) -> Iterable[Accumulation]:
        available = self.program.profile.sum_bits
        for node in self.program.everything:
            sums = op.record_of(node).sums
            if sums is None or isinstance(node, op.MatMul):
                continue
            words, macs, size = "", 0, 0
            if sums.products is not None and sums.weight is not None:
                data, macs = sums.weight(self.program, node), sums.products(self.program, node)
                weight, words = _stored("", "weight", data), f"{data.encoding.format} per {data.encoding.block}"
                bias = node.bias if isinstance(node, op.Conv | op.Linear) else None
                size = weight.code_bytes + weight.scale_bytes + (0 if bias is None else _REAL * bias.size)
            yield Accumulation(node.name, type(node).__name__, words, sums.bound(self.program, node).bits, available,
                               macs, size)


@dataclass(frozen=True)
class _Stored:
    """A tensor that a file holds. owner: the program's node that reads it, or that it is."""

    owner: str
    kind: str
    shape: Shape
    encoding: str
    code_bytes: int
    scale_bytes: int


def _stored(owner: str, kind: str, data: Quantized) -> _Stored:
    """Packed codes and their scales."""
    return _Stored(owner, kind, data.codes.shape, str(data.encoding),
                   packed_bytes(data.codes.size, data.encoding.format), _REAL * data.encoding.scale.size)


def _same(what: str, where: str, actual: Iterable[str], accounted: Iterable[str]) -> None:
    """Raises ProgramError unless both hold the same names."""
    names, known = set(actual), set(accounted)
    for name in sorted(names ^ known):
        side = f"is missing from the {where}" if name in names else f"of the {where} is nowhere in the model"
        raise ProgramError(f"{what} {name!r} {side}: were plan and program made from one model?")
