"""Codes from codes one by one, or two by two, as native calls: grids, pairs and tables."""

from typing import Any

import numpy as np

from fewbits.engines.native.context import Context, Forms, Stored, constant, moved_by, plain, through_all_codes
from fewbits.kernels import structs
from fewbits.kernels.elementwise import Grid, PairOf, dequantize_struct, table_struct, threshold_struct
from fewbits.program import ops as op
from fewbits.program import rescale
from fewbits.program.fixed_point import Fixed
from fewbits.program.ops.pairs import fma_constants, is_fused

f32 = np.float32


def _quantize(context: Context, node: op.Quantize) -> Stored | None:
    y, x = context.encoding(node.name), context.stored[node.input]
    if y.scale.size != 1 or y.format.dtype not in (np.uint8, np.int8, np.int16) or not context.is_integer(node.name):
        return None
    added, wide = context.added(node.name), y.format.dtype == np.int16
    grid = Grid(float(y.scale), context.zero(node.name), y.format.low + added, y.format.high + added,
                structs.S16 if wide else structs.U8, context.program.profile.entering == "half_away")
    out = context.new(node.name, x.shape, x.order, np.int16 if wide else np.uint8)
    return context.call(node, (x,), out, lambda a, b: (grid.struct(x.physical(a), x.physical(b)), None))


def _constant(context: Context, node: op.Constant) -> Stored:
    codes, added = node.data.codes, context.added(node.name)
    stored = (codes.astype(np.int64) + added).astype(np.uint8) if codes.dtype in (np.uint8, np.int8) else codes
    return constant(stored, plain(codes.ndim), added)


def _plain_constant(context: Context, node: op.FloatConstant | op.ExactConstant) -> Stored:
    data = op.record_of(node).reference(context.program, node)
    return constant(data, plain(data.ndim))


def _looked_up(context: Context, node: Any, source: str, table: np.ndarray, low: int = 0) -> Stored:
    """table: as stored, [rows, codes], rows along axis 1 where there are more than one; low: the code of the first
    entry, where codes are int16."""
    x = context.stored[source]
    inner = 1
    if len(table) > 1:
        inner = x.sizes(x.order[x.order.index(1) + 1:])
    out = context.new(node.name, x.shape, x.order, table.dtype)
    return context.call(node, (x,), out,
                        lambda a, b: (table_struct(x.physical(a), table, x.physical(b), inner, low), table))


def _table(context: Context, node: op.Table) -> Stored | None:
    if not context.are_codes(node.input, node.name) or (len(node.table) > 1
                                                        and len(context.stored[node.input].shape) < 2):
        return None
    low, added = context.encoding(node.input).format.low, context.added(node.input)
    table = (node.table.astype(np.int64) + context.added(node.name)).astype(context.code_type(node.name))
    if context.code_type(node.input) == np.int16:
        return _looked_up(context, node, node.input, table, low)
    entry = (np.arange(256) - added - low).clip(0, node.table.shape[1] - 1)
    return _looked_up(context, node, node.input, np.ascontiguousarray(table[:, entry]))


def _requantize(context: Context, node: op.Requantize) -> Stored | None:
    if not context.is_bytes(node.input, node.name):
        return None
    return _looked_up(context, node, node.input, _by_reference(context, node, node.input)[None])


def _by_reference(context: Context, node: Any, source: str) -> np.ndarray:
    """uint8 [256]: what the definition of a node gives for each code of its only operand."""
    return through_all_codes(context, node, source, lambda codes: op.record_of(node).reference(context.program, node,
                                                                                               codes))


def _concat(context: Context, node: op.Concat) -> Stored | None:
    if not context.is_bytes(node.name, *node.inputs):
        return None
    values = [context.stored[name] for name in node.inputs]
    batch = max(value.shape[0] for value in values)
    order = next((value.order for value in values if not isinstance(value.buffer, np.ndarray)), values[0].order)
    shape = list(values[0].shape)
    shape[0] = batch
    shape[node.axis] = sum(value.shape[node.axis] for value in values)
    if node.axis == 0:
        return None
    tables = {name: through_all_codes(context, node, name, lambda codes, name=name: _regridded(context, node, name,
                                                                                               codes))
              for name in node.inputs}
    out = context.new(node.name, shape, order, np.uint8)
    start = 0
    for name, value in zip(node.inputs, values, strict=True):
        size = value.shape[node.axis]
        if size == 0:
            continue
        part = (slice(None),) * node.axis + (slice(start, start + size),)
        table = None if (tables[name] == np.arange(256)).all() else tables[name]

        def make(x: np.ndarray, y: np.ndarray, part=part, table=table) -> tuple[structs.Call, Any]:
            some = y[part]
            return moved_by(np.broadcast_to(x, some.shape), some, table), table

        context.call(node, (value,), out, make)
        start += size
    return out


def _regridded(context: Context, node: op.Concat, name: str, codes: np.ndarray) -> np.ndarray:
    """As the reference brings an operand of a concatenation to the grid of the result."""
    alone = op.Concat(node.name, (name,), 0, node.low, node.high)
    return op.record_of(alone).reference(context.program, alone, codes)


def _dequantize(context: Context, node: op.Dequantize) -> Stored | None:
    x, encoding = context.stored[node.input], context.encoding(node.input)
    zeros = encoding.zero_point.reshape(-1)
    if x.dtype not in (np.uint8, np.int16, np.int32) or not context.is_integer(node.input) or (zeros != zeros[0]).any():
        return None
    scale = np.array(encoding.scale, f32).reshape(-1)
    if scale.size > 1:
        along = encoding.block.expand(encoding.scale, x.shape)
        last = x.order[-1]
        if x.shape[last] != scale.size or not (np.broadcast_to(along, x.shape) == scale.reshape(
                [-1 if axis == last else 1 for axis in range(len(x.shape))])).all():
            return None
    out = context.new(node.name, x.shape, x.order, f32)
    zero = int(zeros[0]) + x.added
    return context.call(node, (x,), out,
                        lambda a, b: (dequantize_struct(x.physical(a), scale, zero, x.physical(b)), scale))


# --------------------------------------------------------------------------------------- pairs


def _pair(context: Context, node: Any, pair: PairOf) -> Stored | None:
    a, b = context.stored[node.first], context.stored[node.second]
    shape = np.broadcast_shapes(a.shape, b.shape)
    whole = next((value for value in (a, b) if value.shape == shape and not isinstance(value.buffer, np.ndarray)), None)
    order = plain(len(shape)) if whole is None else whole.order
    a, b = (_beside(context, value, len(shape), order) for value in (a, b))
    out = context.new(node.name, shape, order, pair.dtype)

    def make(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[structs.Call, Any]:
        left, right = (np.broadcast_to(array, shape).transpose(order) for array in (x, y))
        return pair.struct(left, right, z.transpose(order)), pair

    return context.call(node, (a, b), out, make)


def _beside(context: Context, value: Stored, rank: int, order: tuple[int, ...]) -> Stored:
    """An operand whose axes lie as those of the result, of which it may have the last only."""
    missing = rank - len(value.shape)
    return context.ordered(value, tuple(axis - missing for axis in order if axis >= missing))


def _add(context: Context, node: op.Add | op.Sub) -> Stored | None:
    profile, operands = context.program.profile, (node.first, node.second, node.name)
    if not context.are_codes(*operands) or (profile.addition == "integer" and not context.is_bytes(*operands)):
        return None
    if profile.addition == "integer":
        return _pair(context, node, _all_pairs(context, node))
    a, b, y = (context.encoding(name) for name in (node.first, node.second, node.name))
    added = context.added(node.name)
    low, high = node.low + added, node.high + added
    if is_fused(context.program, node):
        ratio_a, ratio_b, offset = fma_constants(a, b, y)
        return _pair(context, node, PairOf(structs.ADD_FMA, float(ratio_a), float(ratio_b), offset=float(offset),
                                           zero_a=context.added(node.first), zero_b=context.added(node.second),
                                               zero_y=added,
                                           low=low, high=high))
    return _pair(context, node, PairOf(structs.SUBTRACT if isinstance(node, op.Sub) else structs.ADD, float(a.scale),
                                       float(b.scale),
                                       float(y.scale), zero_a=context.zero(node.first),
                                           zero_b=context.zero(node.second),
                                       zero_y=context.zero(node.name), low=low, high=high,
                                       type=structs.CODES[np.dtype(context.code_type(node.name))]))


def _mul(context: Context, node: op.Mul) -> Stored | None:
    if not context.are_codes(node.first, node.second, node.name):
        return None
    a, b, y = (context.encoding(name) for name in (node.first, node.second, node.name))
    factor, added = rescale.product(context.program.profile, a, b, y), context.added(node.name)
    if isinstance(factor, Fixed):
        bytes_only = context.is_bytes(node.first, node.second, node.name)
        return _pair(context, node, _all_pairs(context, node)) if bytes_only else None
    return _pair(context, node, PairOf(structs.MULTIPLY, scale_y=float(factor), offset=float(y.zero_point),
                                       zero_a=context.zero(node.first), zero_b=context.zero(node.second), zero_y=added,
                                       low=node.low + added, high=node.high + added,
                                       type=structs.CODES[np.dtype(context.code_type(node.name))]))


def _by_table(context: Context, node: op.Div | op.Max | op.Min) -> Stored | None:
    if not context.is_bytes(node.first, node.second, node.name):
        return None
    return _pair(context, node, _all_pairs(context, node))


def _all_pairs(context: Context, node: Any) -> PairOf:
    """What the definition of a node gives for every pair of codes."""
    grids = []
    for name in (node.first, node.second):
        x = context.encoding(name).format
        grids.append((np.arange(256) - context.added(name)).clip(x.low, x.high).astype(x.dtype))
    a, b = np.broadcast_arrays(grids[0][:, None], grids[1][None, :])
    codes = op.record_of(node).reference(context.program, node, a, b).astype(np.int64)
    return PairOf(structs.LOOKED_UP, table=(codes + context.added(node.name)).astype(np.uint8).reshape(-1))


def _threshold(context: Context, node: op.Threshold) -> Stored | None:
    x = context.stored[node.input]
    if isinstance(x.buffer, str) and x.buffer == node.name:  # the layer whose sums it compares has written it
        return x
    rows, levels = len(node.thresholds), node.levels
    if x.dtype not in (np.int32, np.float32) or levels.dtype != np.uint8 or not 1 <= node.thresholds.shape[1] <= 255:
        return None
    place = x.order.index(node.axis % len(x.shape)) if rows > 1 else 0
    outer, inner = (x.sizes(x.order[:place]), x.sizes(x.order[place + 1:])) if rows > 1 else (1, x.sizes(x.order))
    out = context.new(node.name, x.shape, x.order, np.uint8)
    held = (np.ascontiguousarray(node.thresholds), np.ascontiguousarray(node.direction), np.ascontiguousarray(levels))
    return context.call(node, (x,), out, lambda a, b: (threshold_struct(
        x.physical(a).reshape(outer, rows, inner), *held, x.physical(b)), held))


FORMS: Forms = {
    op.Quantize: _quantize, op.Constant: _constant, op.FloatConstant: _plain_constant,
    op.ExactConstant: _plain_constant, op.Table: _table,
    op.Requantize: _requantize, op.Concat: _concat, op.Dequantize: _dequantize, op.Add: _add, op.Sub: _add,
    op.Mul: _mul, op.Div: _by_table, op.Max: _by_table, op.Min: _by_table, op.Threshold: _threshold}
