"""The operators of the integer graph. A node reads values by name and writes the value that bears its own name.

Codes in, codes out, except `Quantize`, which reads float32. What each one computes, to the bit, is
`reference.py`; this file says what each one needs to know. All shapes are [N, C, H, W] or [N, ..., K].
"""

from dataclasses import dataclass

import numpy as np

from fewbits.numerics.encoding import Quantized

Pair = tuple[int, int]
Margins = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))


@dataclass(frozen=True, eq=False)
class Quantize:
    """Float32 input to codes (eq. 1)."""

    name: str
    input: str


@dataclass(frozen=True, eq=False)
class Constant:
    """Codes known beforehand."""

    name: str
    data: Quantized


@dataclass(frozen=True, eq=False)
class Conv:
    """2-d cross-correlation, grouped, strided, dilated; padded with the number 0 (the zero point).

    weight: [O, C/groups, kH, kW], one scale or one per output channel; bias: int32 [O], at scale
    x_scale · weight_scale; low, high: bounds of the output codes (they carry a following ReLU or clamp).
    """

    name: str
    input: str
    weight: Quantized
    bias: np.ndarray | None
    stride: Pair
    padding: Margins
    dilation: Pair
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
    """Sum of two values of any encodings, broadcast; the profile says how it is rounded (eq. 7)."""

    name: str
    first: str
    second: str
    low: int
    high: int


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
    kernel: Pair
    stride: Pair
    padding: Margins
    dilation: Pair


@dataclass(frozen=True, eq=False)
class AveragePool:
    """Mean of each window (eq. 8): padding adds 0; `count_padding` says whether it counts in the divisor.

    divisor: a fixed divisor instead, or 0 for none.
    """

    name: str
    input: str
    kernel: Pair
    stride: Pair
    padding: Margins
    count_padding: bool
    divisor: int
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
    """Values one behind the other along an axis, each brought to the output's encoding."""

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


Node = (Quantize | Constant | Conv | Linear | Add | Requantize | MaxPool | AveragePool | Mean | Concat
        | Reshape | Transpose | Slice | Pad)


def reads(node: Node) -> tuple[str, ...]:
    """Names of the values a node reads, in order."""
    match node:
        case Constant():
            return ()
        case Add():
            return (node.first, node.second)
        case Concat():
            return node.inputs
        case _:
            return (node.input,)
