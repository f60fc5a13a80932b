"""One number from one or two: sums, products, tables, quantizing, thresholds. The NumPy definitions of the native calls
Pair, Table, Quantize, Dequantize and Threshold (native/fewbits.h)."""

from dataclasses import dataclass

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import address

f32 = np.float32


@dataclass(frozen=True, eq=False)
class PairOf:
    """Two values to one, uint8 or, where they are added, subtracted or multiplied, int16. kind: of structs.py; scales,
    zeros and offset: as fb_pair has them; table: uint8 [65536]; type: of what is written."""

    kind: int
    scale_a: float = 1
    scale_b: float = 1
    scale_y: float = 1
    offset: float = 0
    zero_a: int = 0
    zero_b: int = 0
    zero_y: int = 0
    low: int = 0
    high: int = 255
    table: np.ndarray | None = None
    type: int = structs.U8

    def struct(self, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> structs.Pair:
        """A call; a and b broadcast to y, which is contiguous, their last axis too unless it repeats."""
        shape, steps_a, steps_b = together(y.shape, a, b)
        call = structs.Pair(op=structs.PAIR, kind=self.kind, a=a.ctypes.data, b=b.ctypes.data, y=address(y),
                            table=address(self.table), scale_a=self.scale_a, scale_b=self.scale_b, scale_y=self.scale_y,
                            offset=self.offset, zero_a=self.zero_a, zero_b=self.zero_b, zero_y=self.zero_y,
                            low=self.low, high=self.high, axes=len(shape), a_type=structs.CODES[a.dtype],
                            b_type=structs.CODES[b.dtype], y_type=self.type)
        call.sizes[:len(shape)], call.step_a[:len(shape)], call.step_b[:len(shape)] = shape, steps_a, steps_b
        return call

    def reference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Codes, a and b broadcast."""
        a, b = np.broadcast_arrays(a, b)
        centred_a, centred_b = a.astype(np.int64) - self.zero_a, b.astype(np.int64) - self.zero_b
        match self.kind:
            case structs.ADD | structs.SUBTRACT:
                left, right = centred_a.astype(f32) * f32(self.scale_a), centred_b.astype(f32) * f32(self.scale_b)
                v = (left + right if self.kind == structs.ADD else left - right) / f32(self.scale_y)
            case structs.ADD_FMA:
                v = fma(centred_a, f32(self.scale_a), fma(centred_b, f32(self.scale_b), np.asarray(f32(self.offset))))
            case structs.MULTIPLY:
                v = (centred_a * centred_b).astype(f32) * f32(self.scale_y) + f32(self.offset)
            case structs.MAXIMUM:
                return np.maximum(a, b)
            case structs.MINIMUM:
                return np.minimum(a, b)
            case _:
                assert self.table is not None
                return self.table[a.astype(np.int64) * 256 + b]
        return (np.rint(v).astype(np.float64) + self.zero_y).clip(self.low, self.high).astype(self.dtype)

    @property
    def dtype(self) -> np.dtype:
        """Of the array that is written."""
        return np.dtype(np.int16 if self.type == structs.S16 else np.uint8)


def fma(a: np.ndarray, b: np.floating, c: np.ndarray) -> np.ndarray:
    """float32(a · b + c), rounded once. a: integers below 2^9; b, c: float32.

    The product is exact in float64; the sum is rounded there to the neighbour whose last bit is 1 unless it is exact,
    which makes the second rounding right (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
    """
    product, c = np.broadcast_arrays(a.astype(np.float64) * np.float64(b), c.astype(np.float64))
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    nudged = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & (total.view(np.int64) & 1 == 0), nudged, total).astype(f32)


def together(shape: tuple[int, ...], *arrays: np.ndarray) -> tuple[list[int], ...]:
    """Sizes and the steps (in items) of arrays broadcast to a shape, neighbouring axes joined where all allow it."""
    steps = [[0 if size == 1 else stride // array.itemsize for size, stride in zip(
        (1,) * (len(shape) - array.ndim) + array.shape, (0,) * (len(shape) - array.ndim) + array.strides, strict=True)]
        for array in arrays]
    sizes, joined = [], [[] for _ in arrays]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(before[-1] == size * step[axis] for before, step in zip(joined, steps, strict=True)):
            sizes[-1] *= size
            for before, step in zip(joined, steps, strict=True):
                before[-1] = step[axis]
        else:
            sizes.append(size)
            for before, step in zip(joined, steps, strict=True):
                before.append(step[axis])
    if not sizes:
        return [1], *([0] for _ in arrays)
    return sizes, *joined


def table_struct(x: np.ndarray, table: np.ndarray, y: np.ndarray, inner: int = 1, low: int = 0) -> structs.Table:
    """x through table [rows, codes], of y's type; `inner` codes of a row follow each other. low: the code of the first
    entry, where x is int16; codes that the table does not have count as the nearest that it has."""
    return structs.Table(op=structs.TABLE, rows=len(table), x=address(x), y=address(y), table=address(table),
                         count=x.size, inner=inner, x_type=structs.CODES[x.dtype], y_type=structs.CODES[y.dtype],
                         x_low=low, codes=table.shape[1])


def table_reference(x: np.ndarray, table: np.ndarray, inner: int = 1, low: int = 0) -> np.ndarray:
    """As `table_struct` says, in x's shape."""
    row = np.arange(x.size) // inner % len(table)
    entry = (x.reshape(-1).astype(np.int64) - low).clip(0, table.shape[1] - 1)
    return table[row, entry].reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Grid:
    """What codes mean: scale (float32), zero point, bounds, as they are stored in `type`; away: ties go away from 0."""

    scale: float
    zero: int
    low: int
    high: int
    type: int = structs.U8
    away: bool = False

    def struct(self, x: np.ndarray, y: np.ndarray) -> structs.Quantize:
        """float32 x to codes y."""
        return structs.Quantize(op=structs.QUANTIZE, away=self.away, x=address(x), y=address(y), count=x.size,
                                scale=self.scale, zero=self.zero, low=self.low, high=self.high, type=self.type)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """Eq. 1: NaN is the lowest code."""
        with np.errstate(over="ignore"):
            v = (x / f32(self.scale)).astype(np.float64)
        v = np.where(np.isnan(v), -np.inf, v)
        rounded = np.trunc(v + np.copysign(0.5, v)) if self.away else np.rint(v)  # float64: v + 1/2 is exact
        return (rounded + self.zero).clip(self.low, self.high).astype(np.uint8 if self.type == structs.U8 else np.int16)


def dequantize_struct(x: np.ndarray, scale: np.ndarray, zero: int, y: np.ndarray) -> structs.Dequantize:
    """uint8, int16 or int32 x to float32 y; scale: [1], or one for each of the last axis."""
    kind = {np.dtype(np.uint8): structs.U8, np.dtype(np.int16): structs.S16, np.dtype(np.int32): structs.S32}[x.dtype]
    return structs.Dequantize(op=structs.DEQUANTIZE, type=kind, x=address(x), y=address(y), scale=address(scale),
                              count=x.size, channels=scale.size, zero=zero)


def dequantize_reference(x: np.ndarray, scale: np.ndarray, zero: int) -> np.ndarray:
    """Eq. 2."""
    return (x.astype(np.int64) - zero).astype(f32) * scale


def threshold_struct(x: np.ndarray, thresholds: np.ndarray, direction: np.ndarray, levels: np.ndarray,
                     y: np.ndarray) -> structs.Threshold:
    """x: int32 or float32 [outer, rows, inner]; thresholds: [rows, n] of its type; direction: int8 [rows]; levels:
    uint8 [n + 1]."""
    outer, rows, inner = x.shape
    return structs.Threshold(op=structs.THRESHOLD, type=structs.S32 if x.dtype == np.int32 else structs.F32,
                             x=address(x),
                             y=address(y), thresholds=address(thresholds), direction=address(direction),
                             levels=address(levels), outer=outer, rows=rows, inner=inner, number=thresholds.shape[1])


def threshold_reference(x: np.ndarray, thresholds: np.ndarray, direction: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Eq. 16."""
    directed = x.astype(np.int64 if x.dtype == np.int32 else f32) * direction[:, None]
    return levels[(directed[..., None] >= thresholds[:, None, :]).sum(-1)]
