"""Pools, means, softmax and layer norm as native calls."""

from typing import Any

import numpy as np

from fewbits.engines.native.context import Context, Forms, Stored, channels_last, plain
from fewbits.engines.native.dots import rescaling
from fewbits.kernels import structs
from fewbits.kernels.rows import Exponentials, Normal
from fewbits.kernels.windows import Windows, mean_struct
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program import rescale

f32 = np.float32


def _pool(context: Context, node: Any, windows: Windows) -> Stored:
    x = context.ordered(context.stored[node.input], channels_last(4))
    high, wide = windows.out_size(*x.shape[2:])
    y = context.new(node.name, (*x.shape[:2], high, wide), x.order, np.uint8)

    def make(a: np.ndarray, b: np.ndarray) -> tuple[structs.Call, Any]:
        batch, height, width, channels = x.physical(a).shape
        call = windows.struct((batch, height, width, channels))
        call.x, call.y = a.ctypes.data, b.ctypes.data
        return call, windows

    return context.call(node, (x,), y, make)


def _max_pool(context: Context, node: op.MaxPool) -> Stored | None:
    x = context.stored[node.input]
    if x.dtype != np.uint8 or len(x.shape) != 4:
        return None
    (top, bottom), (left, right) = node.padding
    (kernel_h, kernel_w), (stride_h, stride_w), (d_h, d_w) = node.kernel, node.stride, node.dilation
    return _pool(context, node, Windows((kernel_h, kernel_w), (stride_h, stride_w), (top, bottom, left, right), (d_h,
                                                                                                                 d_w)))


def _average_pool(context: Context, node: op.AveragePool) -> Stored | None:
    x = context.stored[node.input]
    if not context.is_bytes(node.input, node.name) or len(x.shape) != 4 or context.program.profile.rescaling != "float":
        return None
    (top, bottom), (left, right) = node.padding
    (kernel_h, kernel_w), (stride_h, stride_w) = node.kernel, node.stride
    made = Windows((kernel_h, kernel_w), (stride_h, stride_w), (top, bottom, left, right))
    factors = constants.pool_multiplier(context.encoding(node.input), context.encoding(node.name), node.counts)
    factors = np.array(factors, f32) if factors.size == 1 else np.broadcast_to(factors, made.out_size(*x.shape[2:]))
    added = context.added(node.name)
    return _pool(context, node, Windows(
        made.kernel, made.stride, made.margins, (1, 1), np.ascontiguousarray(factors).reshape(
            (1, 1) if factors.size == 1 else factors.shape), context.zero(node.input), context.zero(node.name),
        node.low + added, node.high + added))


def _mean(context: Context, node: op.Mean) -> Stored | None:
    if not context.is_bytes(node.input, node.name):
        return None
    x = context.stored[node.input]
    axes = [axis % len(x.shape) for axis in node.axes]
    if not _together(x, axes):
        x = context.ordered(x, plain(len(x.shape)))
        if not _together(x, axes):
            return None
    count = x.sizes(axes)
    factor = rescale.mean(context.program.profile, context.encoding(node.input), context.encoding(node.name), count)
    made = rescaling(context, node, factor, "other")
    if made is None or count > 2**22:
        return None
    places = [x.order.index(axis) for axis in axes]
    outer, inner = x.sizes(x.order[:min(places)]), x.sizes(x.order[max(places) + 1:])
    left = [axis for axis in range(len(x.shape)) if axis not in axes]
    if node.keep:
        shape, order = [1 if axis in axes else x.shape[axis] for axis in range(len(x.shape))], x.order
    else:
        shape = [x.shape[axis] for axis in left]
        order = tuple(left.index(axis) for axis in x.order if axis not in axes)
    y, zero = context.new(node.name, shape, order, np.uint8), context.zero(node.input)

    def make(a: np.ndarray, b: np.ndarray) -> tuple[structs.Call, Any]:
        return mean_struct(x.physical(a).reshape(outer, count, inner), zero, made, y.physical(b).reshape(outer,
                                                                                                         inner)), made

    return context.call(node, (x,), y, make)


def _together(x: Stored, axes: list[int]) -> bool:
    """Whether some axes lie beside each other."""
    places = sorted(x.order.index(axis) for axis in axes)
    return places[-1] - places[0] == len(places) - 1


def _turns(array: np.ndarray, shape: tuple[int, ...], axes: int) -> np.ndarray:
    """Rows over the last axes that a constant repeats over the axes before: [rows, length]."""
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    own = next((axis for axis, size in enumerate(array.shape) if size != 1), len(shape) - axes)
    own = min(own, len(shape) - axes)
    whole = np.broadcast_to(array[(0,) * own], shape[own:])
    return np.ascontiguousarray(whole).reshape(-1, int(np.prod(shape[len(shape) - axes:])))


def _rows_of(context: Context, name: str, axes: int) -> Stored:
    """A value whose last axes are innermost in memory."""
    x = context.stored[name]
    rank = len(x.shape)
    return x if x.order[rank - axes:] == tuple(range(rank - axes, rank)) else context.ordered(x, plain(rank))


def _softmax(context: Context, node: op.Softmax) -> Stored | None:
    if node.seen is not None or node.empty != "zero":
        return None
    x, y = context.encoding(node.input), context.encoding(node.name)
    if not context.are_codes(node.input) or not context.is_bytes(node.name):
        return None
    if context.stored[node.input].shape[-1] > constants.SOFTMAX_LENGTH:
        return None
    if node.seen is not None:
        return None  # a mask that is known when it runs
    mask = None if node.mask is None else _turns(node.mask, context.stored[node.input].shape, 1)
    if mask is not None and node.empty != "zero":
        nothing = ~mask.any(-1, keepdims=True)
        if node.empty == "uniform" and nothing.any():
            return None
        mask = np.ascontiguousarray((mask != 0) | nothing).astype(np.uint8)
    value = _rows_of(context, node.input, 1)
    if mask is not None:
        value = context.ordered(value, plain(len(value.shape)))
    added = context.added(node.name)
    made = Exponentials(constants.exponentials(x, node.factor), float(y.scale), context.zero(node.name),
                        node.low + added, node.high + added,
                        first=x.format.low if context.code_type(node.input) == np.int16 else 0)
    return _exponentials(context, node, made, value, mask)


def _exponentials(context: Context, node: Any, made: Exponentials, x: Stored, mask: np.ndarray | None) -> Stored:
    length = x.shape[-1]
    out = context.new(node.name, x.shape, x.order, np.uint8)
    return context.call(node, (x,), out, lambda a, b: (
        made.struct(x.physical(a).reshape(-1, length), mask, x.physical(b)), (made, mask)))


def _log_softmax(context: Context, node: op.LogSoftmax) -> Stored | None:
    x, y = context.encoding(node.input), context.encoding(node.name)
    if not context.is_bytes(node.input, node.name) or context.stored[node.input].shape[-1] > constants.SOFTMAX_LENGTH:
        return None
    below = constants.steps_below(x)
    if below.max() > 2**30:
        return None
    added = context.added(node.name)
    made = Exponentials(constants.exponentials(x, 1.0), float(y.scale), context.zero(node.name), node.low + added,
                        node.high + added, below, *constants.logarithms())
    return _exponentials(context, node, made, _rows_of(context, node.input, 1), None)


def _layer_norm(context: Context, node: op.LayerNorm) -> Stored | None:
    if not context.are_codes(node.input) or not context.is_bytes(node.name) or node.about != "mean":
        return None
    y = context.encoding(node.name)
    x = _rows_of(context, node.input, node.axes)
    first = len(x.shape) - node.axes
    length = x.sizes(range(first, len(x.shape)))
    if x.dtype == np.int16 and length > 2**14:
        return None
    gain, shift = (_turns(np.array(array, f32), x.shape, node.axes) for array in (node.gain, node.shift))
    rows = max(len(gain), len(shift))
    if rows > 1:
        x = context.ordered(x, plain(len(x.shape)))
    gain, shift = (np.ascontiguousarray(np.resize(array, (rows, length))) for array in (gain, shift))
    added = context.added(node.name)
    epsilon = float(constants.integer_epsilon(context.encoding(node.input), node.epsilon, length))
    if not np.isfinite(epsilon):
        return None
    about = context.zero(node.input) if node.about == "zero" else None
    made = Normal(gain, shift, epsilon, float(y.scale), context.zero(node.name), node.low + added, node.high + added,
                  about)
    out = context.new(node.name, x.shape, x.order, np.uint8)
    return context.call(node, (x,), out, lambda a, b: (made.struct(x.physical(a).reshape(-1, length), x.physical(b)),
                                                       made))


FORMS: Forms = {op.MaxPool: _max_pool, op.AveragePool: _average_pool, op.Mean: _mean, op.Softmax: _softmax,
                op.LogSoftmax: _log_softmax, op.LayerNorm: _layer_norm}
