"""The captured graph as plain data: nodes that call one ATen operator each, by the user's names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch

from fewbits.program.program import leaves
from fewbits.program.value import taken

Style = Literal["tensor", "tuple", "dict"]
Shape = tuple[int | None, ...]  # None: a size that moves with the batch
Shapes = Mapping[str, Shape | None]  # of values and parameters, by name

Role = Literal[
    "dot",      # sums of products with weights; quantizes its weights and its result
    "combine",  # makes new numbers out of activations; its result has an encoding of its own
    "clamp",    # bounds a result: part of the operator before it, where that one has no other reader
    "pass",     # moves numbers or picks among them; keeps the encoding of what it reads
    "gone",     # does nothing when the model runs
    "norm",     # batch norm: part of the dot product before it, else it combines
    "size",     # works on sizes, not on tensors
    "exact",    # computes token numbers, positions or masks, whatever its row (fold/exact.py)
]


@dataclass(frozen=True)
class Ref:
    """The value that a node or an input of this name made."""

    name: str


@dataclass(frozen=True)
class Param:
    """A parameter or buffer by its state-dict name."""

    name: str


def _never(node: "Node", shapes: Shapes) -> str | None:
    """Of operators that have an integer form in every use."""
    return None


@dataclass(frozen=True)
class Operator:
    """A row of the operator table (graph/operators.py). name: what recipes call it; operands: arguments of a combining
    operator that may be parameters, which then are quantized as activations are; refuse: a sentence for a use without
    an integer form, or None."""

    name: str
    role: Role
    targets: tuple[Callable[..., Any], ...]
    refuse: "Callable[[Node, Shapes], str | None]" = _never
    operands: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        """For pickle: ATen operators go by their names."""
        return _operator, (_fields(self) | {"targets": [_spelled(target) for target in self.targets]},)


@dataclass(frozen=True, eq=False)
class Node:
    """One call.

    name: unique, from the user's modules: `layer1.0.conv1`, `layer1.0.add`, `relu#2` for a second use;
    target: the ATen operator (or a Python one, on sizes); operator: its row of the table, None where there is none;
    arguments: all of them by their schema's names, defaults filled in, values as `Ref`, weights as `Param`;
    positional: how many lead by position; module: path of the module it stands in; source: `file.py:31` in the user's
    code; shape: of the result, None for a list of tensors or a size; dtype: of the result, by torch's name;
    free: axes of the result whose size in `shape` is the example's, and which may have others.
    """

    name: str
    target: Callable[..., Any]
    operator: Operator | None
    arguments: Mapping[str, Any]
    positional: int
    module: str
    source: str
    shape: Shape | None
    dtype: str = "float32"
    free: tuple[int, ...] = ()

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    def __reduce__(self) -> Any:
        """For pickle and copies: an ATen operator goes by its name."""
        return _node, (_fields(self) | {"target": _spelled(self.target), "arguments": dict(self.arguments)},)

    @property
    def op(self) -> str:
        """What recipes call its operator; "" where the table has no row for it."""
        return "" if self.operator is None else self.operator.name

    @property
    def role(self) -> Role | None:
        """The part its operator plays; None where the table has no row for it."""
        return None if self.operator is None else self.operator.role

    @cached_property
    def refs(self) -> tuple[str, ...]:
        """Names of the values it reads, in order, each once; those that its body reads from outside among them."""
        if self.body is not None:
            return self.body.refs
        return tuple(dict.fromkeys(item.name for item in _items(self.arguments) if isinstance(item, Ref)))

    @cached_property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters and buffers it reads, its body's among them."""
        if self.body is not None:
            return tuple(dict.fromkeys(name for node in self.body.nodes for name in node.params))
        return tuple(dict.fromkeys(item.name for item in _items(self.arguments) if isinstance(item, Param)))

    @property
    def body(self) -> "Body | None":
        """What a recurrence does at each step; None of any other node."""
        return self.arguments.get("body")

    def changed(self, leaf: Callable[[Any], Any]) -> "Node":
        """The node with `leaf` applied to every leaf of its arguments, and of those of its body: itself where that
        changes none."""
        def change(item: Any) -> Any:
            return item.changed(leaf) if isinstance(item, Body) else leaf(item)

        changed = {name: map_leaves(value, change) for name, value in self.arguments.items()}
        same = all(one is other for one, other in zip(_items(self.arguments), _items(changed), strict=True))
        return self if same else replace(self, arguments=changed)

    def run(self, arguments: Mapping[str, Any]) -> Any:
        """What its call gives for `arguments`, which are named and ordered as its own are."""
        given = list(arguments.items())
        return self.target(*(value for _, value in given[:self.positional]), **dict(given[self.positional:]))


def _spelled(target: Callable[..., Any]) -> Any:
    """What pickle can hold of a call: the name of an ATen operator, or a function, which pickle knows by its own."""
    return str(target) if isinstance(target, torch._ops.OpOverload) else target


def _call(spelled: Any) -> Callable[..., Any]:
    """Inverse of `_spelled`."""
    if not isinstance(spelled, str):
        return spelled
    space, packet, overload = spelled.split(".")
    return getattr(getattr(getattr(torch.ops, space), packet), overload)


def _fields(value: Operator | Node) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _operator(spelled: dict[str, Any]) -> Operator:
    given: dict[str, Any] = spelled | {"targets": tuple(map(_call, spelled["targets"]))}
    return Operator(**given)


def _node(spelled: dict[str, Any]) -> Node:
    given: dict[str, Any] = spelled | {"target": _call(spelled["target"])}
    return Node(**given)


@dataclass(frozen=True, eq=False)
class Body:
    """What a recurrence does at each step of a sequence.

    nodes: in running order, the `step` and `state` nodes first, which stand for what a step is given: the entry of a
    sequence outside, and what the step before made; output: the value that the recurrence gives of all steps.
    """

    nodes: tuple[Node, ...]
    output: str

    @property
    def entries(self) -> tuple[Node, ...]:
        """The nodes that stand for an entry of a sequence."""
        return tuple(node for node in self.nodes if node.op == "step")

    @property
    def states(self) -> tuple[Node, ...]:
        """The nodes that stand for what the step before made."""
        return tuple(node for node in self.nodes if node.op == "state")

    @property
    def results(self) -> tuple[str, ...]:
        """The values of the body that the recurrence gives: of all steps its output, of the last one each state."""
        return (self.output, *(state["following"] for state in self.states))

    @property
    def refs(self) -> tuple[str, ...]:
        """Names of the values outside that it reads."""
        return tuple(dict.fromkeys(name for node in (*self.entries, *self.states) for name in node.refs))

    def changed(self, leaf: Callable[[Any], Any]) -> "Body":
        """The body with every node changed: itself where that changes none."""
        nodes = tuple(node.changed(leaf) for node in self.nodes)
        return self if all(one is other for one, other in zip(nodes, self.nodes, strict=True)) else replace(
            self, nodes=nodes)


@dataclass(frozen=True)
class Input:
    """A tensor the model takes. dtype: the torch name, such as `float32`; free: axes whose size in `shape` is the
    example's, and which may have others; hiding: of a float input the largest number in the example that would hide a
    place of an attention it is added to, 0 where there is none (fold/masks.py)."""

    name: str
    shape: Shape
    dtype: str
    free: tuple[int, ...] = ()
    hiding: float = 0.0

    @property
    def taken(self) -> Shape:
        """The shape that it may have: None where any size will do."""
        return taken(self.shape, self.free)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in running order, and how the model is called. Its indices are built once, when they are first asked for.

    style: whether the example was one tensor, a tuple of positional ones, or a dict of named ones;
    structure: what the model returns, with value names for leaves; follows: by input, axes whose sizes it was found to
    follow as the network does (capture/free_sizes.py).
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    structure: Any
    style: Style
    follows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Graph":
        """Itself: nothing in a graph ever changes, so copies of a model share it and its indices."""
        return self

    def with_nodes(self, nodes: tuple[Node, ...]) -> "Graph":
        """The same inputs and outputs around other nodes of the same names."""
        return replace(self, nodes=nodes)

    def names(self) -> Iterator[str]:
        """Names of all values, inputs first."""
        yield from self.inputs_by_name
        yield from self.by_name

    @cached_property
    def everything(self) -> tuple[Node, ...]:
        """Its nodes, those of a body in front of the recurrence that runs it."""
        return tuple(one for node in self.nodes for one in (*(node.body.nodes if node.body else ()), node))

    @cached_property
    def repeats(self) -> Mapping[str, int]:
        """How often each node of a body runs for one input, by name: as many steps as the example has."""
        values = {item.name: item.shape for item in (*self.inputs, *self.everything)}
        found = {}
        for node in self.nodes:
            for each in node.body.nodes if node.body else ():
                assert node.body is not None
                shape = values[node.body.entries[0]["sequence"].name] or ()
                found[each.name] = shape[node["axis"]] or 1
        return found

    @cached_property
    def carried(self) -> Mapping[str, str]:
        """What each state of a body becomes, by name."""
        return {node.name: str(node["following"]) for node in self.everything if node.op == "state"}

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Its nodes, those of bodies among them."""
        return {node.name: node for node in self.everything}

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place of each node in `nodes`."""
        return {node.name: position for position, node in enumerate(self.nodes)}

    @cached_property
    def inputs_by_name(self) -> Mapping[str, Input]:
        """Its inputs."""
        return {item.name: item for item in self.inputs}

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the values it returns."""
        return frozenset(leaves(self.structure))

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in running order."""
        readers: dict[str, list[Node]] = {name: [] for name in self.names()}
        for node in self.everything:
            for name in node.refs:
                readers[name].append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    @cached_property
    def param_consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each parameter or buffer, of those that any node reads."""
        readers: dict[str, list[Node]] = {}
        for node in self.everything:
            for name in () if node.body else node.params:
                readers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    @cached_property
    def spent(self) -> Mapping[str, tuple[str, ...]]:
        """By node the values that nothing reads after it, the outputs left out: their memory may go."""
        last = {name: node.name for node in self.nodes for name in node.refs if name not in self.outputs}
        spent: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for name, node in last.items():
            spent[node].append(name)
        return {node: tuple(names) for node, names in spent.items()}

    @cached_property
    def norms_behind(self) -> Mapping[str, Node]:
        """The batch norm that moves into the scale and bias of a dot product, by the dot product's name: it alone
        reads those sums, and its channels are theirs. Any other batch norm is an operator of its own."""
        found = {}
        for dot in self.everything:
            readers = self.consumers[dot.name]
            alone = dot.role == "dot" and len(readers) == 1 and dot.name not in self.outputs
            if alone and readers[0].role == "norm" and (dot.op == "conv" or len(dot.shape or ()) == 2):
                found[dot.name] = readers[0]
        return found

    @cached_property
    def dots_before(self) -> Mapping[str, Node]:
        """The dot product that a batch norm moves into, by the batch norm's name."""
        return {norm.name: self.by_name[dot] for dot, norm in self.norms_behind.items()}


def _items(value: Any) -> Iterator[Any]:
    """Leaves of nested lists, tuples and dicts."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _items(item)


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every leaf of its lists and tuples changed."""
    if isinstance(value, list | tuple):
        return type(value)(map_leaves(item, change) for item in value)
    return change(value)
