"""Random calls of the native kernels: odd sizes, extremes, addresses that are not aligned, beside what NumPy gives.

Each family makes a Case from a generator. `tests/kernels` runs them at every level, `benchmarks.fuzz_kernels` for as
long as it is told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import Calls, address
from fewbits.kernels.conv import Layer, conv_reference, pack
from fewbits.kernels.elementwise import (
    Grid,
    PairOf,
    dequantize_reference,
    dequantize_struct,
    table_reference,
    table_struct,
    threshold_reference,
    threshold_struct,
)
from fewbits.kernels.few_bits import Few, FewBits, Planes, Pruned
from fewbits.kernels.moves import move_struct, rows_struct
from fewbits.kernels.products import Matrices
from fewbits.kernels.repeat import Copied, repeat_struct
from fewbits.kernels.rescaling import Rescaling
from fewbits.kernels.rows import Exponentials, Normal
from fewbits.kernels.windows import Windows, mean_reference, mean_struct

f32 = np.float32
_BEHIND = 16  # items behind each output, which must stay as they are


@dataclass(frozen=True, eq=False)
class Case:
    """wanted: what the definition gives; shape: its own; make: the call that writes to an array of that size, and
    what it points to, made at the level in use; what: in words."""

    wanted: np.ndarray
    make: Callable[[np.ndarray], tuple[structs.Call, Any]]
    what: str

    def run(self, threads: int) -> np.ndarray:
        """What the native call writes. Raises AssertionError where it writes behind its end."""
        y = np.full(self.wanted.size + _BEHIND, 77, self.wanted.dtype)
        call, keep = self.make(y[:self.wanted.size].reshape(self.wanted.shape))
        times = 1 if isinstance(call, structs.Repeat) else 2  # its state would go on; else the first asks for what the
        Calls([call] * times, [keep], threads).run()          # second reads
        assert (y[-_BEHIND:] == 77).all(), f"{self.what} wrote behind its end"
        return y[:-_BEHIND].reshape(self.wanted.shape)


Generator = np.random.Generator
Family = Callable[[Generator], Case]


# ------------------------------------------------------------------------------- random arrays


def unaligned(array: np.ndarray, rng: Generator) -> np.ndarray:
    """The same at a random address of its items, with nothing behind it."""
    shift = int(rng.integers(0, 17)) * array.itemsize
    raw = np.empty(array.nbytes + shift, np.uint8)
    moved = raw[shift:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def codes(rng: Generator, *shape: int) -> np.ndarray:
    """uint8, sometimes extremes only."""
    some = rng.choice(np.array([0, 255], np.uint8), shape) if rng.random() < 0.3 else rng.integers(0, 256, shape)
    return unaligned(some.astype(np.uint8), rng)


def wide_codes(rng: Generator, *shape: int) -> np.ndarray:
    """int16, of at most 12 bits."""
    low, high = sorted(int(n) for n in rng.choice([-2048, -300, 0, 700, 2047], 2, replace=False))
    return unaligned(rng.integers(low, high + 1, shape).astype(np.int16), rng)


def signed(rng: Generator, *shape: int) -> np.ndarray:
    """int8: even, extremes only, or heavy-tailed."""
    match rng.integers(3):
        case 0:
            return rng.integers(-128, 128, shape).astype(np.int8)
        case 1:
            return rng.choice(np.array([-128, 127, 127, -127], np.int8), shape)
        case _:
            return np.clip(rng.standard_t(2, shape) * 10, -128, 127).astype(np.int8)


def zero_of(rng: Generator) -> int:
    """A zero point, often an extreme."""
    return int(rng.choice([0, 255, 128, int(rng.integers(0, 256))]))


def bounds(rng: Generator, type: int = structs.U8) -> tuple[int, int, int]:
    """Zero point, low, high."""
    least, most = (0, 255) if type == structs.U8 else (-2**15, 2**15 - 1)
    zero = int(rng.choice([least, most, int(rng.integers(least, most + 1))]))
    low, high = sorted(int(v) for v in rng.integers(least, most + 1, 2))
    return (zero, least, most) if rng.random() < 0.5 else (zero, low, high)


def real(rng: Generator, size: float, count: int = 1) -> np.ndarray:
    """float32 near `size`; sometimes powers of two, which meet ties."""
    some = size * np.exp(rng.normal(0, 0.7, count))
    return (np.exp2(np.rint(np.log2(some))) if rng.random() < 0.3 else some).astype(f32)


def rescaling(rng: Generator, channels: int, spread: float, kinds: tuple[int, ...] = tuple(range(7)),
              wide: bool = False, offsets: bool = True) -> Rescaling:
    """Of sums of about `spread`; wide: to int16; offsets: whether float32 may have them."""
    kind, type = int(rng.choice(kinds)), structs.S16 if wide else structs.U8
    count = channels if rng.random() < 0.6 else 1
    if kind == structs.SUMS:
        return Rescaling(kind, structs.S32)
    if kind == structs.LEVELS:
        return levels(rng, count, spread)
    factor = real(rng, (2.0**15 if wide else 100.0) / spread, count)
    zero, low, high = bounds(rng, type)
    if kind == structs.FLOAT:
        return Rescaling(kind, type, zero, low, high, factor)
    if kind == structs.REAL:
        offset = rng.normal(size=channels).astype(f32) if offsets and rng.random() < 0.5 else None
        return Rescaling(kind, structs.F32, factor=factor, offset=offset)
    fraction, shift = np.frexp(np.minimum(factor.astype(np.float64), 0.9))
    mantissa = np.minimum(np.floor(fraction * 2.0**31 + 0.5), 2**31 - 1).astype(np.int32)
    return Rescaling(kind, type, zero, low, high, mantissa=mantissa, shift=shift.astype(np.int32))


def levels(rng: Generator, channels: int, spread: float) -> Rescaling:
    """By thresholds of sums of about `spread`, some of them the extremes of int32."""
    number = int(rng.choice([1, 1, 2, 3, 15, 40]))
    thresholds = np.rint(rng.normal(0, spread, (number, channels))).clip(-2.0**31, 2.0**31 - 1).astype(np.int64)
    thresholds[rng.random(thresholds.shape) < 0.1] = rng.choice([-2**31, 2**31 - 1])
    return Rescaling(structs.LEVELS, structs.U8, thresholds=np.sort(thresholds, 0).astype(np.int32),
                     direction=rng.choice(np.array([1, -1], np.int32), channels),
                     levels=np.sort(rng.integers(0, 256, number + 1)).astype(np.uint8))


# ------------------------------------------------------------------------------------ families


def random_layer(rng: Generator) -> tuple[Layer, np.ndarray]:
    """A convolution and codes for it: dense, grouped, depthwise or linear; uint8 or int16; a few so large that threads
    share it."""
    kind = rng.choice(["dense", "dense", "linear", "grouped", "depthwise"])
    wide_x, wide_w = bool(rng.random() < 0.15), bool(rng.random() < 0.15)
    large, groups = bool(rng.random() < 0.1), 1
    if kind == "linear":
        channels, outs = int(rng.integers(1, 300)), int(rng.integers(1, 600 if large else 100))
        height, width, kernel = 1, int(rng.integers(1, 40)), (1, 1)
    else:
        height, width = (int(n) for n in rng.integers(*((8, 34) if large else (1, 14)), 2))
        kernel = tuple(int(k) for k in rng.choice([(1, 1), (3, 3), (2, 3), (5, 5), (1, 3)]))
        if kind == "dense":
            channels, outs = int(rng.integers(1, 40)), int(rng.integers(*((60, 260) if large else (1, 90))))
        elif kind == "grouped":
            groups = int(rng.integers(2, 5))
            channels, outs = groups * int(rng.integers(1, 13)), groups * int(rng.integers(1, 40))
        else:
            groups = channels = outs = int(rng.choice([2, 7, 16, 24, 32, 55, 64, 70, 100, 131]))
    dilation = (1, 1) if rng.random() < 0.7 else (2, 2)
    top, bottom, left, right = (int(m) for m in (rng.integers(0, 3, 4) if rng.random() < 0.7 else np.zeros(4, int)))
    height = max(height, 1 + dilation[0] * (kernel[0] - 1) - top - bottom)
    width = max(width, 1 + dilation[1] * (kernel[1] - 1) - left - right)
    shape = outs, *kernel, channels // groups
    weights = rng.integers(-255, 256, shape).astype(np.int16) if wide_w else signed(rng, *shape)
    if not wide_w and rng.random() < 0.3:
        weights = rng.choice(signed(rng, int(rng.choice([2, 3, 4, 15, 16]))), shape)
    batch = int(rng.integers(1, 4))
    if wide_x:
        x = unaligned(rng.integers(-2**15, 2**15, (batch, height, width, channels)).astype(np.int16), rng)
        x_zero = int(rng.choice([0, int(rng.integers(-2**15, 2**15))]))
    else:
        x, x_zero = codes(rng, batch, height, width, channels), zero_of(rng)
    spread = (2.0**15 if wide_x else 128) * 70 * np.sqrt(weights[0].size)
    kinds = (structs.FLOAT, structs.REAL, structs.DOUBLE, structs.SINGLE, structs.WIDE) if wide_x else tuple(range(7))
    bias = rng.integers(-30000, 30000, outs).astype(np.int32) if rng.random() < 0.7 else None
    stride_h, stride_w = (int(s) for s in rng.integers(1, 4, 2))
    layer = Layer(weights, bias, rescaling(rng, outs, spread, kinds, bool(rng.random() < 0.3 or wide_x)), x_zero,
                  (stride_h, stride_w), dilation, (top, bottom, left, right), groups)
    return layer, x


def conv_case(layer: Layer, x: np.ndarray, packed: bool = True, beyond: bool = False, few: bool = False) -> Case:
    """beyond: with bytes behind x that may be read, which must change nothing; few: packed in few bits, where these
    tell the weights apart."""
    if beyond:
        raw = np.full(x.nbytes + structs.BEYOND + 1, 0xAA, np.uint8)
        raw[:x.nbytes] = x.reshape(-1).view(np.uint8)
        x = raw[:x.nbytes].view(x.dtype).reshape(x.shape)

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        batch, height, width, channels = x.shape
        call = layer.struct((batch, height, width, channels), structs.S16 if x.dtype == np.int16 else structs.U8,
                            structs.BEYOND if beyond else 0)
        blob = pack(call, few) if packed else None
        call.x, call.y = address(x), address(y)
        return call, (blob, layer)

    return Case(conv_reference(layer, x), make, f"conv of {x.shape} {x.dtype} by {layer.weights.shape} {layer}")


def _conv(rng: Generator) -> Case:
    return conv_case(*random_layer(rng), packed=bool(rng.random() < 0.85), beyond=bool(rng.random() < 0.5),
                     few=bool(rng.random() < 0.7))


def _matmul(rng: Generator) -> Case:
    batches, rows, depth, columns = (int(n) for n in rng.integers(1, (4, 40, 70, 40)))
    transposed = bool(rng.random() < 0.5)
    a = codes(rng, batches if rng.random() < 0.7 else 1, rows, depth)
    b = codes(rng, batches, *((columns, depth) if transposed else (depth, columns)))
    kinds = (structs.SUMS, structs.FLOAT, structs.REAL, structs.DOUBLE, structs.SINGLE, structs.WIDE)
    made = rescaling(rng, 1, 5000 * np.sqrt(depth), kinds, wide=bool(rng.random() < 0.3), offsets=False)
    matrices = Matrices(zero_of(rng), zero_of(rng), made, transposed)
    return Case(matrices.reference(a, b), lambda y: (matrices.struct(a, b, y), None),
                f"{matrices} of {a.shape}, {b.shape}")


def _pair(rng: Generator) -> Case:
    kind = int(rng.integers(0, 7))
    shape = tuple(int(n) for n in rng.integers(1, 9, int(rng.integers(1, 5))))
    if rng.random() < 0.1:  # one line that threads share
        shape = (int(rng.integers(30_000, 70_000)),)
    a, b = (codes(rng, *(size if rng.random() < 0.7 else 1 for size in shape)) for _ in range(2))
    if rng.random() < 0.4:
        a, b = codes(rng, *shape), codes(rng, *shape)
    zero, low, high = bounds(rng)
    sizes = real(rng, 0.02, 3)
    if kind in (structs.ADD, structs.SUBTRACT, structs.MULTIPLY) and rng.random() < 0.5:
        return _wide_pair(rng, kind, a, b, sizes)
    if kind == structs.ADD_FMA:
        pair = PairOf(kind, *real(rng, 0.7, 2), offset=float(real(rng, 40)[0]) - 40, zero_a=int(rng.choice([0, 128])),
                      zero_b=int(rng.choice([0, 128])), zero_y=zero, low=low, high=high)
    elif kind == structs.MULTIPLY:
        pair = PairOf(kind, scale_y=float(real(rng, 0.01)[0]), offset=float(rng.integers(-128, 256)),
                      zero_a=zero_of(rng),
                      zero_b=zero_of(rng), zero_y=int(rng.choice([0, 128])), low=low, high=high)
    elif kind == structs.LOOKED_UP:
        pair = PairOf(kind, table=codes(rng, 65536))
    else:
        pair = PairOf(kind, *map(float, sizes), zero_a=zero_of(rng), zero_b=zero_of(rng), zero_y=zero, low=low,
                      high=high)
    return Case(pair.reference(a, b), lambda y: (pair.struct(a, b, y), pair), f"{pair} of {a.shape}, {b.shape}")


def _wide_pair(rng: Generator, kind: int, a: np.ndarray, b: np.ndarray, sizes: np.ndarray) -> Case:
    a, b = (wide_codes(rng, *x.shape) if rng.random() < 0.6 else x for x in (a, b))
    zero_a, zero_b = (int(rng.integers(-2048, 2048)) if x.dtype == np.int16 else zero_of(rng) for x in (a, b))
    type = structs.S16 if rng.random() < 0.6 else structs.U8
    zero, low, high = bounds(rng, type)
    sizes = sizes * np.array([1, 1, 1 / 16 if type == structs.S16 else 1], f32)
    scales = (1.0, 1.0, float(sizes[2] * 2.0**-8)) if kind == structs.MULTIPLY else map(float, sizes)
    pair = PairOf(kind, *scales, offset=float(rng.integers(-128, 256)), zero_a=zero_a, zero_b=zero_b, zero_y=zero,
                  low=low, high=high, type=type)
    return Case(pair.reference(a, b), lambda y: (pair.struct(a, b, y), pair), f"{pair} of {a.shape}, {b.shape}")


def _table(rng: Generator) -> Case:
    if rng.random() < 0.4:
        return _wide_table(rng)
    rows, inner = (1, 1) if rng.random() < 0.6 else (int(rng.integers(2, 9)), int(rng.integers(1, 9)))
    x, table = codes(rng, int(rng.integers(1, 3000))), codes(rng, rows, 256)
    return Case(table_reference(x, table, inner), lambda y: (table_struct(x, table, y, inner), None),
                f"table of {x.size} by {rows} rows, {inner} at a time")


def _wide_table(rng: Generator) -> Case:
    rows, inner = (1, 1) if rng.random() < 0.6 else (int(rng.integers(2, 9)), int(rng.integers(1, 90)))
    count, wide = int(rng.integers(1, 3000)), bool(rng.random() < 0.7)
    low, size = (-2048, 4096) if wide else (0, 256)
    x = wide_codes(rng, count) if wide else codes(rng, count)
    if wide and rng.random() < 0.3:
        low, size = int(rng.integers(-2500, 0)), int(rng.integers(1, 3000))
    table = wide_codes(rng, rows, size) if not wide or rng.random() < 0.5 else codes(rng, rows, size)
    return Case(table_reference(x, table, inner, low), lambda y: (table_struct(x, table, y, inner, low), None),
                f"table of {x.size} {x.dtype} by {rows} rows of {size} {table.dtype}, {inner} at a time")


def _pool(rng: Generator) -> Case:
    kernel = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    height, width = (int(n) + k for n, k in zip(rng.integers(0, 12, 2), kernel, strict=True))
    top, bottom, left, right = (int(m) for m in rng.integers(0, 3, 4))
    stride = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    x = codes(rng, int(rng.integers(1, 4)), height, width, int(rng.integers(1, 300)))
    if rng.random() < 0.5:
        dilation = (2, 2) if rng.random() < 0.2 and min(height, width) > 6 else (1, 1)
        windows = Windows(kernel, stride, (top, bottom, left, right), dilation)
    else:
        out = Windows(kernel, stride, (top, bottom, left, right)).out_size(height, width)
        factors = real(rng, 0.7 / (kernel[0] * kernel[1]), out[0] * out[1]).reshape(out)
        if rng.random() < 0.5:
            factors = factors[:1, :1].copy()
        windows = Windows(kernel, stride, (top, bottom, left, right), (1, 1), factors, zero_of(rng), *bounds(rng))
    shape: Any = x.shape

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        call = windows.struct(shape)
        call.x, call.y = address(x), address(y)
        return call, windows

    return Case(windows.reference(x), make, f"{windows} of {x.shape}")


def _mean(rng: Generator) -> Case:
    outer, length, inner = (int(n) for n in rng.integers(1, (5, 60, 300)))
    if rng.random() < 0.3:
        inner = 1
    x, zero = codes(rng, outer, length, inner), zero_of(rng)
    made = rescaling(rng, 1, 100 * length, (structs.FLOAT, structs.DOUBLE, structs.SINGLE, structs.WIDE))
    return Case(mean_reference(x, zero, made), lambda y: (mean_struct(x, zero, made, y), made),
                f"mean of {x.shape} {made}")


def _softmax(rng: Generator) -> Case:
    rows, length = int(rng.integers(1, 9)), int(rng.choice([1, 2, 7, 16, 64, 197, 300, 2047]))
    step = float(real(rng, 0.05)[0])
    powers = np.append(np.rint(np.exp(-np.arange(256) * step) * 2.0**20), 0).astype(np.int32)
    zero, low, high = bounds(rng)
    x, mask = codes(rng, rows, length), None
    first = 0
    if wide := bool(rng.random() < 0.4):
        x, first = wide_codes(rng, rows, length), int(rng.choice([-2048, -2048, -1500]))
        powers = np.append(np.rint(np.exp(-np.arange(4096) * step / 16) * 2.0**20), 0).astype(np.int32)
    if not wide and rng.random() < 0.3:
        below = np.rint(np.arange(256) * step * 2.0**14).astype(np.int32)
        whole = np.rint(np.log(np.maximum(np.arange(2048), 1)) * 2.0**14).astype(np.int32)
        part = np.rint(np.log1p(np.append((np.arange(1024) + 0.5) / 1024, 1.0)) * 2.0**14).astype(np.int32)
        made = Exponentials(powers, float(real(rng, 0.05)[0]), zero, low, high, below, whole, part)
    else:
        made = Exponentials(powers, 1 / 256 if rng.random() < 0.5 else float(real(rng, 1 / 200)[0]), zero, low, high,
                            first=first)
        if rng.random() < 0.5:
            mask = unaligned((rng.random((int(rng.integers(1, rows + 1)), length)) < 0.6).astype(np.uint8), rng)
    return Case(made.reference(x, mask), lambda y: (made.struct(x, mask, y), made), f"{made} of {x.shape}, mask {mask}")


def _norm(rng: Generator) -> Case:
    rows, length = int(rng.integers(1, 9)), int(rng.choice([1, 2, 7, 16, 33, 192, 768, 70_000]))
    gain_rows = int(rng.integers(1, rows + 1))
    gain, shift = rng.normal(1, 0.5, (gain_rows, length)).astype(f32), rng.normal(size=(gain_rows, length)).astype(f32)
    wide = length <= 2**14 and bool(rng.random() < 0.4)
    x = wide_codes(rng, rows, length) if wide else codes(rng, rows, length)
    epsilon = float(f32(rng.choice([0.0, 1.0, 1e4])))
    zero, low, high = bounds(rng)
    about = int(rng.integers(-2048, 2048)) if wide else zero_of(rng)
    made = Normal(gain, shift, epsilon, float(real(rng, 0.02)[0]), zero, low, high,
                  about if rng.random() < 0.3 else None)
    return Case(made.reference(x), lambda y: (made.struct(x, y), made), f"norm of {x.shape}, epsilon {epsilon}")


def _quantize(rng: Generator) -> Case:
    type = structs.S16 if rng.random() < 0.3 else structs.U8
    zero, low, high = bounds(rng, type)
    scale = float(real(rng, 0.02)[0])
    steps = rng.integers(-300, 300, int(rng.integers(1, 900))) * 0.5
    x = (steps * scale).astype(f32) if rng.random() < 0.5 else rng.normal(0, 100 * scale, steps.size).astype(f32)
    strange = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-40], f32)
    x = unaligned(np.concatenate([x, strange]), rng)
    grid = Grid(scale, zero, low, high, type, bool(rng.random() < 0.5))
    return Case(grid.reference(x), lambda y: (grid.struct(x, y), None), f"{grid} of {x.size}")


def _dequantize(rng: Generator) -> Case:
    outer, channels = int(rng.integers(1, 50)), int(rng.integers(1, 50))
    match rng.integers(3):
        case 0:
            x, zero = codes(rng, outer, channels), zero_of(rng)
        case 1:
            x, zero = rng.integers(-2**15, 2**15, (outer, channels)).astype(np.int16), int(rng.integers(-2**15, 2**15))
        case _:
            x, zero = rng.integers(-2**31, 2**31, (outer, channels)).astype(np.int32), 0
    scale = real(rng, 0.02, channels if rng.random() < 0.5 else 1)
    return Case(dequantize_reference(x, scale, zero), lambda y: (dequantize_struct(x, scale, zero, y), None),
                f"dequantize {x.dtype} of {x.shape} by {scale.size} scales, zero {zero}")


def _threshold(rng: Generator) -> Case:
    outer, rows, inner, number = (int(n) for n in rng.integers(1, (5, 9, 40, 9)))
    direction = rng.choice(np.array([-1, 1], np.int8), rows)
    levels = np.sort(codes(rng, number + 1))
    if rng.random() < 0.5:
        x = rng.integers(-30, 30, (outer, rows, inner)).astype(np.int32)
        x.reshape(-1)[:1] = rng.choice([-2**31, 2**31 - 1])
        thresholds = np.sort(rng.integers(-30, 30, (rows, number)).astype(np.int32))
    else:
        x = rng.integers(-9, 9, (outer, rows, inner)).astype(f32) / 4
        thresholds = np.sort(rng.integers(-9, 9, (rows, number)).astype(f32) / 4)
    return Case(threshold_reference(x, thresholds, direction, levels),
                lambda y: (threshold_struct(x, thresholds, direction, levels, y), None),
                f"threshold of {x.shape}, {number}")


def _part_through_table(rng: Generator) -> Case:
    """Rows of a part of something wider, as concatenations on another grid are."""
    rows, count, more = (int(n) for n in rng.integers((2, 20, 1), (60, 150, 40)))
    x, table = codes(rng, rows, count + more), codes(rng, 256)
    part = x[:, more:]
    return Case(table[part], lambda y: (move_struct(part, y, table), x), f"{rows} rows of {count} through a table")


def _move(rng: Generator) -> Case:
    if rng.random() < 0.25:
        return _part_through_table(rng)
    if rng.random() < 0.15:  # channels become the last axis
        x = codes(rng, int(rng.integers(1, 3)), int(rng.integers(1, 6)), int(rng.integers(1, 300)))
        last = x.transpose(0, 2, 1)
        return Case(np.ascontiguousarray(last), lambda y: (move_struct(last, y), x), f"channels of {x.shape} last")
    shape = tuple(int(n) for n in rng.integers(1, 8, int(rng.integers(1, 6))))
    dtype = (np.uint8, np.int16, np.float32, np.int64)[int(rng.integers(4))]
    x = unaligned(rng.integers(0, 200, shape).astype(dtype), rng)
    view = x.transpose(rng.permutation(x.ndim))
    view = view[tuple(slice(None, None, int(rng.choice([1, 1, 2, -1]))) for _ in shape)]
    table = codes(rng, 256) if dtype == np.uint8 and rng.random() < 0.4 else None
    wanted = np.ascontiguousarray(view if table is None else table[view])
    return Case(wanted, lambda y: (move_struct(view, y, table), x), f"move of {x.shape} {x.dtype} as {view.strides}")


def _rows(rng: Generator) -> Case:
    outer, source, inner, count = (int(n) for n in rng.integers(1, (5, 30, 20, 40)))
    dtype = (np.uint8, np.int16, np.float32, np.int64)[int(rng.integers(4))]
    x = rng.integers(0, 200, (outer, source, inner)).astype(dtype)
    numbers = rng.integers(0, source, count)
    return Case(np.ascontiguousarray(x[:, numbers]), lambda y: (rows_struct(x, numbers, y), None),
                f"{count} rows of {x.shape} {x.dtype}")


def _dynamic(rng: Generator) -> Case:
    """A linear layer, or a convolution of any kind."""
    if rng.random() < 0.5:
        depth, outs, rows = (int(n) for n in rng.integers(1, (200, 60, 20)))
        layer = Layer(signed(rng, outs, 1, 1, depth), None, Rescaling(structs.SUMS, structs.S32), 0)
        shape = (1, 1, rows, depth)
    else:
        layer, read = random_layer(rng)
        layer = replace(layer, weights=layer.weights.clip(-128, 127).astype(np.int8), bias=None, x_zero=0,
                        rescaling=Rescaling(structs.SUMS, structs.S32))
        shape = read.shape
    outs = len(layer.weights)
    x = (rng.normal(float(rng.normal()), 1, shape) * float(real(rng, 1.0)[0])).astype(f32)
    if rng.random() < 0.2:
        x = np.abs(x) if rng.random() < 0.5 else np.zeros_like(x)
    weight_scale = real(rng, 0.01, outs if rng.random() < 0.5 else 1)
    offset = rng.normal(size=outs).astype(f32) if rng.random() < 0.5 else None
    low, high = min(f32(x.min()), f32(0)), max(f32(x.max()), f32(0))
    scale = f32(1) if low == high else (high - low) / f32(255)
    zero = int(np.rint(np.clip(-low / scale, 0, 255)))
    q = (np.rint(x / scale).astype(np.int64) + zero).clip(0, 255).astype(np.uint8)
    wanted = conv_reference(replace(layer, x_zero=zero), q).astype(f32) * (scale * weight_scale)
    wanted = wanted if offset is None else wanted + offset
    space, factor = np.zeros(x.size + structs.BEYOND, np.uint8), np.zeros(weight_scale.size, f32)

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        made = replace(layer, rescaling=Rescaling(structs.REAL, structs.F32, factor=factor, offset=offset))
        conv = made.struct(shape, beyond=structs.BEYOND)
        conv.rescale.per_channel = weight_scale.size > 1
        blob = pack(conv)
        conv.x, conv.y = address(space), address(y)
        call = structs.Dynamic(op=structs.DYNAMIC, weight_scales=weight_scale.size, x=address(x), codes=address(space),
                               weight_scale=address(weight_scale), factor=address(factor), conv=conv)
        return call, (blob, made)

    return Case(wanted, make, f"dynamic layer of {x.shape} by {layer}")


def _few(rng: Generator) -> Few:
    bits = int(rng.integers(1, 3))
    low, step = int(rng.integers(-3, 4)), int(rng.choice([1, 2, -1, 3]))
    return Few(bits, low, step, int(rng.integers(0, 9 - bits)) if rng.random() < 0.4 else 0)


def _binary(rng: Generator) -> Case:
    weights, read = _few(rng), _few(rng)
    batch, columns = int(rng.integers(1, 3)), int(rng.integers(1, 90))
    if rng.random() < 0.4:  # a linear layer
        height, width, kernel = 1, int(rng.integers(1, 12)), (1, 1)
        channels = int(rng.choice([1, 5, 63, 64, 65, 200, 700]))
    else:
        kernel = tuple(int(k) for k in rng.choice([(1, 1), (3, 3), (2, 3), (5, 5), (1, 3)]))
        height, width = (int(n) for n in rng.integers(1, 10, 2))
        channels = int(rng.choice([1, 3, 20, 32, 64, 70, 128]))
    top, bottom, left, right = (int(m) for m in (rng.integers(0, 3, 4) if rng.random() < 0.7 else np.zeros(4, int)))
    dilation = (1, 1) if rng.random() < 0.7 else (2, 2)
    height = max(height, 1 + dilation[0] * (kernel[0] - 1) - top - bottom)
    width = max(width, 1 + dilation[1] * (kernel[1] - 1) - left - right)
    stride_h, stride_w = (int(s) for s in rng.integers(1, 3, 2))
    w, x = codes(rng, columns, *kernel, channels), codes(rng, batch, height, width, channels)
    bias = rng.integers(-300, 300, columns).astype(np.int32) if rng.random() < 0.5 else None
    made = rescaling(rng, columns, 6 * np.sqrt(w[0].size))
    layer = Planes(w, weights, read, bias, made, (stride_h, stride_w), dilation, (top, bottom, left, right))

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        packed = layer.packed()
        call = layer.struct((batch, height, width, channels), packed)
        call.x, call.y = address(x), address(y)
        return call, (packed, layer)

    return Case(layer.reference(x), make, f"{weights} × {read} of {x.shape} by {w.shape}, {layer}")


def _sparse(rng: Generator) -> Case:
    rows, depth, columns = (int(n) for n in rng.integers(1, (10, 900, 90)))
    picks = bool(rng.random() < 0.6)
    values = rng.integers(-128, 128, 200) if picks else rng.integers(-300, 300, int(rng.integers(1, 40)))
    density = rng.choice([0.0, 0.08, 0.5])
    weights = np.where(rng.random((columns, depth)) < density, rng.choice(values, (columns, depth)), 0).astype(np.int16)
    bias = rng.integers(-300, 300, columns).astype(np.int32) if rng.random() < 0.5 else None
    layer = Pruned(weights, zero_of(rng), bias, rescaling(rng, columns, 8000 * np.sqrt(0.1 * depth)))
    x = codes(rng, rows, depth)

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        packed, start = layer.by_picks() if picks else layer.by_places(), layer.start()
        return layer.struct(x, packed, start, y), (packed, start, layer)

    return Case(layer.reference(x), make, f"pruned layer of {x.shape} to {columns}, {picks=}")


def _grouped(rng: Generator) -> Case:
    bits, columns, rows = int(rng.choice([1, 2, 4, 8])), int(rng.integers(1, 90)), int(rng.choice([1, 1, 2, 5, 9]))
    grouped = bool(rng.random() < 0.5)
    group = int(rng.choice([32, 64, 128, 256])) if grouped else int(rng.integers(1, 700))
    depth = group * int(rng.integers(2, 5)) if grouped else group
    values = signed(rng, 2**bits)
    if rng.random() < 0.5:
        values = np.clip(np.arange(2**bits) - 2 ** (bits - 1), -128, 127).astype(np.int8)
    w = rng.integers(0, 2**bits, (columns, depth)).astype(np.uint8)
    x = codes(rng, rows, depth)
    if grouped:
        offset = rng.normal(size=columns).astype(f32) if rng.random() < 0.5 else None
        factors = real(rng, 1e-4, columns * (depth // group)).reshape(columns, -1)
        layer = FewBits(w, bits, values, group, factors, zero_of(rng), None,
                        Rescaling(structs.REAL, structs.F32, factor=np.ones(1, f32), offset=offset))
    else:
        bias = rng.integers(-300, 300, columns).astype(np.int32) if rng.random() < 0.5 else None
        layer = FewBits(w, bits, values, depth, None, zero_of(rng), bias, rescaling(rng, columns,
                                                                                    5000 * np.sqrt(depth)))

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        packed, factors = layer.packed()
        return layer.struct(x, packed, factors, y), (packed, factors, layer)

    return Case(layer.reference(x), make, f"{bits} bits of {x.shape} to {columns}, groups of {group}")


def _repeat(rng: Generator) -> Case:
    """h ← pairs[x at a step, h], all h: sequences with the batch first or the steps, from either end."""
    batch, turns, size = (int(n) for n in rng.integers(1, (5, 9, 20)))
    axis, backwards = int(rng.integers(2)), bool(rng.random() < 0.5)
    shape = (batch, turns, size) if axis else (turns, batch, size)
    x, first, pair = codes(rng, *shape), codes(rng, batch, size), PairOf(structs.LOOKED_UP, table=codes(rng, 65536))
    order = range(turns)[::-1 if backwards else 1]
    wanted, h = np.zeros(shape, np.uint8), first
    for at in order:
        h = pair.reference(x.take(at, axis), h)
        wanted[(slice(None), at) if axis else at] = h

    def make(y: np.ndarray) -> tuple[structs.Call, Any]:
        now, state, following = np.zeros_like(first), first.copy(), np.zeros_like(first)
        call = pair.struct(now, state, following)
        way = -1 if backwards else 1
        before = [Copied(_at(x, axis, order[0]), now, way * x.strides[axis])]
        after = [Copied(following, _at(y, axis, order[0]), 0, way * y.strides[axis]), Copied(following, state)]
        return repeat_struct([call], before, after, turns)

    return Case(wanted, make, f"{turns} turns of {batch} rows of {size} codes along axis {axis}, {backwards=}")


def _at(array: np.ndarray, axis: int, at: int) -> np.ndarray:
    return array[:, at] if axis else array[at]


FAMILIES: Mapping[str, Family] = {
    "conv": _conv, "matmul": _matmul, "pair": _pair, "table": _table, "pool": _pool, "mean": _mean, "softmax": _softmax,
    "norm": _norm, "quantize": _quantize, "dequantize": _dequantize, "move": _move, "rows": _rows,
    "threshold": _threshold, "dynamic": _dynamic, "binary": _binary, "sparse": _sparse, "grouped": _grouped,
    "repeat": _repeat}
"""A maker of random cases for every call of native/fewbits.h."""
