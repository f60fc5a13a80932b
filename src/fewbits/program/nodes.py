"""The operators of the integer graph. A node reads values by name and writes the value that bears its own name.

Codes in, codes out, except `Quantize`, which reads float32, `Embedding`, which reads int64, and the nodes of float
islands, from `Dequantize` on; those that only move numbers take both codes and floats. What each one computes, to the
bit, is `reference.py`; this file says what each one needs to know. Convolutions and pools work on
[N, C, ...] with one to three axes behind the channels (pools: two or three), everything else on any shape.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fewbits.numerics.encoding import Quantized

Sizes = tuple[int, ...]  # one per axis behind the channels
Margins = tuple[tuple[int, int], ...]  # (before, after) per axis behind the channels


@dataclass(frozen=True, eq=False)
class Quantize:
    """Float32, of an input or an island, to codes (eq. 1)."""

    name: str
    input: str


@dataclass(frozen=True, eq=False)
class Constant:
    """Codes known beforehand."""

    name: str
    data: Quantized


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation over one to three axes, grouped, strided, dilated; padded with the number 0 (the zero point).

    weight: [O, C/groups, *kernel], one scale or one per output channel; bias: int32 [O], at scale
    x_scale · weight_scale; low, high: bounds of the output codes (they carry a following ReLU or clamp).
    """

    name: str
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
class Linear:
    """Last axis times a matrix. weight: [O, K]; bias, low, high: as for Conv."""

    name: str
    input: str
    weight: Quantized
    bias: np.ndarray | None
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Add:
    """Sum or difference of two values of any encodings, broadcast; the profile says how sums are rounded (eq. 7)."""

    name: str
    first: str
    second: str
    low: int
    high: int
    subtract: bool = False


@dataclass(frozen=True, eq=False)
class Mul:
    """Product of two values of any encodings, broadcast (eq. 10)."""

    name: str
    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Quotient:
    """One value divided by another, of any encodings, broadcast; a divisor of 0 counts as 2^-64 (eq. 25)."""

    name: str
    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Larger:
    """The larger of two values of any encodings, or the `least`, broadcast (eq. 24)."""

    name: str
    first: str
    second: str
    low: int
    high: int
    least: bool = False


@dataclass(frozen=True, eq=False)
class MatMul:
    """Matrix product of two values over the last axis of the first and the last but one of the second, the axes
    before them broadcast (eq. 11)."""

    name: str
    first: str
    second: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Table:
    """Any function of one number, as its codes (eq. 12).

    table: output codes [rows, 256] (65536 for 16-bit codes), by input code less the lowest; one row, or one per
    channel (axis 1). function: what it computes, in words for a reader.
    """

    name: str
    input: str
    table: np.ndarray
    function: str


@dataclass(frozen=True, eq=False)
class Threshold:
    """Codes by comparison (eq. 16), for numbers that are not evenly spaced and for signs.

    It reads 32-bit sums or a float32 input, and nothing else. levels: the codes written, uint8 [n + 1], ascending;
    thresholds: ascending [rows, n], int32 for sums, float32 for an input; direction: int8 [rows], 1 or -1. As many
    thresholds of its row as direction · x reaches, so far along the levels x gets. rows: one, or one per entry of
    `axis`.
    """

    name: str
    input: str
    thresholds: np.ndarray
    direction: np.ndarray
    levels: np.ndarray
    axis: int


@dataclass(frozen=True, eq=False)
class Softmax:
    """Of factor · input, over the last axis (eq. 13). mask: uint8, broadcastable to the input; where it is 0 the
    result is 0; None for none."""

    name: str
    input: str
    mask: np.ndarray | None
    factor: float
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class LogSoftmax:
    """Over the last axis (eq. 26)."""

    name: str
    input: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """Over the last `axes` axes (eq. 14). gain, shift: float32, broadcastable to the input; epsilon: in units of the
    input, squared."""

    name: str
    input: str
    gain: np.ndarray
    shift: np.ndarray
    epsilon: float
    low: int
    high: int
    axes: int = 1


@dataclass(frozen=True, eq=False)
class Embedding:
    """Rows of a table by number. input: int64 [...]; table: codes [rows, K], in the output's encoding."""

    name: str
    input: str
    table: Quantized


@dataclass(frozen=True, eq=False)
class Pick:
    """Some of the entries along an axis, in any order, any number of times: nearest resize, expand, repeat, flip."""

    name: str
    input: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Requantize:
    """The same numbers on another grid, bounded: a ReLU or clamp that stands alone."""

    name: str
    input: str
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Largest code in each window; padding never wins."""

    name: str
    input: str
    kernel: Sizes
    stride: Sizes
    padding: Margins
    dilation: Sizes


@dataclass(frozen=True, eq=False)
class AveragePool:
    """Mean of each window (eq. 8), in which padding adds 0. counts: int32, what the sum of each window is divided by:
    one axis per axis of the image, each of the output's size or 1."""

    name: str
    input: str
    kernel: Sizes
    stride: Sizes
    padding: Margins
    counts: np.ndarray
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Mean:
    """Mean over axes (eq. 8). axes: ascending, none of them the batch; keep: whether they stay as 1."""

    name: str
    input: str
    axes: tuple[int, ...]
    keep: bool
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Concat:
    """Values one behind the other along an axis, each brought to the output's encoding; one with a batch of 1 (a
    constant) stands for every image of the others."""

    name: str
    inputs: tuple[str, ...]
    axis: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Reshape:
    """The same codes in another shape; -1 stands where the batch is."""

    name: str
    input: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Transpose:
    """Axes in another order."""

    name: str
    input: str
    permutation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slice:
    """start:stop:step along one axis, all of them ≥ 0 and inside the axis."""

    name: str
    input: str
    axis: int
    start: int
    stop: int
    step: int


@dataclass(frozen=True, eq=False)
class Pad:
    """The number 0 around: one (before, after) per axis, none negative."""

    name: str
    input: str
    margins: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Dequantize:
    """Codes, sums or a constant's codes to the float32 numbers they stand for (eq. 2): the way into a float island."""

    name: str
    input: str


@dataclass(frozen=True, eq=False)
class FloatConstant:
    """float32 numbers known beforehand, that a float island reads: a bias, the gain of a norm."""

    name: str
    data: np.ndarray


@dataclass(frozen=True)
class Read:
    """An argument that is a value of the program."""

    value: str


Scalar = Read | bool | int | float | str | None
Argument = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, eq=False)
class FloatCall:
    """One call in float32 (eq. 27), on float32 values, or int64 ones that number rows.

    call: a name of float_calls.FLOAT_CALLS; arguments: by the names of its schema.
    """

    name: str
    call: str
    arguments: Mapping[str, Argument]

    def __getitem__(self, argument: str) -> Argument:
        return self.arguments[argument]


@dataclass(frozen=True, eq=False)
class DynamicConv:
    """As Conv, of float32 that is brought to codes by its own range in each run, to float32 (eq. 28 to 30).

    weight: name of a constant in signed integers, one scale or one per output channel, zero point 0; bias: name of a
    float constant [O].
    """

    name: str
    input: str
    weight: str
    bias: str | None
    stride: Sizes
    padding: Margins
    dilation: Sizes
    groups: int


@dataclass(frozen=True, eq=False)
class DynamicLinear:
    """As Linear, of float32 that is brought to codes by its own range in each run. weight, bias: as for DynamicConv."""

    name: str
    input: str
    weight: str
    bias: str | None


Node = (Quantize | Constant | Conv | Linear | Add | Mul | Quotient | Larger | MatMul | Table | Threshold | Softmax
        | LogSoftmax | LayerNorm | Embedding | Requantize | MaxPool | AveragePool | Mean | Concat | Reshape | Transpose
        | Slice | Pick | Pad
        | Dequantize | FloatConstant | FloatCall | DynamicConv | DynamicLinear)

Dynamic = DynamicConv | DynamicLinear
"""The nodes that find a range when they run."""

Moving = MaxPool | Reshape | Transpose | Slice | Pick | Pad
"""The nodes that move numbers or pick among them: what they write is of the kind that they read."""


def reads(node: Node) -> tuple[str, ...]:
    """Names of the values a node reads, in order."""
    match node:
        case Constant() | FloatConstant():
            return ()
        case DynamicConv() | DynamicLinear():
            return (node.input, node.weight) if node.bias is None else (node.input, node.weight, node.bias)
        case FloatCall():
            return tuple(read.value for read in _read(node))
        case Add() | Mul() | Quotient() | Larger() | MatMul():
            return (node.first, node.second)
        case Concat():
            return node.inputs
        case _:
            return (node.input,)


def _read(node: FloatCall) -> Iterator[Read]:
    for argument in node.arguments.values():
        for item in argument if isinstance(argument, tuple) else (argument,):
            if isinstance(item, Read):
                yield item
