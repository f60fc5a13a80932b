"""Operators that bring numbers to codes, to other codes, and back to numbers."""

from dataclasses import dataclass

import numpy as np

from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.numerics.rounding import half_away, half_even
from fewbits.program.node import ProgramNode
from fewbits.program.ops import fits
from fewbits.program.ops.record import (
    Example,
    Operations,
    Record,
    Rescaling,
    called,
    holds_nothing,
    reads_none,
    reads_one,
)
from fewbits.program.ops.samples import IMAGE, SUMS, WIDE, X, Y, codes
from fewbits.program.ops.steps import Codes, coarsest_regrid, reach, regridded
from fewbits.program.ops.work import nothing, numbers, requantized
from fewbits.program.value import Scope, Value

__all__ = ["Concat", "Constant", "Dequantize", "Quantize", "Requantize"]


@dataclass(frozen=True, eq=False)
class Quantize(ProgramNode):
    """Float32, of an input or an island, to codes (eq. 1)."""

    input: str


@dataclass(frozen=True, eq=False)
class Constant(ProgramNode):
    """Codes known beforehand."""

    data: Quantized


@dataclass(frozen=True, eq=False)
class Requantize(ProgramNode):
    """The same numbers on another grid, bounded: a ReLU or clamp that stands alone."""

    input: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Concat(ProgramNode):
    """Values one behind the other along an axis, each brought to the output's encoding; one with a batch of 1 (a
    constant) stands for every image of the others."""

    inputs: tuple[str, ...]
    axis: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Dequantize(ProgramNode):
    """Codes, sums or a constant's codes to the float32 numbers they stand for (eq. 2): the way into a float island."""

    input: str


def _quantize(program: Scope, node: Quantize, x: np.ndarray) -> Codes:
    rounding = half_even if program.profile.entering == "half_even" else half_away
    return program.encoding(node.name).encode(x, rounding).codes


def _constant(program: Scope, node: Constant) -> Codes:
    return node.data.codes


def _requantize(program: Scope, node: Requantize, x: Codes) -> Codes:
    return regridded(program, x, node.input, node.name, node.low, node.high)


def _concat(program: Scope, node: Concat, *inputs: Codes) -> Codes:
    batch = max(len(codes) for codes in inputs)
    inputs = tuple(np.broadcast_to(codes, (batch, *codes.shape[1:])) for codes in inputs)
    return np.concatenate([regridded(program, codes, name, node.name, node.low, node.high)
                           for name, codes in zip(node.inputs, inputs, strict=True)], node.axis)


def _dequantize(program: Scope, node: Dequantize, x: Codes) -> np.ndarray:
    return program.encoding(node.input).decode(x)


def _decoding_work(program: Scope, node: Dequantize) -> Operations:
    """Parameters are decoded beforehand."""
    return {} if program.is_constant(node.input) else {"multiply fp32": numbers(program, node.name)}


RECORDS = {
    Quantize: Record(
        does="float32 numbers, of an input or an island, to codes",
        equations="1",
        reads=reads_one,
        takes=frozenset({"float32"}),
        writes="codes",
        wide="writes",
        check=fits.same,
        reference=_quantize,
        sums=None,
        rescaling=None,
        limits={},
        work=requantized,
        float_work=None,
        holds=holds_nothing,
        computes=("enter",),
        layer=None,
        examples=lambda: (Example(Quantize("y", "x"), {"x": Value(IMAGE, None)}, Value(IMAGE, Y)),),
    ),
    Constant: Record(
        does="codes known beforehand",
        equations="",
        reads=reads_none,
        takes=frozenset(),
        writes="codes",
        wide="no",
        check=fits.constant,
        reference=_constant,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: (Example(Constant("y", codes((1, 3, 1, 1), Y)), {}, Value((1, 3, 1, 1), Y)),),
    ),
    Requantize: Record(
        does="codes on another grid, bounded: a ReLU or clamp that stands alone",
        equations="2, 1",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.same,
        reference=_requantize,
        sums=None,
        rescaling=Rescaling(lambda program, node: coarsest_regrid(program, (node.input,), node.name),
                            lambda program, node: reach(program, node.input), "other"),
        limits={},
        work=requantized,
        float_work=nothing,
        holds=holds_nothing,
        computes=("clamp",),
        layer=called(lambda x: x.flip(3).clamp(-0.2, 0.9)),
        examples=lambda: (
            Example(Requantize("y", "x", 3, 120), {"x": Value(IMAGE, X)}, Value(IMAGE, Y)),
            Example(Requantize("y", "x", -20, 90), {"x": Value(IMAGE, _SIGNED)}, Value(IMAGE, _SIGNED_FINER), {},
                    "gemmlowp"),
        ),
    ),
    Concat: Record(
        does="values one behind the other along an axis, each requantized to the grid of all",
        equations="2, 1",
        reads=lambda node: node.inputs,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="writes",
        check=fits.concat,
        reference=_concat,
        sums=None,
        rescaling=Rescaling(lambda program, node: coarsest_regrid(program, node.inputs, node.name),
                            lambda program, node: reach(program, *node.inputs), "other"),
        limits={},
        work=requantized,
        float_work=nothing,
        holds=holds_nothing,
        computes=("concat",),
        layer=None,
        examples=lambda: (
            Example(Concat("y", ("a", "b"), 1, 0, 255), {"a": Value(IMAGE, X), "b": Value((None, 2, 6, 7), Y)},
                    Value((None, 5, 6, 7), Y)),
            *(Example(Concat("y", ("a", "c"), 1, low, 200), {"a": Value((None, 2, 4), X)}, Value((None, 3, 4), to),
                      {"c": codes((1, 1, 4), X)}) for low, to in ((3, Y), (-2048, WIDE))),
        ),
    ),
    Dequantize: Record(
        does="codes or sums to the float32 numbers they stand for: the way into a float island",
        equations="2",
        reads=reads_one,
        takes=frozenset({"codes", "sums"}),
        writes="float32",
        wide="reads",
        check=fits.same,
        reference=_dequantize,
        sums=None,
        rescaling=None,
        limits={},
        work=_decoding_work,
        float_work=None,
        holds=holds_nothing,
        computes=(),
        layer=None,
        examples=lambda: (
            Example(Dequantize("y", "x"), {"x": Value(IMAGE, X)}, Value(IMAGE, None)),
            Example(Dequantize("y", "t"), {"t": Value((None, 5), SUMS)}, Value((None, 5), None)),
            Example(Dequantize("y", "c"), {}, Value((6, 4), None), {"c": codes((6, 4), Encoding(parse("int4"), 0.1))}),
        ),
    ),
}

_SIGNED, _SIGNED_FINER = Encoding(parse("int8"), 0.03, -5), Encoding(parse("int8"), 0.02, 7)
