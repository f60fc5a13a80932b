"""Operators inside float islands: constants and calls in float32."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fewbits.errors import ProgramError
from fewbits.program.float_calls import FLOAT_CALLS, Argument, Read, called, read_by
from fewbits.program.node import ProgramNode
from fewbits.program.ops.record import Example, Operations, Record, holds_nothing, reads_none, unchecked
from fewbits.program.ops.samples import IMAGE
from fewbits.program.ops.work import float_products, nothing, numbers
from fewbits.program.value import Scope, Value

__all__ = ["FloatCall", "FloatConstant"]


@dataclass(frozen=True, eq=False)
class FloatConstant(ProgramNode):
    """float32 numbers known beforehand, that a float island reads: a bias, the gain of a norm."""

    data: np.ndarray


@dataclass(frozen=True, eq=False)
class FloatCall(ProgramNode):
    """One call in float32 (eq. 27), on float32 values, int64 ones that number rows, or masks.

    call: a name of float_calls.FLOAT_CALLS; arguments: by the names of its schema.
    """

    call: str
    arguments: Mapping[str, Argument]

    def __getitem__(self, argument: str) -> Argument:
        return self.arguments[argument]


def _float_constant(program: Scope, node: FloatConstant) -> np.ndarray:
    return node.data


def _rounded_once(program: Scope, node: FloatCall, *values: np.ndarray) -> np.ndarray:
    """The call in float64 on float32 (or int64) operands, rounded to float32 once (eq. 27)."""
    operands = tuple(torch.from_numpy(np.array(x, np.float64 if x.dtype == np.float32 else x.dtype)) for x in values)
    with torch.no_grad():
        return called(node.name, node.call, node.arguments, operands).numpy().astype(np.float32)


def _check_call(program: Scope, node: FloatCall) -> None:
    if node.call not in FLOAT_CALLS:
        raise ProgramError(f"node {node.name!r} calls {node.call!r}, which is no float operator")


def _call_work(program: Scope, node: FloatCall) -> Operations:
    written, (first, *others) = numbers(program, node.name), read_by(node.arguments)
    match node.call.removeprefix("aten.").split(".")[0]:
        case "conv1d" | "conv2d" | "conv3d" | "linear":
            return float_products(written * program.count(others[0], range(1, len(program.values[others[0]].shape))))
        case "matmul" | "bmm":
            return float_products(written * program.count(first, (-1,)))
        case "add" | "sub":
            return {"add fp32": written}
        case "mean" | "avg_pool2d" | "adaptive_avg_pool2d":
            return {"add fp32": numbers(program, first), "multiply fp32": written}
        case "layer_norm":
            return {"add fp32": 4 * written, "multiply fp32": 3 * written}
        case "embedding" | "cat" | "concat" | "join" | "relu" | "relu6" | "hardtanh" | "clamp":
            return {}
        case _:
            return {"multiply fp32": written}


RECORDS = {
    FloatConstant: Record(
        does="float32 numbers known beforehand, for an island",
        equations="",
        reads=reads_none,
        takes=frozenset(),
        writes="float32",
        wide="no",
        check=unchecked,
        reference=_float_constant,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: (Example(FloatConstant("y", np.array([0.5, -1, 3], np.float32)), {}, Value((3,), None)),),
    ),
    FloatCall: Record(
        does="one call of a closed table in float32, inside an island",
        equations="27",
        reads=lambda node: read_by(node.arguments),
        takes=frozenset({"float32", "int64", "bool"}),
        writes="float32",
        wide="no",
        check=_check_call,
        reference=_rounded_once,
        sums=None,
        rescaling=None,
        limits={},
        work=_call_work,
        float_work=_call_work,
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: (
            Example(FloatCall("y", "aten.mul.Tensor", {"self": Read("a"), "other": Read("b")}),
                    {"a": Value(IMAGE, None), "b": Value(IMAGE, None)}, Value(IMAGE, None)),
            Example(FloatCall("y", "aten.cat.default", {"tensors": (Read("a"), Read("a")), "dim": 1}),
                    {"a": Value(IMAGE, None)}, Value((None, 6, 6, 7), None)),
        ),
    ),
}
