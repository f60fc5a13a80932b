"""Layers of few numbers: by bit planes, from their nonzero weights, or from packed bits, where that is faster.

Chosen from the weights and from the codes that the program can write, so that every choice is exact; between planes and
products of 8 bits by their cost, and where processors differ by trying both.
"""

import time
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from fewbits.engines.native.context import Context, Stored
from fewbits.kernels import library, structs
from fewbits.kernels.calls import Calls, address, aligned
from fewbits.kernels.conv import Layer, pack
from fewbits.kernels.few_bits import ByPicks, ByPlaces, Few, FewBits, Planes, Pruned
from fewbits.program import ops as op
from fewbits.program.ops import is_move, reads

Sizes = tuple[int, int, int, int]
"""[batch, height, width, C]"""

_MOST = 4
"""Numbers that two planes hold."""

_PLANES: dict[library.Level, float] = {"portable": 0.5, "avx2": 0.16, "avxvnni": 0.8, "avx512": 0.22, "amx": 0.22,
                                     "neon": 1.0}
"""Time of a pair of planes over that of the products of 8 bits that it replaces (benchmarks.native_kernels)."""

_OF_MANY_ROWS: dict[library.Level, float] = {**_PLANES, "avxvnni": 1.2, "amx": 4.0}
"""The same for convolutions, and for linear layers of _MANY_ROWS: where weights are read once for many pixels, planes
lose to VNNI in registers of 32 bytes, and to tiles (signs, 4096 to 4096, 32 rows: 556 µs, 365 by tiles; 16 rows: 299,
322; Xeon)."""

_SURE = 2.0
"""Where one way is estimated to take so many times as long as the other, they are not tried: between two processors of
one level the estimates were wrong by up to 1.7 (2-bit VGG-small at avx512: 1.29 times as fast as in 8 bits on an AMD
EPYC, 0.76 times on an Intel Xeon)."""

_TURNS = 4

_MANY_ROWS = 16

_WINOGRAD: dict[library.Level, float] = {"avx2": 0.4, "avxvnni": 0.75}
"""Time of a 3×3 convolution in the form of Winograd over that of its products one by one; 1 elsewhere, nearly."""

_FEW_ROWS = 4
_MANY_WEIGHTS = 2**19  # beyond the second-level cache the bytes that are read are what limits


def few_call(context: Context, node: op.Conv | op.Linear, x: Stored, y: Stored, layer: Layer,
             sizes: Sizes) -> Stored | None:
    """Appends a layer over [batch, height, width, C] where its few numbers make it faster; None for any other."""
    if x.dtype != np.uint8 or layer.groups != 1:
        return None
    made = _planes(context, node, layer, sizes)
    if made is not None:
        planes, packed = made
        return _append(context, node, x, y, planes.struct(sizes, packed), (planes, packed))
    if isinstance(node, op.Linear) and sizes[2] <= _FEW_ROWS and layer.weights.size >= _MANY_WEIGHTS:
        sparse = _sparse(context, node, x, y, layer, sizes[2])
        return _packed_bits(context, node, x, y, layer, sizes[2]) if sparse is None else sparse
    return None


def _append(context: Context, node: op.Conv | op.Linear, x: Stored, y: Stored, call: structs.Call,
            keep: Any) -> Stored:
    def make(a: np.ndarray, b: np.ndarray) -> tuple[structs.Call, Any]:
        call.x, call.y = a.ctypes.data, b.ctypes.data
        return call, keep

    return context.call(node, (x,), y, make)


# ------------------------------------------------------------------------------- bit planes


def _planes(context: Context, node: op.Conv | op.Linear, layer: Layer, sizes: Sizes) -> tuple[Planes, tuple] | None:
    held = context.once(f"{node.name} in planes", lambda: _in_planes(context, node, layer, sizes))
    return None if held is None else (replace(held[0], rescaling=layer.rescaling), held[1])  # the sums may be wanted


def _in_planes(context: Context, node: op.Conv | op.Linear, layer: Layer, sizes: Sizes) -> tuple[Planes, tuple] | None:
    codes = _few_codes(context, context.margins[node.input].input if node.input in context.margins else node.input)
    if codes is None:
        return None
    read = _read(codes, layer.x_zero)
    values = np.unique(layer.weights)
    if read is None or values.size < 2:
        return None
    step = int(np.gcd.reduce(np.diff(values.astype(np.int64))))
    most = (int(values[-1]) - int(values[0])) // step  # their difference does not fit int8
    if most >= _MOST:
        return None
    weights = Few(1 if most == 1 else 2, int(values[0]), step)
    depth = layer.weights[0].size
    padded = (depth + 63) // 64 * 64
    once = layer.stride == layer.dilation == (1, 1)
    eight = _WINOGRAD.get(library.level(), 1.0) if layer.weights.shape[1:3] == (3, 3) and once else 1.0
    many = isinstance(node, op.Conv) or sizes[2] >= _MANY_ROWS
    pair = (_OF_MANY_ROWS if many else _PLANES)[library.level()]
    estimated = read.bits * weights.bits * padded * pair / (depth * eight)
    if depth < 64 or estimated > _SURE:
        return None
    w = ((layer.weights.astype(np.int64) - values[0]) // step).astype(np.uint8)
    made = Planes(w, weights, read, layer.bias, layer.rescaling, layer.stride, layer.dilation, layer.margins)
    packed = made.packed()
    if estimated > 1 / _SURE and not _are_faster(made, packed, layer, sizes, _weights_of(context)):
        return None
    return replace(made, w=np.broadcast_to(np.uint8(0), w.shape)), packed  # its shape is enough


def _weights_of(context: Context) -> int:
    """How many weights the layers of a program have."""
    return sum(node.weight.codes.size for node in context.program.nodes if isinstance(node, op.Conv | op.Linear))


def _are_faster(planes: Planes, packed: tuple, layer: Layer, sizes: Sizes, others: int) -> bool:
    """Whether planes take less time than products of 8 bits, both tried in turns over one image of the size at hand:
    the best of some runs each. others: bytes that are read before each, as the other layers do between two runs: what
    lies in the nearer caches then decides which way is faster (2-bit VGG-small at avx2: 4.6 ms by planes and 6.3 in 8
    bits, 4.4 and 3.2 where each layer ran again and again)."""
    one = (1, *sizes[1:])
    x, y = aligned(prod(one) + structs.BEYOND), aligned((*layer.out_size(*one[1:3]), len(layer.weights)), np.int32)
    dense = layer.struct(one, beyond=structs.BEYOND)
    blob = pack(dense)
    ways = (planes.struct(one, packed), dense)
    for call in ways:
        call.x, call.y = address(x), address(y)
    runs = [Calls([call]) for call in ways]
    read = np.ones(others, np.uint8)
    taken: tuple[list[float], ...] = ([], [])
    for _ in range(_TURNS):
        for run, times in zip(runs, taken, strict=True):
            read.max()
            times.append(_time(run))
    del blob
    return min(taken[0]) < min(taken[1])


def _time(calls: Calls) -> float:
    begun = time.perf_counter()
    calls.run()
    return time.perf_counter() - begun


def _few_codes(context: Context, name: str) -> tuple[int, ...] | None:
    """The codes that a value can have, as they are stored; None where there are more than a few."""
    node = context.makers.get(name)
    found: set[int] | None = None
    if isinstance(node, op.Threshold):
        found = {int(level) for level in node.levels}
    elif node is not None and is_move(node) and len(reads(node)) == 1:
        moved = _few_codes(context, reads(node)[0])
        padded = {context.zero(name)} if isinstance(node, op.Pad) else set()
        found = None if moved is None else {*moved, *padded}
    elif node is not None:
        low, high = context.code_ranges.get(name, (0, 255))
        found = {code + context.added(name) for code in range(low, high + 1)} if high - low < _MOST else None
    return tuple(sorted(found)) if found is not None and 1 < len(found) <= _MOST else None


def _read(codes: tuple[int, ...], zero: int) -> Few | None:
    """How some of their bits say which number codes are."""
    numbers = {code: code - zero for code in codes}
    for bits in (1, 2):
        for first in range(9 - bits):
            parts = {code >> first & 2**bits - 1: number for code, number in numbers.items()}
            if len(parts) < len(codes):
                continue  # these bits do not tell them apart
            (p, a), (q, b), *_ = sorted(parts.items())
            step, rest = divmod(b - a, q - p)
            low = a - step * p
            if rest == 0 and all(low + step * part == number for part, number in parts.items()):
                return Few(bits, low, step, first)
    return None


# ------------------------------------------------------------------------------- pruned weights

_SPARSE = 0.15
"""Of the weights, so many at most are not 0."""


def _pruned(layer: Layer) -> tuple[ByPicks | ByPlaces, np.ndarray] | None:
    w = layer.weights.reshape(len(layer.weights), -1)
    if w.dtype != np.int8 or np.count_nonzero(w) > _SPARSE * w.size or w.shape[1] > 2**16:
        return None
    made = Pruned(w, layer.x_zero, layer.bias, layer.rescaling)
    return (made.by_picks() if library.picks_bytes() else made.by_places()), made.start()


def _sparse(context: Context, node: op.Linear, x: Stored, y: Stored, layer: Layer, rows: int) -> Stored | None:
    """A pruned layer from its nonzero weights; None for any other."""
    held = context.once(f"{node.name} pruned", lambda: _pruned(layer))
    if held is None:
        return None
    packed, start = held
    depth = layer.weights[0].size
    made = Pruned(np.broadcast_to(np.int8(0), (len(layer.weights), depth)), layer.x_zero, None, layer.rescaling)

    def make(a: np.ndarray, b: np.ndarray) -> tuple[structs.Call, Any]:
        return made.struct(x.physical(a).reshape(rows, depth), packed, start, y.physical(b)), (made, packed, start)

    return context.call(node, (x,), y, make)


# ------------------------------------------------------------------------------- packed bits


def _packed_few(layer: Layer) -> tuple[FewBits, np.ndarray] | None:
    """A linear layer by its packed bits; None where the weights have more than 16 values, or not of 8 bits."""
    w = layer.weights.reshape(len(layer.weights), -1)
    if np.unique(w.reshape(-1)[:4096]).size > 16:  # a quick look
        return None
    values, places = np.unique(w, return_inverse=True)
    if values.size > 16 or values.min() < -128 or values.max() > 127:
        return None
    bits = 1 if values.size <= 2 else 2 if values.size <= 4 else 4
    made = FewBits(places.reshape(w.shape).astype(np.uint8), bits, np.resize(values, 2**bits).astype(np.int8),
                   w.shape[1], None, layer.x_zero, layer.bias, layer.rescaling)
    blob, _ = made.packed()
    return replace(made, w=made.w[:, :0].copy()), blob


def _packed_bits(context: Context, node: op.Linear, x: Stored, y: Stored, layer: Layer, rows: int) -> Stored | None:
    """Weights of few values straight from their packed bits; None for others."""
    held = context.once(f"{node.name} in few bits", lambda: _packed_few(layer))
    if held is None:
        return None
    few, blob = held
    few = replace(few, rescaling=layer.rescaling)
    depth = layer.weights[0].size

    def make(a: np.ndarray, b: np.ndarray) -> tuple[structs.Call, Any]:
        return few.struct(x.physical(a).reshape(rows, depth), blob, None, y.physical(b)), (few, blob)

    return context.call(node, (x,), y, make)
