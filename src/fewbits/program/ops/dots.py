"""Sums of products: convolutions, fully connected layers, matrix products of activations."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from torch import nn

from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.program import rescale
from fewbits.program.accumulator import Bound, dot_bound, interval
from fewbits.program.node import Margins, ProgramNode, Sizes
from fewbits.program.ops import fits
from fewbits.program.ops.record import (
    Called,
    Example,
    Operations,
    Record,
    Rescaling,
    Sums,
    always,
    holds_nothing,
    reads_one,
    reads_two,
)
from fewbits.program.ops.samples import IMAGE, SUMS, WIDE, X, Y, weight
from fewbits.program.ops.steps import Codes, centred, convolved, rescaled
from fewbits.program.ops.work import float_products, integer_products, numbers, requantized, together
from fewbits.program.parts import parts
from fewbits.program.value import Scope, Value

__all__ = ["Conv", "Linear", "MatMul"]


@dataclass(frozen=True, eq=False)
class Conv(ProgramNode):
    """Cross-correlation over one to three axes, grouped, strided, dilated; padded with the number 0 (the zero point).

    weight: [O, C/groups, *kernel], one scale or one per output channel; bias: int32 [O], at scale
    x_scale · weight_scale; low, high: bounds of the output codes (they carry a following ReLU or clamp).
    """

    input: str
    weight: Quantized
    bias: np.ndarray | None
    stride: Sizes
    padding: Margins
    dilation: Sizes
    groups: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Linear(ProgramNode):
    """Last axis times a matrix. weight: [O, K]; bias, low, high: as for Conv."""

    input: str
    weight: Quantized
    bias: np.ndarray | None
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class MatMul(ProgramNode):
    """Matrix product of two values over the last axis of the first and the last but one of the second, the axes
    before them broadcast (eq. 11)."""

    first: str
    second: str
    low: int
    high: int


# ------------------------------------------------------------------------------- the definition


def _conv(program: Scope, node: Conv, x: Codes) -> Codes:
    w = _centred(node)
    numbers = centred(program, node.input, x)
    acc = _added(program, node, w, lambda w: convolved(numbers, w, node.stride, node.padding, node.dilation,
                                                       node.groups))
    return _finish(program, node, acc, 1, "products")


def _linear(program: Scope, node: Linear, x: Codes) -> Codes:
    w = _centred(node)
    numbers = centred(program, node.input, x)
    acc = _added(program, node, w, lambda w: np.einsum("...k,ok->...o", numbers, w))
    return _finish(program, node, acc, -1, "linear")


def _centred(node: Conv | Linear) -> np.ndarray:
    """The weight's codes less their zero points: int64."""
    w, zero = node.weight.codes.astype(np.int64), node.weight.encoding.zero_point
    if zero.any():
        w -= zero.reshape(zero.shape + (1,) * (w.ndim - zero.ndim)) if zero.ndim else zero
    return w


def _added(program: Scope, node: Conv | Linear, w: np.ndarray,
           sums: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sums of products; where the profile splits them, of parts that are each kept to its width (eq. 23)."""
    bits = program.profile.sum_bits
    cuts = parts(node.weight, program.encoding(node.input), bits) if program.profile.split else None
    if cuts is None:
        return sums(w)
    total: Any = 0
    for cut in cuts:
        part = np.zeros_like(w)
        flat, source = part.reshape(len(w), -1), w.reshape(len(w), -1)
        flat[:, cut] = source[:, cut]
        half = 2 ** (bits - 1)
        total = total + ((sums(part) + half) % (2 * half) - half)  # as an accumulator of that width wraps
    return total


def _finish(program: Scope, node: Conv | Linear, acc: np.ndarray, channel_axis: int, role: rescale.Role) -> Codes:
    """Adds the bias, then requantises (eq. 5, 6) or keeps the accumulator."""
    shape = [1] * acc.ndim
    shape[channel_axis] = -1
    if node.bias is not None:
        acc = acc + node.bias.astype(np.int64).reshape(shape)
    y = program.encoding(node.name)
    if program.is_accumulator(node.name):
        return acc.astype(y.format.dtype)
    factor = _dot_factor(program, node)
    factor = factor.reshape(tuple(shape)) if factor.ndim else factor
    return rescaled(acc, factor, rescale.rounding(program.profile, role), y, node.low, node.high)


def _matmul(program: Scope, node: MatMul, a: Codes, b: Codes) -> Codes:
    acc = np.einsum("...ik,...kj->...ij", centred(program, node.first, a), centred(program, node.second, b))
    return rescaled(acc, _matrix_factor(program, node), rescale.rounding(program.profile, "products"),
                    program.encoding(node.name), node.low, node.high)


def _dot_factor(program: Scope, node: Conv | Linear) -> rescale.Factor:
    return rescale.dot(program.profile, program.encoding(node.input), node.weight.encoding, program.encoding(node.name))


def _matrix_factor(program: Scope, node: MatMul) -> rescale.Factor:
    return rescale.matrix_product(program.profile, program.encoding(node.first), program.encoding(node.second),
                                  program.encoding(node.name))


# ------------------------------------------------------------------------------- what is known of it


def _dot_sums(program: Scope, node: Conv | Linear) -> Bound:
    return dot_bound(node.weight, node.bias, *interval(program.encoding(node.input)))


def _matrix_sums(program: Scope, node: MatMul) -> Bound:
    a, b = (interval(program.encoding(name)) for name in (node.first, node.second))
    products = [p * q for p in a for q in b]
    count = program.count(node.first, (-1,))
    return Bound(count * min(products), count * max(products))


def _dot_products(program: Scope, node: Conv | Linear) -> int:
    return numbers(program, node.name) * prod(node.weight.codes.shape[1:])


def _matrix_products(program: Scope, node: MatMul) -> int:
    return numbers(program, node.name) * program.count(node.first, (-1,))


def _dot_work(program: Scope, node: Conv | Linear) -> Operations:
    return together(integer_products(program, _dot_products(program, node), node.input), requantized(program, node))


def _matrix_work(program: Scope, node: MatMul) -> Operations:
    return together(integer_products(program, _matrix_products(program, node), node.first, node.second),
                    requantized(program, node))


_DOT_SUMS = Sums(_dot_sums, _dot_products, lambda program, node: node.weight)
_BIAS = np.array([300, -200, 0, 90], np.int32)


def _attention(x):
    rows = x.flatten(2)
    return (rows @ rows.transpose(1, 2)).softmax(-1).matmul(rows).unflatten(2, x.shape[2:])


def _conv_examples() -> tuple[Example, ...]:
    image = {"x": Value(IMAGE, X)}
    one = (1, 1)
    return (
        Example(Conv("y", "x", weight((4, 3, 3, 2)), _BIAS, (2, 1), ((1, 1), (0, 1)), (1, 2), 1, 3, 255), image,
                Value((None, 4, 3, 6), Y)),
        Example(Conv("y", "x", weight((3, 1, 3, 3), zero_points=True), None, one, ((1, 1), (1, 1)), one, 3, 0, 255),
                image, Value(IMAGE, Y)),
        Example(Conv("y", "x", weight((2, 3, 3), "int4", TENSOR), None, (1,), ((1, 1),), (1,), 1, 0, 90),
                {"x": Value((None, 3, 8), X)}, Value((None, 2, 8), Y)),
    )


def _linear_examples() -> tuple[Example, ...]:
    scaled = Quantized(weight((4, 5)).codes, Encoding(weight((4, 5)).encoding.format, 0.01))
    return (
        Example(Linear("y", "x", weight((4, 5)), _BIAS, 3, 255), {"x": Value((None, 5), X)}, Value((None, 4), Y)),
        Example(Linear("y", "x", weight((4, 5), zero_points=True), None, 0, 255), {"x": Value((None, 2, 5), X)},
                Value((None, 2, 4), Y)),
        Example(Linear("y", "x", scaled, _BIAS, -(2**31), 2**31 - 1), {"x": Value((None, 5), X)},
                Value((None, 4), SUMS)),
    )


RECORDS = {
    Conv: Record(
        does="cross-correlation over one to three axes with weights of its own, and a bias",
        equations="4, 5, 6, 23",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.conv,
        reference=_conv,
        sums=_DOT_SUMS,
        rescaling=Rescaling(_dot_factor, lambda program, node: _dot_sums(program, node).magnitude, "products"),
        limits={"convolution over three axes": lambda program, node: len(node.stride) == 3},
        work=_dot_work,
        float_work=lambda program, node: float_products(_dot_products(program, node)),
        holds=holds_nothing,
        computes=("conv",),
        layer=lambda channels, height, width: nn.Conv2d(channels, channels, 3, padding=1),
        examples=_conv_examples,
    ),
    Linear: Record(
        does="the last axis times a matrix of weights, and a bias",
        equations="4, 5, 6, 23",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.linear,
        reference=_linear,
        sums=_DOT_SUMS,
        rescaling=Rescaling(_dot_factor, lambda program, node: _dot_sums(program, node).magnitude, "linear"),
        limits={},
        work=_dot_work,
        float_work=lambda program, node: float_products(_dot_products(program, node)),
        holds=holds_nothing,
        computes=("linear",),
        layer=lambda channels, height, width: nn.Linear(width, width),
        examples=_linear_examples,
    ),
    MatMul: Record(
        does="matrix product of two activations",
        equations="11",
        reads=reads_two,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="writes",
        check=fits.matmul,
        reference=_matmul,
        sums=Sums(_matrix_sums, _matrix_products, None),
        rescaling=Rescaling(_matrix_factor, lambda program, node: _matrix_sums(program, node).magnitude, "products"),
        limits={"product of two activation matrices": always},
        work=_matrix_work,
        float_work=lambda program, node: float_products(_matrix_products(program, node)),
        holds=holds_nothing,
        computes=("matmul",),
        layer=lambda channels, height, width: Called(_attention),
        examples=lambda: (
            Example(MatMul("y", "a", "b", -2048, 2000),
                    {"a": Value((None, 2, 3, 5), X), "b": Value((None, 2, 5, 4), Y)}, Value((None, 2, 3, 4), WIDE)),
            Example(MatMul("y", "a", "b", 0, 255), {"a": Value((None, 2, 3, 5), X), "b": Value((None, 1, 5, 4), Y)},
                    Value((None, 2, 3, 4), Y)),),
    ),
}
