"""The calls that may stand in a float island: a closed table, so that a program is data and never code.

An island is the part of a program that its recipe leaves in float32. Its reference is each call in float64, rounded to
float32 once (docs/numerics.md, eq. 27); the torch executor makes the same call in float32.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fewbits.errors import ProgramError
from fewbits.program.functions import join, masked_softmax, quotient
from fewbits.program.unary import UNARY

aten = torch.ops.aten


@dataclass(frozen=True)
class Read:
    """An argument that is a value of the program."""

    value: str


Scalar = Read | bool | int | float | str | None
Argument = Scalar | tuple[Scalar, ...]

TOLERANCE = 1e-5
"""How far an engine's float32 may be from the reference, as a share of the largest number of the tensor."""

TOLERANCE_OF_STEPS = 2**-5
"""The same of a recurrence that computes in float and brings its states to 8-bit codes at each step: a code that two
engines round otherwise is one of 255 steps off, and goes on to the next step."""


def call_name(target: Callable[..., Any]) -> str:
    """What a call is named in a program: `aten.conv2d.default`, `masked_softmax`."""
    return str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__


_CALLS: tuple[Callable[..., Any], ...] = (
    aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default,
    aten.conv3d.padding, aten.linear.default, aten.matmul.default, aten.bmm.default,
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, quotient,
    aten.maximum.default, aten.minimum.default,
    *(row.call for row in UNARY), aten.prelu.default,
    aten.softmax.int, masked_softmax, aten.log_softmax.int, aten.layer_norm.default, aten.group_norm.default,
    aten.batch_norm.default, aten.embedding.default,
    aten.cat.default, aten.concat.default, join, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default, aten.mean.dim,
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default,
    aten.clamp_min.default, aten.clamp_max.default,
    aten.where.self, aten.rms_norm.default,
)

FLOAT_CALLS: Mapping[str, Callable[..., Any]] = {call_name(call): call for call in _CALLS}
"""Every call a FloatCall may name."""


def called(name: str, call: str, arguments: Mapping[str, Argument], values: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The result of the call of a node. name: the node's, for errors; values: what its arguments read, in their order.
    Raises ProgramError for row numbers that an embedding does not have."""
    given: Iterator[torch.Tensor] = iter(values)
    resolved = {argument: _resolved(value, given) for argument, value in arguments.items()}
    try:
        return FLOAT_CALLS[call](**resolved)
    except IndexError:  # an embedding's; no other call takes indices
        numbers, rows = resolved["indices"], len(resolved["weight"])
        raise ProgramError(f"{name!r} is given the row numbers {int(numbers.min())} to {int(numbers.max())}, but "
                           f"has rows 0 to {rows - 1}") from None


def _resolved(argument: Any, given: Iterator[torch.Tensor]) -> Any:
    """With the next of the values in the place of each that is read. (A function within `called` would hold itself, and
    with it the values, until the collector comes by.)"""
    if isinstance(argument, tuple):
        return [_resolved(item, given) for item in argument]
    return next(given) if isinstance(argument, Read) else argument


def read_by(arguments: Mapping[str, Argument]) -> tuple[str, ...]:
    """Names of the values that the arguments of a call read, in order."""
    items = (item for argument in arguments.values()
             for item in (argument if isinstance(argument, tuple) else (argument,)))
    return tuple(item.value for item in items if isinstance(item, Read))
