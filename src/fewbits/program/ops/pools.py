"""Windows and axes made one number each: largest, mean."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from torch import nn

from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import parse
from fewbits.program import requantize as constants
from fewbits.program import rescale
from fewbits.program.accumulator import Bound, interval
from fewbits.program.node import Margins, ProgramNode, Sizes
from fewbits.program.ops import fits
from fewbits.program.ops.record import (
    Example,
    Operations,
    Record,
    Rescaling,
    Sums,
    called,
    holds_nothing,
    reads_one,
)
from fewbits.program.ops.samples import IMAGE, X, Y
from fewbits.program.ops.steps import (
    Codes,
    centred,
    coarsest_regrid,
    f32,
    reach,
    regridded,
    rescaled,
    saturate,
    windows,
)
from fewbits.program.ops.work import nothing, numbers, requantized, together
from fewbits.program.value import Scope, Value
from fewbits.program.windows import positions

__all__ = ["AveragePool", "MaxPool", "Mean"]


@dataclass(frozen=True, eq=False)
class MaxPool(ProgramNode):
    """Largest code in each window; padding never wins."""

    input: str
    kernel: Sizes
    stride: Sizes
    padding: Margins
    dilation: Sizes


@dataclass(frozen=True, eq=False)
class AveragePool(ProgramNode):
    """Mean of each window (eq. 8), in which padding adds 0. counts: int32, what the sum of each window is divided by:
    one axis per axis of the image, each of the output's size or 1."""

    input: str
    kernel: Sizes
    stride: Sizes
    padding: Margins
    counts: np.ndarray
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Mean(ProgramNode):
    """Mean over axes (eq. 8). axes: ascending, none of them the batch; keep: whether they stay as 1."""

    input: str
    axes: tuple[int, ...]
    keep: bool
    low: int
    high: int


# ------------------------------------------------------------------------------- the definition


def _max_pool(program: Scope, node: MaxPool, x: Codes) -> Codes:
    best, lowest = None, -np.inf if x.dtype == f32 else np.iinfo(x.dtype).min
    for _, taps in windows(x, node.kernel, node.stride, node.padding, node.dilation, fill=lowest):
        best = taps if best is None else np.maximum(best, taps)
    assert best is not None, "a kernel has at least one position"
    return best.astype(x.dtype)


def _average_pool(program: Scope, node: AveragePool, x: Codes) -> Codes:
    total = _window_sums(program, node, x)
    if program.profile.rescaling != "float":
        return _average_in_place(program, node, total)
    y = program.encoding(node.name)
    multiplier = constants.pool_multiplier(program.encoding(node.input), y, node.counts)
    return saturate(total.astype(f32) * multiplier, int(y.zero_point), node.low, node.high, y)


def _window_sums(program: Scope, node: AveragePool, x: Codes) -> np.ndarray:
    total: Any = sum(taps for _, taps in windows(centred(program, node.input, x), node.kernel, node.stride,
                                                 node.padding, (1,) * len(node.kernel), fill=0))
    return np.asarray(total)


def _average_in_place(program: Scope, node: AveragePool, total: np.ndarray) -> Codes:
    """Eq. 22: the mean of the codes, half away from 0, on the input's grid; then the output's."""
    count = node.counts.astype(np.int64)
    codes = total + count * int(program.encoding(node.input).zero_point)
    average = np.sign(codes) * ((np.abs(codes) + count // 2) // count)
    return regridded(program, average, node.input, node.name, node.low, node.high)


def _mean(program: Scope, node: Mean, x: Codes) -> Codes:
    total = centred(program, node.input, x).sum(node.axes, keepdims=node.keep)
    return rescaled(total, _mean_factor(program, node), rescale.rounding(program.profile, "other"),
                    program.encoding(node.name), node.low, node.high)


def _mean_factor(program: Scope, node: Mean) -> rescale.Factor:
    return rescale.mean(program.profile, program.encoding(node.input), program.encoding(node.name),
                        program.count(node.input, node.axes))


# ------------------------------------------------------------------------------- what is known of it


def _sums_of(program: Scope, name: str, count: int) -> Bound:
    low, high = interval(program.encoding(name))
    return Bound(count * low, count * high)


def _pool_sums(program: Scope, node: AveragePool) -> Bound:
    return _sums_of(program, node.input, prod(node.kernel))


def _mean_sums(program: Scope, node: Mean) -> Bound:
    return _sums_of(program, node.input, program.count(node.input, node.axes))


def _divides_otherwise(program: Scope, node: AveragePool) -> bool:
    """Whether a window's sum is divided by fewer numbers than it holds, or by more than it has positions."""
    sizes = tuple(size or 0 for size in program.values[node.input].shape[2:])
    held = positions(sizes, node.kernel, node.stride, node.padding)
    return bool((node.counts < held).any() or (node.counts > prod(node.kernel)).any())


def _beside_the_image(program: Scope, node: Mean) -> bool:
    return node.axes != (2, 3) or len(program.values[node.input].shape) != 4


def _pool_work(program: Scope, node: AveragePool) -> Operations:
    return together({"add int32": numbers(program, node.name) * prod(node.kernel)}, requantized(program, node))


def _pool_float_work(program: Scope, node: AveragePool) -> Operations:
    written = numbers(program, node.name)
    return {"add fp32": written * prod(node.kernel), "multiply fp32": written}


_SIGNED, _SIGNED_RESULT = Encoding(parse("int8"), 0.03, -5), Encoding(parse("int8"), 0.02, 7)
_ALMOST_CONSTANT = Encoding(parse("uint8"), 3e-8, 120)
_NO_MARGINS = ((0, 0), (0, 0))

RECORDS = {
    MaxPool: Record(
        does="the largest of each window",
        equations="",
        reads=reads_one,
        takes=frozenset({"codes", "float32"}),
        writes="moved",
        wide="no",
        check=fits.pool,
        reference=_max_pool,
        sums=None,
        rescaling=None,
        limits={},
        work=nothing,
        float_work=nothing,
        holds=holds_nothing,
        computes=(),
        layer=lambda channels, height, width: nn.MaxPool2d(3, 1, 1),
        examples=lambda: (
            Example(MaxPool("y", "x", (2, 3), (2, 1), ((1, 0), (1, 1)), (1, 2)), {"x": Value(IMAGE, X)},
                    Value((None, 3, 3, 5), X)),
        ),
    ),
    AveragePool: Record(
        does="the mean of each window",
        equations="8, 22",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.pool,
        reference=_average_pool,
        sums=Sums(_pool_sums, None, None),
        rescaling=Rescaling(lambda program, node: coarsest_regrid(program, (node.input,), node.name),
                            lambda program, node: reach(program, node.input), "other"),
        limits={"average with a divisor of its own": _divides_otherwise},
        work=_pool_work,
        float_work=_pool_float_work,
        holds=holds_nothing,
        computes=("average_pool", "adaptive_average_pool"),
        layer=lambda channels, height, width: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        examples=lambda: (
            Example(AveragePool("y", "x", (2, 2), (2, 2), ((0, 0), (0, 1)), np.array([[4]], np.int32), 0, 255),
                    {"x": Value(IMAGE, X)}, Value((None, 3, 3, 4), Y)),
            Example(AveragePool("y", "x", (3, 2), (1, 2), ((1, 1), (0, 0)),
                                np.array([[4]] + [[6]] * 4 + [[4]], np.int32), 0, 255),
                    {"x": Value(IMAGE, X)}, Value((None, 3, 6, 3), Y)),
            Example(AveragePool("y", "x", (2, 2), (2, 2), _NO_MARGINS, np.array([[4]], np.int32), -128, 127),
                    {"x": Value(IMAGE, _SIGNED)}, Value((None, 3, 3, 3), _SIGNED_RESULT), {}, "litert"),
        ),
    ),
    Mean: Record(
        does="the mean over axes",
        equations="8, 17",
        reads=reads_one,
        takes=frozenset({"codes"}),
        writes="codes",
        wide="no",
        check=fits.mean,
        reference=_mean,
        sums=Sums(_mean_sums, None, None),
        rescaling=Rescaling(_mean_factor, lambda program, node: _mean_sums(program, node).magnitude, "other"),
        limits={"mean over anything but the image": _beside_the_image},
        work=lambda program, node: together({"add int32": numbers(program, node.input)}, requantized(program, node)),
        float_work=lambda program, node: {"add fp32": numbers(program, node.input),
                                          "multiply fp32": numbers(program, node.name)},
        holds=holds_nothing,
        computes=("mean", "adaptive_average_pool"),
        layer=called(lambda x: x.mean((2, 3), keepdim=True).expand(x.shape)),
        examples=lambda: (
            Example(Mean("y", "x", (2, 3), True, 0, 255), {"x": Value(IMAGE, X)}, Value((None, 3, 1, 1), Y)),
            Example(Mean("y", "x", (2, 3), False, 0, 255), {"x": Value(IMAGE, X)}, Value((None, 3), _ALMOST_CONSTANT)),
            Example(Mean("y", "x", (1,), False, 3, 255), {"x": Value((None, 3, 5), X)}, Value((None, 5), Y)),
            Example(Mean("y", "x", (2, 3), False, -128, 127), {"x": Value(IMAGE, _SIGNED)},
                    Value((None, 3), _SIGNED_RESULT), {}, "gemmlowp"),
        ),
    ),
}
