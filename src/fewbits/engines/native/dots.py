"""Convolutions, fully connected layers and matrix products as native calls."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewbits.engines.native.context import Context, Forms, Order, Stored, channels_last, plain
from fewbits.engines.native.few import few_call
from fewbits.kernels import library, structs
from fewbits.kernels.calls import address
from fewbits.kernels.conv import Layer, Pair, pack
from fewbits.kernels.products import Matrices
from fewbits.kernels.rescaling import Rescaling
from fewbits.program import ops as op
from fewbits.program import rescale
from fewbits.program.accumulator import centred_weight
from fewbits.program.fixed_point import Fixed

_KINDS = {"double": structs.DOUBLE, "single": structs.SINGLE, "wide": structs.WIDE}
_ACTIVATIONS = (np.uint8, np.int16)


def rescaling(context: Context, node: Any, factor: rescale.Factor, role: rescale.Role) -> Rescaling | None:
    """How the sums of a node become what it writes; None where the kernels have not got it."""
    profile, y = context.program.profile, context.encoding(node.name)
    if y.format.dtype not in (np.uint8, np.int8, np.int16):
        return None
    added = context.added(node.name)
    type = structs.S16 if y.format.dtype == np.int16 else structs.U8
    zero, low, high = int(y.zero_point) + added, node.low + added, node.high + added
    least, most = (0, 255) if type == structs.U8 else (-2**15, 2**15 - 1)
    if not least <= zero <= most:
        return None
    if not isinstance(factor, Fixed):
        return Rescaling(structs.FLOAT, type, zero, low, high, np.array(factor, np.float32).reshape(-1))
    kind = _KINDS[rescale.rounding(profile, role)]
    mantissa, shift = (np.array(part).reshape(-1) for part in (factor.mantissa, factor.shift))
    if shift.max() > 30 or shift.min() < (-31 if kind == structs.SINGLE else -47) or mantissa.max() >= 2**31:
        return None
    return Rescaling(kind, type, zero, low, high, mantissa=mantissa.astype(np.int32), shift=shift.astype(np.int32))


def _written(context: Context, node: op.Conv | op.Linear, role: rescale.Role) -> tuple[str, Rescaling] | None:
    """What a layer writes and how its sums become that: the thresholds behind it are its own where it alone is read."""
    if context.program.is_accumulator(node.name):
        if context.encoding(node.name).format.dtype != np.int32:
            return None
        threshold = context.threshold(node.name)
        made = None if threshold is None else _by_thresholds(context, node, threshold)
        if threshold is not None and made is not None:
            return threshold.name, made
        return node.name, Rescaling(structs.SUMS, structs.S32)
    x, y = context.encoding(node.input), context.encoding(node.name)
    made = rescaling(context, node, rescale.dot(context.program.profile, x, node.weight.encoding, y), role)
    return None if made is None else (node.name, made)


def _by_thresholds(context: Context, node: op.Conv | op.Linear, threshold: op.Threshold) -> Rescaling | None:
    rank = len(context.program.values[node.name].shape)
    channels = 1 if isinstance(node, op.Conv) else rank - 1
    rows, number = threshold.thresholds.shape
    if rows > 1 and threshold.axis % rank != channels:
        return None
    if threshold.thresholds.dtype != np.int32 or threshold.levels.dtype != np.uint8 or not 1 <= number <= 255:
        return None
    return Rescaling(structs.LEVELS, structs.U8, thresholds=np.ascontiguousarray(threshold.thresholds.T),
                     direction=threshold.direction.astype(np.int32).reshape(-1),
                     levels=np.ascontiguousarray(threshold.levels))


_MANY = 2**18
"""Weights that are waited for: read in few bits where that is exact (level amx: VGG-small's ternary layers 1.2 to 1.5
times as fast from 2^19 weights on, and as fast at 2^18)."""

_THIN = 4
"""Channels of an image of which neighbouring pixels of the output may be computed at once, as channels of one: their
windows overlap, and their few weights fill no registers alone (LeNet-5's first layer: half its time)."""


def _pixels_at_once(layer: Layer, width: int) -> int:
    """How many take the least time, by multiply-adds of sixteen columns at once. width: of the output."""
    outs, high, wide, channels = layer.weights.shape
    tiles = library.level() == "amx"

    def cost(pixels: int) -> float:
        steps = -(-(wide + (pixels - 1) * layer.stride[1]) * channels // 4)
        blocks, row = -(-pixels * outs // 16), width // pixels
        return high * blocks * (-(-row // 16) * -(-steps // 16) if tiles else row * steps)

    if channels > _THIN or layer.groups > 1 or layer.dilation[1] > 1 or library.level() in ("numpy", "portable"):
        return 1
    best = min((1, *(pixels for pixels in (2, 4) if width % pixels == 0 and width // pixels >= 4)), key=cost)
    return best if cost(best) <= 0.75 * cost(1) else 1


def layer_call(context: Context, node: Any, x: Stored, y: Stored, layer: Layer,
               sizes: tuple[int, int, int, int]) -> Stored:
    """Appends a layer over [batch, height, width, C], whose weights are packed once."""
    pixels = _pixels_at_once(layer, layer.out_size(*sizes[1:3])[1]) if isinstance(node, op.Conv) else 1
    layer = layer.joined(pixels) if pixels > 1 else layer
    call = layer.struct(sizes, structs.S16 if x.dtype == np.int16 else structs.U8, structs.BEYOND)
    key = node.name if pixels == 1 else f"{node.name}, {pixels} pixels at once"  # as wide as the image allows
    blob = context.once(key, lambda: pack(call, layer.weights.size >= _MANY))
    if blob is not None:
        call.weights, call.layout = address(blob), structs.PACKED
        layer = replace(layer, weights=layer.weights[:0].copy())  # the packed ones are enough: no view keeps these

    def make(x: np.ndarray, y: np.ndarray) -> tuple[structs.Call, Any]:
        call.x, call.y = x.ctypes.data, y.ctypes.data
        return call, (layer, blob)

    return context.call(node, (x,), y, make)


def _weights(node: op.Conv | op.Linear) -> np.ndarray:
    """Less their zero points, int8 where they fit, [O, C/groups, *kernel]."""
    w = centred_weight(node.weight)
    fits = w.min(initial=0) >= -128 and w.max(initial=0) <= 127
    return w.astype(np.int8 if fits else np.int16).reshape(node.weight.codes.shape)


@dataclass(frozen=True)
class _Slid:
    """Where the kernel of a convolution goes, over one axis as over a row of pixels: as Layer has it; sizes: of what it
    reads, [batch, height, width, C]; order: of axes in memory."""

    stride: Pair
    dilation: Pair
    margins: tuple[int, int, int, int]
    sizes: tuple[int, int, int, int]
    order: Order

    def taps(self, weights: np.ndarray) -> np.ndarray:
        """[O, C/groups, *kernel] as a layer has them."""
        last = np.moveaxis(weights, 1, -1)
        return np.ascontiguousarray(last[:, None] if weights.ndim == 3 else last)

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """Of what it writes."""
        out = layer.out_size(*self.sizes[1:3])
        return (self.sizes[0], len(layer.weights), *out[len(out) + 2 - len(self.order):])


def _slid(node: op.Conv | op.DynamicConv, x: Stored, more: tuple[int, int, int, int] = (0, 0, 0, 0)) -> _Slid | None:
    """more: margins beside the node's; None over three axes."""
    if len(node.stride) > 2:
        return None
    line = len(node.stride) == 1
    one = (1,) if line else ()
    (top, bottom), (left, right) = ((0, 0), *node.padding) if line else node.padding
    (stride_h, stride_w), (dilation_h, dilation_w) = (*one, *node.stride), (*one, *node.dilation)
    batch, channels, *size = x.shape
    height, width = (*one, *size)
    margins = (top + more[0], bottom + more[1], left + more[2], right + more[3])
    return _Slid((stride_h, stride_w), (dilation_h, dilation_w), margins, (batch, height, width, channels),
                 channels_last(len(x.shape)))


def _conv(context: Context, node: op.Conv) -> Stored | None:
    x = context.stored[node.input]
    more = (0, 0, 0, 0)
    if node.input in context.margins:
        (top, bottom), (left, right) = context.margins[node.input].margins[2:]
        more = (top, bottom, left, right)
    slid = _slid(node, x, more)
    if slid is None or x.dtype not in _ACTIVATIONS:
        return None
    written = _written(context, node, "products")
    if written is None:
        return None
    name, made = written
    layer = Layer(slid.taps(_weights(node)), node.bias, made, context.zero(node.input), slid.stride, slid.dilation,
                  slid.margins, node.groups)
    x, y = context.ordered(x, slid.order), context.new(name, slid.shape(layer), slid.order, made.dtype)
    few = few_call(context, node, x, y, layer, slid.sizes)
    return layer_call(context, node, x, y, layer, slid.sizes) if few is None else few


def _linear(context: Context, node: op.Linear) -> Stored | None:
    x = context.stored[node.input]
    written = _written(context, node, "linear")
    if written is None or x.dtype not in _ACTIVATIONS:
        return None
    name, made = written
    last = len(x.shape) - 1
    if x.order[-1] != last:
        x = context.ordered(x, plain(len(x.shape)))
    depth, rows = x.shape[-1], x.sizes(range(last))
    layer = Layer(_weights(node).reshape(-1, 1, 1, depth), node.bias, made, context.zero(node.input))
    y = context.new(name, (*x.shape[:-1], len(layer.weights)), x.order, made.dtype)
    few = few_call(context, node, x, y, layer, (1, 1, rows, depth))
    return layer_call(context, node, x, y, layer, (1, 1, rows, depth)) if few is None else few


def _matmul(context: Context, node: op.MatMul) -> Stored | None:
    if not context.is_bytes(node.first, node.second):
        return None
    a, b = context.stored[node.first], context.stored[node.second]
    made = rescaling(context, node, rescale.matrix_product(context.program.profile, context.encoding(node.first),
                                                           context.encoding(node.second), context.encoding(node.name)),
                     "products")
    before = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    counts = [int(np.prod(value.shape[:-2])) for value in (a, b)]
    batches = int(np.prod(before))
    if made is None or any(count not in (1, batches) for count in counts) or min(len(a.shape), len(b.shape)) < 2:
        return None
    rank = len(b.shape)
    a = context.ordered(a, plain(len(a.shape)))
    turned = (*range(rank - 2), rank - 1, rank - 2)
    transposed = b.order == turned
    b = b if transposed else context.ordered(b, plain(rank))
    matrices = Matrices(context.zero(node.first), context.zero(node.second), made, transposed)
    y = context.new(node.name, (*before, a.shape[-2], b.shape[-1]), plain(len(before) + 2), made.dtype)

    def make(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> tuple[structs.Call, Any]:
        stacked = b.physical(right)
        rows = left.reshape(-1, *left.shape[-2:])
        return matrices.struct(rows, stacked.reshape(-1, *stacked.shape[-2:]), out), matrices

    return context.call(node, (a, b), y, make)


def _dynamic_linear(context: Context, node: op.DynamicLinear) -> Stored | None:
    x = context.ordered(context.stored[node.input], plain(len(context.stored[node.input].shape)))
    depth, rows = x.shape[-1], x.sizes(range(len(x.shape) - 1))
    weights = context.program.constant(node.weight).codes
    layer = _dynamic_layer(context, node, np.ascontiguousarray(weights, np.int8).reshape(-1, 1, 1, depth))
    if layer is None:
        return None
    y = context.new(node.name, (*x.shape[:-1], len(weights)), x.order, np.float32)
    return _dynamic_call(context, node, x, y, layer, (1, 1, rows, depth))


def _dynamic_conv(context: Context, node: op.DynamicConv) -> Stored | None:
    slid = _slid(node, context.stored[node.input])
    if slid is None:
        return None
    taps = slid.taps(context.program.constant(node.weight).codes.astype(np.int8))
    plain_layer = _dynamic_layer(context, node, taps)
    if plain_layer is None:
        return None
    layer = replace(plain_layer, stride=slid.stride, dilation=slid.dilation, margins=slid.margins, groups=node.groups)
    x = context.ordered(context.stored[node.input], slid.order)
    y = context.new(node.name, slid.shape(layer), slid.order, np.float32)
    return _dynamic_call(context, node, x, y, layer, slid.sizes)


def _dynamic_layer(context: Context, node: op.Dynamic, weights: np.ndarray) -> Layer | None:
    """Its factors and its zero point are found when it runs. None where its bias is."""
    scales, offset = context.program.constant(node.weight).encoding.scale, None
    if node.bias is not None:
        bias = context.stored[node.bias]
        if isinstance(bias.buffer, str):
            return None
        offset = np.array(bias.view(bias.buffer), np.float32)
    made = Rescaling(structs.REAL, structs.F32, factor=np.zeros(scales.size, np.float32), offset=offset)
    return Layer(weights, None, made, 0)


def _dynamic_call(context: Context, node: op.Dynamic, x: Stored, y: Stored, layer: Layer,
                  sizes: tuple[int, int, int, int]) -> Stored:
    """Appends a layer over float32 [batch, height, width, C], whose codes lie in an array of its own."""
    scales = context.program.constant(node.weight).encoding.scale.astype(np.float32).reshape(-1)
    prepared = layer.struct(sizes, beyond=structs.BEYOND)
    prepared.rescale.per_channel = scales.size > 1
    blob = context.once(node.name, lambda: pack(prepared))
    if blob is not None:
        prepared.weights, prepared.layout = address(blob), structs.PACKED
        layer = replace(layer, weights=layer.weights[:0].copy())  # the packed ones are enough

    def make(x: np.ndarray, y: np.ndarray) -> tuple[structs.Call, Any]:
        conv = structs.Conv.from_buffer_copy(prepared)
        codes, real = np.zeros(x.size + structs.BEYOND, np.uint8), np.zeros(scales.size, np.float32)
        conv.x, conv.y, conv.rescale.factor = address(codes), y.ctypes.data, address(real)
        return structs.Dynamic(op=structs.DYNAMIC, weight_scales=scales.size, x=x.ctypes.data, codes=address(codes),
                               weight_scale=address(scales), factor=address(real), conv=conv), (layer, blob, scales,
                                                                                                codes, real)

    return context.call(node, (x,), y, make)


FORMS: Forms = {op.Conv: _conv, op.Linear: _linear, op.MatMul: _matmul, op.DynamicLinear: _dynamic_linear,
                op.DynamicConv: _dynamic_conv}
