"""Two values joined number by number, broadcast: sums, differences, products, quotients, the larger of both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import parse
from fewbits.program import requantize as constants
from fewbits.program import rescale
from fewbits.program.fixed_point import ROUNDINGS, Fixed
from fewbits.program.node import ProgramNode
from fewbits.program.ops import fits
from fewbits.program.ops.record import (
    Example,
    Layer,
    Operations,
    Record,
    Rescaling,
    always,
    called,
    holds_nothing,
    reads_two,
)
from fewbits.program.ops.samples import IMAGE, WIDE, X, Y
from fewbits.program.ops.steps import Codes, centred, coarsest_regrid, f32, reach, regridded, rescaled, saturate
from fewbits.program.ops.work import multiply, numbers, requantized, together
from fewbits.program.value import Scope, Value

__all__ = ["Add", "Choose", "Div", "Max", "Min", "Mul", "Sub"]


@dataclass(frozen=True, eq=False)
class Add(ProgramNode):
    """Sum of two values of any encodings, broadcast; the profile says how sums are rounded (eq. 7)."""

    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Sub(ProgramNode):
    """Difference of two values of any encodings, broadcast (eq. 7, the float form; 21)."""

    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Mul(ProgramNode):
    """Product of two values of any encodings, broadcast (eq. 10)."""

    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Div(ProgramNode):
    """One value divided by another, of any encodings, broadcast; a divisor of 0 counts as 2^-64 (eq. 25)."""

    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Max(ProgramNode):
    """The larger of two values of any encodings, broadcast (eq. 24)."""

    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Min(ProgramNode):
    """The smaller of two values of any encodings, broadcast (eq. 24)."""

    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Choose(ProgramNode):
    """One of two values of any encodings by a truth value, the first where it is true, broadcast (eq. 32)."""

    condition: str
    first: str
    second: str
    low: int
    high: int


Pair = Add | Sub | Mul | Div | Max | Min


# ------------------------------------------------------------------------------- the definition


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32(a·b + c) with one rounding, for float32 a, b, c.

    The product is exact in float64; the sum is rounded to odd there, which makes the second rounding
    to float32 correct (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
    """
    product, c = np.broadcast_arrays(np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64))
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)  # exact (TwoSum)
    bits = np.ascontiguousarray(total).view(np.int64)
    towards_error = np.where((error > 0) == (total > 0), 1, -1)
    odd = bits + np.where((error != 0) & (bits & 1 == 0), towards_error, 0)
    return odd.view(np.float64).astype(f32).reshape(total.shape)


def add_codes(program: Scope, node: Add | Sub, a: Codes, b: Codes) -> Codes:
    """Eq. 7 or 21, in the form that the profile and the node have."""
    if program.profile.addition == "integer":
        return _add_integers(program, node, a, b)
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    if not is_fused(program, node):
        left, right = first.decode(a), second.decode(b)
        v = (left - right if isinstance(node, Sub) else left + right) / y.scale
        return saturate(v, int(y.zero_point), node.low, node.high, y)
    ratio_a, ratio_b, fixed = fma_constants(first, second, y)
    v = fma(a.astype(f32), ratio_a, fma(b.astype(f32), ratio_b, fixed))
    return saturate(v, 0, node.low, node.high, y)  # the zero point is inside `fixed`, before rounding


def is_fused(program: Scope, node: Add | Sub) -> bool:
    """Whether a sum takes the fma form of eq. 7; differences, sums that broadcast and those with wider codes than the
    profile's take the float form under every profile."""
    return (program.profile.addition == "fma" and isinstance(node, Add) and not _broadcasts(program, node)
            and not any(map(program.is_wide, (node.first, node.second, node.name))))


def add_codes_unfused(program: Scope, node: Add | Sub, a: Codes, b: Codes) -> Codes:
    """What a processor without fused multiply-adds makes of a sum that eq. 7 takes with them: every product rounded."""
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    ratio_a, ratio_b = first.scale / y.scale, second.scale / y.scale
    zero_a, zero_b, zero_y = (e.zero_point.astype(f32) for e in (first, second, y))
    fixed = zero_y - (ratio_a * zero_a + ratio_b * zero_b)
    v = (a.astype(f32) * ratio_a + fixed) + b.astype(f32) * ratio_b
    return saturate(v, 0, node.low, node.high, y)


def fma_constants(first: Encoding, second: Encoding, y: Encoding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """r_a, r_b and f of eq. 7: float32."""
    ratio_a, ratio_b = first.scale / y.scale, second.scale / y.scale
    zero_a, zero_b, zero_y = (e.zero_point.astype(f32) for e in (first, second, y))
    return ratio_a, ratio_b, zero_y - fma(ratio_a, zero_a, ratio_b * zero_b)


def _add_integers(program: Scope, node: Add | Sub, a: Codes, b: Codes) -> Codes:
    """Eq. 21: both codes raised, brought to the grid of twice the larger scale, added, and brought to the output's."""
    y, rounding = program.encoding(node.name), rescale.rounding(program.profile, "other")
    raised, onto_a, onto_b, from_sum = _addition(program, node)
    left = ROUNDINGS[rounding](centred(program, node.first, a) << raised, onto_a)
    right = ROUNDINGS[rounding](centred(program, node.second, b) << raised, onto_b)
    return rescaled(left - right if isinstance(node, Sub) else left + right, from_sum, rounding, y, node.low, node.high)


def _addition(program: Scope, node: Add | Sub) -> tuple[int, Fixed, Fixed, Fixed]:
    return rescale.addition(program.profile, program.encoding(node.first), program.encoding(node.second),
                            program.encoding(node.name))


def _raised_reach(program: Scope, node: Add | Sub) -> int:
    return reach(program, node.first, node.second) << _addition(program, node)[0]


def _mul(program: Scope, node: Mul, a: Codes, b: Codes) -> Codes:
    y = program.encoding(node.name)
    product = centred(program, node.first, a) * centred(program, node.second, b)
    factor = _product_factor(program, node)
    if isinstance(factor, Fixed):
        return rescaled(product, factor, rescale.rounding(program.profile, "other"), y, node.low, node.high)
    v = product.astype(f32) * factor + y.zero_point.astype(f32)
    return saturate(v, 0, node.low, node.high, y)  # the zero point is added before rounding


def _product_factor(program: Scope, node: Mul) -> rescale.Factor:
    return rescale.product(program.profile, program.encoding(node.first), program.encoding(node.second),
                           program.encoding(node.name))


def _div(program: Scope, node: Div, a: Codes, b: Codes) -> Codes:
    y, divisor = program.encoding(node.name), program.encoding(node.second).decode(b)
    divisor = np.where(divisor == 0, f32(constants.NO_DIVISOR), divisor)
    with np.errstate(over="ignore"):  # infinite quotients saturate
        v = program.encoding(node.first).decode(a) / divisor / y.scale
    return saturate(v, int(y.zero_point), node.low, node.high, y)


def _max_or_min(program: Scope, node: Max | Min, a: Codes, b: Codes) -> Codes:
    first, second = (regridded(program, codes, name, node.name, node.low, node.high)
                     for codes, name in ((a, node.first), (b, node.second)))
    return np.minimum(first, second) if isinstance(node, Min) else np.maximum(first, second)


def _choose(program: Scope, node: Choose, condition: np.ndarray, a: Codes, b: Codes) -> Codes:
    first, second = (regridded(program, codes, name, node.name, node.low, node.high)
                     for codes, name in ((a, node.first), (b, node.second)))
    return np.where(condition, first, second)


# ------------------------------------------------------------------------------- what is known of it


def _check_choose(program: Scope, node: Choose) -> None:
    if program.kind(node.condition) != "bool" or not program.kind(node.first) == program.kind(node.second) == "codes":
        raise ProgramError(f"node {node.name!r} chooses between codes by truth values, and reads others")
    fits.choose(program, node)


def _broadcasts(program: Scope, node: Pair) -> bool:
    """Whether operands broadcast, whatever the batch: a constant does, though one image may have its shape."""
    return program.values[node.first].shape != program.values[node.second].shape


def _both_work(program: Scope, node: Pair | Choose) -> Operations:
    """Each operand decoded, and the result brought to codes."""
    written = numbers(program, node.name)
    return {"multiply fp32": 2 * written, "add fp32": 2 * written}


def _mul_work(program: Scope, node: Mul) -> Operations:
    return together({multiply(program, node.first, node.second): numbers(program, node.name)},
                    requantized(program, node))


def _no_arithmetic(program: Scope, node: Pair | Choose) -> Operations:
    return {}


def _one_addition(program: Scope, node: Pair) -> Operations:
    return {"add fp32": numbers(program, node.name)}


def _one_product(program: Scope, node: Pair) -> Operations:
    return {"multiply fp32": numbers(program, node.name)}


_ROW = Value((None, 1, 1, 7), Y)
_BOTH = {"a": Value(IMAGE, X), "b": Value(IMAGE, Y)}
_ONE_BROADCAST = {"a": Value(IMAGE, X), "b": _ROW}
_ONE_WIDE = {"a": Value(IMAGE, X), "b": Value(IMAGE, WIDE)}
_SIGNED = {"a": Value(IMAGE, Encoding(parse("int8"), 0.03, -5)), "b": Value(IMAGE, Encoding(parse("int8"), 0.01, 40))}
_SIGNED_RESULT = Value(IMAGE, Encoding(parse("int8"), 0.04, 7))


def _sum(does: str, computes: str, limits: Mapping[str, Callable[[Scope, Pair], bool]], layer: Layer,
         examples: Callable[[], tuple[Example, ...]]) -> Record:
    """The record of a sum or a difference. limits: beside that of all that broadcast."""
    return Record(
        does=does,
        equations="7, 21",
        reads=reads_two,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="both",
        check=fits.pair,
        reference=add_codes,
        sums=None,
        rescaling=Rescaling(lambda program, node: _addition(program, node)[3], _raised_reach, "other"),
        limits={"broadcast sum or product": _broadcasts, **limits},
        work=_both_work,
        float_work=_one_addition,
        holds=holds_nothing,
        computes=(computes,),
        layer=layer,
        examples=examples,
    )


def _extreme(kind: type[Max] | type[Min], does: str, layer: Layer) -> Record:
    """The record of the larger or the smaller of two."""
    return Record(
        does=does,
        equations="24",
        reads=reads_two,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.pair,
        reference=_max_or_min,
        sums=None,
        rescaling=Rescaling(lambda program, node: coarsest_regrid(program, (node.first, node.second), node.name),
                            lambda program, node: reach(program, node.first, node.second), "other"),
        limits={},
        work=_both_work,
        float_work=_one_addition,
        holds=holds_nothing,
        computes=("larger",),
        layer=layer,
        examples=lambda: (
            Example(kind("y", "a", "b", 0, 255), _BOTH, Value(IMAGE, Y)),
            Example(kind("y", "a", "b", 5, 250), _ONE_BROADCAST, Value(IMAGE, X)),
            Example(kind("y", "a", "b", -128, 127), _SIGNED, _SIGNED_RESULT, {}, "gemmlowp"),
        ),
    )


RECORDS = {
    Add: _sum("sum of two activations", "add", {}, called(lambda x: x + x.flip(2)), lambda: (
        Example(Add("y", "a", "b", 3, 255), _BOTH, Value(IMAGE, Y)),
        Example(Add("y", "a", "b", 0, 250), _ONE_BROADCAST, Value(IMAGE, X)),
        Example(Add("y", "a", "b", 0, 255), _BOTH, Value(IMAGE, Y), {}, "onnxruntime-portable"),
        Example(Add("y", "a", "b", -128, 127), _SIGNED, _SIGNED_RESULT, {}, "gemmlowp"),
        Example(Add("y", "a", "b", -2048, 2047), _BOTH, Value(IMAGE, WIDE)),
        Example(Add("y", "a", "b", 10, 255), _ONE_WIDE, Value(IMAGE, Y)),
    )),
    Sub: _sum("difference of two activations", "sub", {"difference": always}, called(lambda x: x - x.flip(3)), lambda: (
        Example(Sub("y", "a", "b", 0, 255), _BOTH, Value(IMAGE, X)),
        Example(Sub("y", "a", "b", 0, 250), _ONE_BROADCAST, Value(IMAGE, X)),
        Example(Sub("y", "a", "b", -300, 2047), _ONE_WIDE, Value(IMAGE, WIDE)),
        Example(Sub("y", "a", "b", -128, 127), _SIGNED, _SIGNED_RESULT, {}, "gemmlowp"),
    )),
    Mul: Record(
        does="product of two activations",
        equations="10",
        reads=reads_two,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="both",
        check=fits.pair,
        reference=_mul,
        sums=None,
        rescaling=Rescaling(_product_factor,
                            lambda program, node: reach(program, node.first) * reach(program, node.second), "other"),
        limits={"broadcast sum or product": _broadcasts},
        work=_mul_work,
        float_work=_one_product,
        holds=holds_nothing,
        computes=("mul",),
        layer=called(lambda x: x * x.flip(3)),
        examples=lambda: (
            Example(Mul("y", "a", "b", 0, 255), _BOTH, Value(IMAGE, Y)),
            Example(Mul("y", "a", "b", 0, 250), _ONE_BROADCAST, Value(IMAGE, X)),
            Example(Mul("y", "a", "b", 3, 250), _ONE_WIDE, Value(IMAGE, X)),
            Example(Mul("y", "a", "b", -2000, 2047), _BOTH, Value(IMAGE, WIDE)),
            Example(Mul("y", "a", "b", -128, 127), _SIGNED, _SIGNED_RESULT, {}, "litert"),
        ),
    ),
    Div: Record(
        does="one activation divided by another",
        equations="25",
        reads=reads_two,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.pair,
        reference=_div,
        sums=None,
        rescaling=None,
        limits={"quotient of two activations": always},
        work=_both_work,
        float_work=_one_product,
        holds=holds_nothing,
        computes=("quotient",),
        layer=called(lambda x: x / (x.flip(3).abs() + 0.5)),
        examples=lambda: (
            Example(Div("y", "a", "b", 0, 255), _BOTH, Value(IMAGE, Y)),
            Example(Div("y", "a", "b", 0, 250), _ONE_BROADCAST, Value(IMAGE, X)),
        ),
    ),
    Max: _extreme(Max, "the larger of two activations", called(lambda x: torch.maximum(x, x.flip(3)))),
    Min: _extreme(Min, "the smaller of two activations", called(lambda x: torch.minimum(x, x.flip(3)))),
    Choose: Record(
        does="one of two activations, by a mask",
        equations="32",
        reads=lambda node: (node.condition, node.first, node.second),
        takes=frozenset({"codes", "bool"}),
        writes="codes",
        wide="no",
        check=_check_choose,
        reference=_choose,
        sums=None,
        rescaling=Rescaling(lambda program, node: coarsest_regrid(program, (node.first, node.second), node.name),
                            lambda program, node: reach(program, node.first, node.second), "other"),
        limits={},
        work=_both_work,
        float_work=_no_arithmetic,
        holds=holds_nothing,
        computes=("choose",),
        layer=called(lambda x: x.masked_fill(torch.arange(x.shape[3]) > x.shape[3] // 2, 0.5)),
        examples=lambda: (
            Example(Choose("y", "m", "a", "b", 0, 255), _BOTH | {"m": Value((None, 1, 6, 7), None, "bool")},
                    Value(IMAGE, Y)),
            Example(Choose("y", "m", "a", "b", 5, 250), _ONE_BROADCAST | {"m": Value(IMAGE, None, "bool")},
                    Value(IMAGE, X)),
        ),
    ),
}
