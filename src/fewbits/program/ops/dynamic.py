"""Dot products with dynamic quantization: the scale of what they read is computed from each batch at run time."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from fewbits.errors import ProgramError
from fewbits.numerics.formats import Int
from fewbits.program import dynamic
from fewbits.program.accumulator import Bound, dot_bound
from fewbits.program.node import Margins, ProgramNode, Sizes
from fewbits.program.ops import fits
from fewbits.program.ops.record import Example, Operations, Record, Sums, holds_nothing
from fewbits.program.ops.samples import IMAGE, weight
from fewbits.program.ops.steps import Codes, convolved, f32
from fewbits.program.ops.work import float_products, numbers
from fewbits.program.value import Scope, Value

__all__ = ["Dynamic", "DynamicConv", "DynamicLinear"]


@dataclass(frozen=True, eq=False)
class DynamicConv(ProgramNode):
    """As Conv, of float32 that is brought to codes by its own range in each run, to float32 (eq. 28 to 30).

    weight: name of a constant in signed integers, one scale or one per output channel, zero point 0; bias: name of a
    float constant [O].
    """

    input: str
    weight: str
    bias: str | None
    stride: Sizes
    padding: Margins
    dilation: Sizes
    groups: int


@dataclass(frozen=True, eq=False)
class DynamicLinear(ProgramNode):
    """As Linear, of float32 that is brought to codes by its own range in each run. weight, bias: as for DynamicConv."""

    input: str
    weight: str
    bias: str | None


Dynamic = DynamicConv | DynamicLinear
"""The nodes that find a range when they run."""


def _dynamic_conv(program: Scope, node: DynamicConv, x: np.ndarray, w: Codes, *bias: np.ndarray) -> np.ndarray:
    wide = w.astype(np.int64)
    return _dynamic(program, node, x, lambda centred: convolved(centred, wide, node.stride, node.padding,
                                                                node.dilation, node.groups), 1, *bias)


def _dynamic_linear(program: Scope, node: DynamicLinear, x: np.ndarray, w: Codes, *bias: np.ndarray) -> np.ndarray:
    wide = w.astype(np.int64)
    return _dynamic(program, node, x, lambda centred: np.einsum("...k,ok->...o", centred, wide), -1, *bias)


def _dynamic(program: Scope, node: Dynamic, x: np.ndarray, sums: Callable[[np.ndarray], np.ndarray],
             channel_axis: int, *bias: np.ndarray) -> np.ndarray:
    """Codes by the range of x, exact sums, float32 (eq. 28 to 30)."""
    grid = dynamic.grid_of(x)
    acc = sums(dynamic.centred_codes(x, grid))
    shape = [1] * acc.ndim
    shape[channel_axis] = -1
    scale = dynamic.result_scale(grid, program.constant(node.weight))
    y = acc.astype(f32) * (scale.reshape(shape) if scale.ndim else scale)
    return y + bias[0].reshape(shape) if bias else y


def _reads(node: Dynamic) -> tuple[str, ...]:
    return (node.input, node.weight) if node.bias is None else (node.input, node.weight, node.bias)


def _check(program: Scope, node: Dynamic) -> None:
    """The weight is codes that integer sums can be taken with, all else float."""
    for name in _reads(node):
        if (name == node.weight) != program.is_constant(name):
            raise ProgramError(f"node {node.name!r} cannot read {name!r}: its weight is a constant in codes, and "
                               "what it takes float")
    encoding = program.encoding(node.weight)
    if not (isinstance(encoding.format, Int) and encoding.format.signed and encoding.format.bits <= 8
            and not encoding.zero_point.any() and encoding.block.sizes in ((), (1,))):
        raise ProgramError(f"node {node.name!r} cannot sum with {node.weight!r}: it takes signed integers of at most "
                           "8 bits with zero point 0, and one scale for all or per output channel")
    (fits.conv if isinstance(node, DynamicConv) else fits.linear)(program, node)


def _sums(program: Scope, node: Dynamic) -> Bound:
    return dot_bound(program.constant(node.weight), None, *dynamic.CENTRED)


def _products(program: Scope, node: Dynamic) -> int:
    return numbers(program, node.name) * prod(program.constant(node.weight).codes.shape[1:])


def _work(program: Scope, node: Dynamic) -> Operations:
    """Its codes, and the floats its sums become."""
    count, floats = _products(program, node), numbers(program, node.input, node.name)
    return {"multiply int8": count, "add int32": count, "multiply fp32": floats, "add fp32": floats}


def _record(does: str, reference: Callable[..., np.ndarray], *examples: Example) -> Record:
    return Record(
        does=does,
        equations="28, 29, 30",
        reads=_reads,
        takes=frozenset({"codes", "float32"}),
        writes="float32",
        wide="no",
        check=_check,
        reference=reference,
        sums=Sums(_sums, _products, lambda program, node: program.constant(node.weight)),
        rescaling=None,
        limits={},
        work=_work,
        float_work=lambda program, node: float_products(_products(program, node)),
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: examples,
    )


RECORDS = {
    DynamicConv: _record(
        "convolution with dynamic quantization of what it reads", _dynamic_conv,
        Example(DynamicConv("y", "x", "w", None, (1, 2), ((1, 1), (0, 1)), (1, 1), 1), {"x": Value(IMAGE, None)},
                Value((None, 4, 6, 4), None), {"w": weight((4, 3, 3, 2))})),
    DynamicLinear: _record(
        "fully connected layer with dynamic quantization of what it reads", _dynamic_linear,
        Example(DynamicLinear("y", "x", "w", None), {"x": Value((None, 3, 5), None)}, Value((None, 3, 4), None),
                {"w": weight((4, 5), "int4")})),
}
