"""Operators that move codes as native calls, or as nothing but another way to read them."""

from dataclasses import replace
from typing import Any

import numpy as np

from fewbits.engines.native.context import Context, Forms, Stored, constant, moved_by, plain
from fewbits.kernels import structs
from fewbits.kernels.moves import rows_struct
from fewbits.program import ops as op

_MOVED = (np.uint8, np.int8, np.bool_, np.int16, np.int32, np.float32, np.int64)


def _reshape(context: Context, node: op.Reshape) -> Stored:
    x = context.stored[node.input]
    if not x.is_plain:
        x = context.ordered(x, plain(len(x.shape)))
    size = x.sizes(range(len(x.shape)))
    shape = node.of(x.shape)
    known = int(np.prod([s for s in shape if s != -1]))
    shape = tuple(size // known if s == -1 else s for s in shape)
    return replace(x, shape=shape, order=plain(len(shape)))


def _transpose(context: Context, node: op.Transpose) -> Stored:
    """The same memory: where its axes lie is all that changes."""
    x, back = context.stored[node.input], np.argsort(node.permutation)
    return replace(x, shape=tuple(x.shape[axis] for axis in node.permutation),
                   order=tuple(int(back[axis]) for axis in x.order))


def _slice(context: Context, node: op.Slice) -> Stored | None:
    x = context.stored[node.input]
    if x.dtype not in _MOVED:
        return None
    part = (slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)
    shape = list(x.shape)
    shape[node.axis] = len(range(*part[-1].indices(shape[node.axis])))
    out = context.new(node.name, shape, x.order, x.dtype)
    return context.call(node, (x,), out, lambda a, b: (moved_by(a[part], b, None), None))


def _gather(context: Context, node: op.Gather) -> Stored | None:
    x = context.stored[node.input]
    if x.dtype not in _MOVED or not node.indices:
        return None
    axis = node.axis % len(x.shape)
    numbers = np.array(node.indices, np.int64)
    place = x.order.index(axis)
    outer, inner = x.sizes(x.order[:place]), x.sizes(x.order[place + 1:])
    shape = list(x.shape)
    shape[axis] = numbers.size
    out = context.new(node.name, shape, x.order, x.dtype)
    return context.call(node, (x,), out, lambda a, b: (rows_struct(
        x.physical(a).reshape(outer, -1, inner), numbers, x.physical(b).reshape(outer, -1, inner)), numbers))


def _pad(context: Context, node: op.Pad) -> Stored | None:
    x = context.stored[node.input]
    if x.dtype not in _MOVED:
        return None
    if _is_margin(context, node):
        context.margins[node.name] = node
        return x
    coded = context.program.values[node.input].encoding is not None
    zero = np.array(context.zero(node.input) if coded else 0).astype(x.dtype)
    shape = [size + before + after for size, (before, after) in zip(x.shape, node.margins, strict=True)]
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(x.shape, node.margins, strict=True))
    out = context.new(node.name, shape, x.order, x.dtype)
    filled = constant(zero.reshape(1), (0,))
    context.call(node, (filled,), out, lambda a, b: (moved_by(np.broadcast_to(a, b.shape), b, None), filled))
    return context.call(node, (x,), out, lambda a, b: (moved_by(a, b[inside], None), None))


def _is_margin(context: Context, node: op.Pad) -> bool:
    """Whether only convolutions over rows and columns read it, which pad with the same number 0."""
    around = all(before == after == 0 for before, after in node.margins[:2])
    readers = context.readers.get(node.name, ())  # a body's output has none in it
    return (len(node.margins) == 4 and around and node.name not in context.wanted and context.is_integer(node.name)
            and bool(readers) and all(isinstance(reader, op.Conv) and len(reader.stride) == 2 for reader in readers))


def _embedding(context: Context, node: op.Embedding) -> Stored | None:
    numbers = context.stored[node.input]
    codes, added = node.table.codes, context.added(node.name)
    if codes.dtype not in (np.uint8, np.int8) or codes.ndim != 2 or numbers.dtype != np.int64:
        return None
    table = np.ascontiguousarray((codes.astype(np.int64) + added).astype(np.uint8))
    numbers = context.ordered(numbers, plain(len(numbers.shape)))
    out = context.new(node.name, (*numbers.shape, table.shape[1]), plain(len(numbers.shape) + 1), np.uint8)

    def make(a: np.ndarray, b: np.ndarray) -> tuple[structs.Call, Any]:
        return rows_struct(table[None], a.reshape(-1), b.reshape(1, -1, table.shape[1])), table

    return context.call(node, (numbers,), out, make)


FORMS: Forms = {op.Reshape: _reshape, op.Transpose: _transpose, op.Slice: _slice, op.Gather: _gather, op.Pad: _pad,
                op.Embedding: _embedding}
