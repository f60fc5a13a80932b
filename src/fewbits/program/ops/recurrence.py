"""Recurrence: a body of operators that runs once for each step of a sequence."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding
from fewbits.program.node import ProgramNode
from fewbits.program.ops.dots import Linear
from fewbits.program.ops.functions import Table
from fewbits.program.ops.pairs import Add
from fewbits.program.ops.record import Example, Operations, Record, holds_nothing
from fewbits.program.ops.samples import X, Y, weight
from fewbits.program.ops.work import together
from fewbits.program.value import Kind, Scope, Value

__all__ = ["Carried", "Entry", "Recurrence"]


@dataclass(frozen=True)
class Entry:
    """A value of the body that is the entry of a sequence outside, under its encoding."""

    name: str
    sequence: str


@dataclass(frozen=True)
class Carried:
    """A state: a value of the body that the step before left.

    name: what the body reads; following: what it makes of it, under the same encoding; first: a value outside that it
    is at the first step, None where that is the number 0; last: the name under which the last step's is given, None
    where nobody reads it.
    """

    name: str
    following: str
    first: str | None = None
    last: str | None = None


@dataclass(frozen=True, eq=False)
class Recurrence(ProgramNode):
    """Runs a body once for each entry of its sequences along an axis, in their order or `backwards`, and stacks its
    `output` along that axis.

    The body's values stand among the program's; it may read values outside, such as constants. Sequences are equally
    long, and the other of their first two axes is the batch (axis: 0 or 1). Raises ProgramError for a recurrence in a
    body.
    """

    entries: tuple[Entry, ...]
    states: tuple[Carried, ...]
    body: tuple[ProgramNode, ...]
    output: str
    axis: int
    backwards: bool = False

    def __post_init__(self):
        if any(isinstance(each, Recurrence) for each in self.body):
            raise ProgramError(f"the body of {self.name!r} holds a recurrence: put it in front or behind")

    @property
    def written(self) -> tuple[str, ...]:
        return (self.name, *(state.last for state in self.states if state.last is not None))

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the values outside that it hands to its body."""
        return (*(entry.sequence for entry in self.entries),
                *(state.first for state in self.states if state.first is not None))

    @property
    def inside(self) -> tuple[str, ...]:
        """Names of the values that its body has: what it is given at each step, and what it makes."""
        return (*(each.name for each in (*self.entries, *self.states)),
                *(name for node in self.body for name in node.written))


class Nodes(Scope, Protocol):
    """A program, with the nodes that stand in it."""

    @property
    def nodes(self) -> tuple[ProgramNode, ...]:
        """In running order."""
        ...


def loop(node: Recurrence, values: Mapping[str, Any], zero: Callable[[Carried], Any],
         step: Callable[[dict[str, Any]], None], entry: Callable[[Any, int], Any],
         stack: Callable[[list[Any]], Any]) -> tuple[Any, ...]:
    """What every executor does: the values that the node writes, in the order of `written`.

    values: outside, by name; zero: the first value of a state that is 0; step: runs the body on the values it has,
    adding what it makes; entry: one of a sequence; stack: all steps' outputs, in their order, as one value.
    """
    outside = {name: value for name, value in values.items() if name not in node.given}
    carried = {state.name: zero(state) if state.first is None else values[state.first] for state in node.states}
    made: list[Any] = []
    count = values[node.entries[0].sequence].shape[node.axis]
    for at in range(count)[::-1 if node.backwards else 1]:
        inner = outside | carried | {each.name: entry(values[each.sequence], at) for each in node.entries}
        step(inner)
        made.append(inner[node.output])
        carried = {state.name: inner[state.following] for state in node.states}
    return (stack(made[::-1] if node.backwards else made),
            *(carried[state.name] for state in node.states if state.last is not None))


def records(record_of: Callable[[ProgramNode], Record]) -> Mapping[type[ProgramNode], Record]:
    """The record, which asks those of the nodes in a body. record_of: of a node."""

    def reads(node: Recurrence) -> tuple[str, ...]:
        inside = set(node.inside)
        free = [name for each in node.body for name in record_of(each).reads(each) if name not in inside]
        return tuple(dict.fromkeys((*node.given, *free)))

    def reference(program: Scope, node: Recurrence, *given: np.ndarray) -> tuple[np.ndarray, ...]:
        values = dict(zip(reads(node), given, strict=True))
        whole = values[node.entries[0].sequence]

        def zero(state: Carried) -> np.ndarray:
            value = program.values[state.name]
            shape = (whole.shape[1 - node.axis], *(size or 0 for size in value.shape[1:]))
            if value.encoding is None:
                return np.zeros(shape, value.dtype)
            return np.full(shape, value.encoding.zero_point, value.encoding.format.dtype)

        def step(inner: dict[str, np.ndarray]) -> None:
            for each in node.body:
                record = record_of(each)
                made = record.reference(program, each, *(inner[name] for name in record.reads(each)))
                assert isinstance(made, np.ndarray), "only a recurrence makes several"
                inner[each.name] = made

        return loop(node, values, zero, step, lambda x, at: x.take(at, node.axis),
                    lambda made: np.stack(made, node.axis))

    def work(program: Scope, node: Recurrence) -> Operations:
        return _times(steps(program, node), *(record_of(each).work(program, each) for each in node.body))

    def float_work(program: Scope, node: Recurrence) -> Operations:
        counted = ((each, record_of(each).float_work) for each in node.body)
        return _times(steps(program, node), *(count(program, each) for each, count in counted if count is not None))

    return {Recurrence: Record(
        does="a body of operators, once for each step of a sequence, with states that one step hands to the next",
        equations="",
        reads=reads,
        takes=_ANY,
        writes="body",
        wide="both",
        check=_check,
        reference=reference,
        sums=None,
        rescaling=None,
        limits={},
        work=work,
        float_work=float_work,
        holds=holds_nothing,
        computes=(),
        layer=lambda channels, height, width: _Columns(channels * height),
        examples=_examples,
    )}


class _Columns(nn.Module):
    """A recurrent layer over the columns of an image."""

    def __init__(self, size: int):
        super().__init__()
        self.cells = nn.GRU(size, size, batch_first=True)

    def forward(self, x):
        columns = self.cells(x.permute(0, 3, 1, 2).flatten(2))[0]
        return columns.unflatten(2, x.shape[1:3]).permute(0, 2, 3, 1)


_ANY: frozenset[Kind] = frozenset(("codes", "float32", "int64", "int32", "uint8", "int8", "bool"))


def steps(program: Scope, node: Recurrence) -> int:
    """How many steps the sequences have, of the sizes that the program was made with."""
    return program.values[node.entries[0].sequence].shape[node.axis] or 1


def computed(program: Nodes) -> Iterator[tuple[ProgramNode, int]]:
    """Every node that computes, and how often it runs for one input: those of a body at every step."""
    for node in program.nodes:
        if isinstance(node, Recurrence):
            yield from ((each, steps(program, node)) for each in node.body)
        else:
            yield node, 1


def _times(count: int, *parts: Operations) -> Operations:
    return {name: count * number for name, number in together(*parts).items()}


def _check(program: Scope, node: Recurrence) -> None:
    """Raises ProgramError where what is handed from outside to inside, from step to step, and back is not of one
    encoding."""
    if not node.entries or node.axis not in (0, 1):
        raise ProgramError(f"recurrence {node.name!r} needs a sequence to run over, with its steps on axis 0 or 1")
    made = {name for each in node.body for name in each.written}
    for name in (node.output, *(state.following for state in node.states)):
        if name not in made:
            raise ProgramError(f"the body of {node.name!r} does not make {name!r}")
    pairs = [(node.name, node.output), *((entry.name, entry.sequence) for entry in node.entries)]
    for state in node.states:
        pairs += [(state.name, other) for other in (state.following, state.first, state.last) if other is not None]
    for one, other in pairs:
        if not _alike(program.values[one], program.values[other]) or program.is_accumulator(one):
            raise ProgramError(f"recurrence {node.name!r} hands {one!r}, {program.values[one]}, on as {other!r}, "
                               f"{program.values[other]}: both must have one encoding, and be no sums")


def _alike(one: Value, other: Value) -> bool:
    if one.encoding is None or other.encoding is None:
        return one.encoding is other.encoding and one.dtype == other.dtype
    return _same(one.encoding, other.encoding)


def _same(one: Encoding, other: Encoding) -> bool:
    return (one.format == other.format and one.block == other.block and np.array_equal(one.scale, other.scale)
            and np.array_equal(one.zero_point, other.zero_point))


def _examples() -> tuple[Example, ...]:
    """h ← table(x + W h), from 0 and forwards, from a given state and backwards."""
    def made(axis: int, backwards: bool, first: str | None) -> Example:
        sequence = (None, 4, 3) if axis else (4, None, 3)
        body = (Linear("before", "h", weight((3, 3)), None, 0, 255), Add("sum", "now", "before", 0, 255),
                Table("after", "sum", np.arange(255, -1, -1, dtype=np.uint8).reshape(1, -1), "neg"))
        inside = {"now": X, "h": Y, "before": X, "sum": X, "after": Y}
        return Example(
            Recurrence("y", (Entry("now", "x"),), (Carried("h", "after", first, "end"),), body, "after", axis,
                       backwards),
            {"x": Value(sequence, X)} | ({first: Value((None, 3), Y)} if first else {}), Value(sequence, Y),
            beside={name: Value((None, 3), encoding) for name, encoding in inside.items()} | {
                "end": Value((None, 3), Y)})

    return made(1, False, None), made(0, True, "first")
