"""The record of an operator: all that is known of it beside what engines and writers do with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from fewbits.numerics.encoding import Quantized
from fewbits.options import options_checked
from fewbits.program.accumulator import Bound
from fewbits.program.node import ProgramNode
from fewbits.program.rescale import Factor, Role
from fewbits.program.value import Kind, Scope, Value

Operations = Mapping[str, float]
"""Counted arithmetic of one input: how often each operation is done, by the names of numerics/costs_45nm.json."""

Layer = Callable[[int, int, int], nn.Module]
"""From channels, height and width (5 or more) of an image, a layer of a float network that takes it, [N, C, H, W], and
gives an image."""


@dataclass(frozen=True)
class Held:
    """A table that a node carries. suffix: behind the node's name; type: of its entries; because: what it says."""

    suffix: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    because: str


@dataclass(frozen=True)
class Example:
    """A node with what it reads, small enough to look at: `examples.as_program` makes a program of it.

    reads: codes, sums and floats that the program makes of inputs of its own; constants: codes known beforehand;
    beside: further values of the node, inside and out.
    """

    node: ProgramNode
    reads: Mapping[str, Value]
    writes: Value
    constants: Mapping[str, Quantized] = field(default_factory=dict)
    profile: str = "onnxruntime"
    beside: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Sums:
    """That a node adds up. bound: interval of its sums over all inputs that codes allow (eq. 9); products: of two
    codes, for one input, None where it adds up codes alone; weight: the codes that it multiplies what it reads with,
    None where there are none."""

    bound: Callable[[Scope, Any], Bound]
    products: Callable[[Scope, Any], int] | None
    weight: Callable[[Scope, Any], Quantized] | None


@options_checked
@dataclass(frozen=True)
class Rescaling:
    """How a node's integers become codes under integer profiles. factor: what they are multiplied by; reach: their
    largest magnitude; role: which of a profile's roundings is used."""

    factor: Callable[[Scope, Any], Factor]
    reach: Callable[[Scope, Any], int]
    role: Role


@options_checked
@dataclass(frozen=True)
class Record:
    """What is known of one operator. Nothing has a default: a fact that an operator does not have is said to be none.

    does: what it computes, in words for the reader of docs/operators.md and the ledger; equations: of docs/numerics.md,
    '' for those that only move codes;
    reads: names of the values it reads, in order; takes: kinds of value it may read; writes: what it gives, `moved`
    where that is of the kind it reads, `plain` where its value says which numbers without an encoding, `body`
    where it is what its body gives; wide: whether it reads or writes codes that are wider than the profile's
    activations, up to its inner bits;
    check: raises ProgramError where a node is none that can be computed;
    reference: the definition, codes of what it reads to codes, in NumPy; several where it writes several;
    sums: what it adds up, None where that is nothing; rescaling: None where no factor brings integers to codes;
    limits: names that profiles may list in `lacks`, and which nodes they mean;
    work: counted arithmetic of the integers; float_work: of the float operation it stands for, None where the float
    network has none;
    holds: tables that it carries; computes: names of the graph operators whose result it writes, for the ledger;
    layer: a layer of a float network that becomes it, for random networks; None where every network has it, or only
    recipes make it; examples: small nodes of its kind, for tests.
    """

    does: str
    equations: str
    reads: Callable[[Any], tuple[str, ...]]
    takes: frozenset[Kind]
    writes: Literal["codes", "float32", "moved", "plain", "body"]
    wide: Literal["no", "reads", "writes", "both"]
    check: Callable[[Scope, Any], None]
    reference: Callable[..., Any]  # an array; of a node that writes several a tuple, which only its executors see
    sums: Sums | None
    rescaling: Rescaling | None
    limits: Mapping[str, Callable[[Scope, Any], bool]]
    work: Callable[[Scope, Any], Operations]
    float_work: Callable[[Scope, Any], Operations] | None
    holds: Callable[[Any], tuple[Held, ...]]
    computes: tuple[str, ...]
    layer: Layer | None
    examples: Callable[[], tuple[Example, ...]]


def reads_one(node: Any) -> tuple[str, ...]:
    """Of a node with a field `input`."""
    return (node.input,)


def reads_two(node: Any) -> tuple[str, ...]:
    """Of a node with the fields `first` and `second`."""
    return (node.first, node.second)


def reads_none(node: Any) -> tuple[str, ...]:
    """Of a node that is known beforehand."""
    return ()


def unchecked(program: Scope, node: Any) -> None:
    """Of operators whose kinds of operands say all."""


def always(program: Scope, node: Any) -> bool:
    """Of a limit that every node of its kind meets."""
    return True


def holds_nothing(node: Any) -> tuple[Held, ...]:
    """Of operators without tables."""
    return ()


class Called(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def called(function: Callable[..., Any]) -> Layer:
    """A layer that is one call, whatever the image."""
    return lambda channels, height, width: Called(function)
