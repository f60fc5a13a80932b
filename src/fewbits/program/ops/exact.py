"""Operators on token numbers, positions and masks: integers and truth values, the same on every engine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbits.errors import ProgramError
from fewbits.program.exact_calls import DTYPES, EXACT_CALLS, exactly
from fewbits.program.float_calls import Argument, Read, read_by
from fewbits.program.node import ProgramNode
from fewbits.program.ops.record import Example, Record, holds_nothing, reads_none, unchecked
from fewbits.program.ops.work import nothing
from fewbits.program.value import PLAIN, Scope, Value

__all__ = ["ExactCall", "ExactConstant"]


@dataclass(frozen=True, eq=False)
class ExactConstant(ProgramNode):
    """Integers or truth values known beforehand; the type of the value says which."""

    data: np.ndarray


@dataclass(frozen=True, eq=False)
class ExactCall(ProgramNode):
    """One call on integers, truth values, and float32 that every engine computes to the same bits (eq. 31).

    call: a name of exact_calls.EXACT_CALLS; arguments: by the names of its schema.
    """

    call: str
    arguments: Mapping[str, Argument]

    def __getitem__(self, argument: str) -> Argument:
        return self.arguments[argument]


def given(arguments: Mapping[str, Argument], values: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments of a call with what they read in their places. values: in the order of `read_by`."""
    known: Iterator[Any] = iter(values)

    def resolve(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return [resolve(item) for item in argument]
        return next(known) if isinstance(argument, Read) else argument

    return {name: resolve(argument) for name, argument in arguments.items()}


def _exact_constant(program: Scope, node: ExactConstant) -> np.ndarray:
    return node.data.astype(DTYPES[program.values[node.name].dtype])


def _exact_call(program: Scope, node: ExactCall, *values: np.ndarray) -> np.ndarray:
    """Raises ProgramError for numbers that a table does not have."""
    arguments = given(node.arguments, values)
    try:
        return exactly(node.call, arguments, program.values[node.name].dtype)
    except IndexError:
        raise ProgramError(f"{node.name!r} looks up numbers {arguments['numbers'].min()} to "
                           f"{arguments['numbers'].max()} in a table of {len(arguments['table'])}") from None


def _check_call(program: Scope, node: ExactCall) -> None:
    exact = EXACT_CALLS.get(node.call)
    if exact is None:
        raise ProgramError(f"node {node.name!r} calls {node.call!r}, which is no call on integers and truth values")
    if not exact.floats and any(program.values[name].dtype == "float32" for name in (
            node.name, *read_by(node.arguments))):
        raise ProgramError(f"node {node.name!r} calls {node.call!r}, which is not exact in float32")


_TOKENS = (None, 5)

RECORDS = {
    ExactConstant: Record(
        does="integers or truth values known beforehand",
        equations="",
        reads=reads_none,
        takes=frozenset(),
        writes="plain",
        wide="no",
        check=unchecked,
        reference=_exact_constant,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: (
            Example(ExactConstant("y", np.arange(5)), {}, Value((5,), None, "int64")),
            Example(ExactConstant("y", np.array([[True, False]])), {}, Value((1, 2), None, "bool")),
        ),
    ),
    ExactCall: Record(
        does="one call on token numbers, positions or masks, integers and truth values",
        equations="31",
        reads=lambda node: read_by(node.arguments),
        takes=PLAIN,
        writes="plain",
        wide="no",
        check=_check_call,
        reference=_exact_call,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: (
            Example(ExactCall("y", "aten.add.Tensor", {"self": Read("a"), "other": 2, "alpha": 1}),
                    {"a": Value(_TOKENS, None, "int64")}, Value(_TOKENS, None, "int64")),
            Example(ExactCall("y", "aten.ne.Scalar", {"self": Read("a"), "other": 1}),
                    {"a": Value(_TOKENS, None, "int64")}, Value(_TOKENS, None, "bool")),
            Example(ExactCall("y", "aten.logical_and.default", {"self": Read("a"), "other": Read("b")}),
                    {"a": Value(_TOKENS, None, "bool"), "b": Value(_TOKENS, None, "bool")},
                    Value(_TOKENS, None, "bool")),
            Example(ExactCall("y", "aten.where.ScalarSelf", {
                "condition": Read("a"), "self": 0.0, "other": Read("b")}),
                    {"a": Value(_TOKENS, None, "bool"), "b": Value(_TOKENS, None)}, Value(_TOKENS, None)),
        ),
    ),
}
