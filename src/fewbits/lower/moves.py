"""Rules of operators that give numbers another place: reshapes, slices, pads."""

from typing import Any

import numpy as np

from fewbits.graph.graph import Node
from fewbits.graph.operators import padding_mode
from fewbits.lower.context import Context, Rules
from fewbits.lower.emit import moved, passed, picked, unchanged
from fewbits.lower.sizes import reshaped
from fewbits.program import ops as op

WHOLE = 2**31  # slices that end beyond this run to the end


def reshape(context: Context, node: Node) -> None:
    assert node.shape is not None, "a reshape returns one tensor"
    if node.shape == context.shape(node["self"]):
        return unchanged(context, node)
    passed(context, node, op.Reshape(node.name, context.read(node["self"]), reshaped(
        context.shape(node["self"]), node.shape, node.free)))


def transpose(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    order = list(range(len(context.values[source].shape)))
    if "dims" in node.arguments:
        order = [axis % len(order) for axis in node["dims"]]
    elif len(order) > 1:
        first, second = node.arguments.get("dim0", 0) % len(order), node.arguments.get("dim1", 1) % len(order)
        order[first], order[second] = order[second], order[first]
    passed(context, node, op.Transpose(node.name, source, tuple(order)))


def cut(context: Context, node: Node) -> None:
    shape = context.shape(node["self"])
    axis = node["dim"] % len(shape)
    size = shape[axis]
    if size is None:
        return unchanged(context, node)  # the whole batch: the operator table refuses anything else
    start, stop, step = slice(node["start"], min(node["end"] or WHOLE, WHOLE) if node["end"] != 0 else 0,
                              node["step"]).indices(size)
    if (start, stop, step) == (0, size, 1):
        return unchanged(context, node)
    passed(context, node, op.Slice(node.name, context.read(node["self"]), axis, start, stop, step))


def select(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape = context.values[source].shape
    axis = node["dim"] % len(shape)
    size = shape[axis]
    assert size is not None and node.shape is not None, "the operator table refuses the batch"
    index = node["index"] if axis in context.free(node["self"]) else node["index"] % size
    kept = (*shape[:axis], 1, *shape[axis + 1:])
    part = moved(context, op.Slice(f"{node.name}.part", source, axis, index, WHOLE if index == -1 else index + 1, 1),
                 kept)
    context.names[node.name] = moved(context, op.Reshape(node.name, part, reshaped(kept, node.shape, node.free)),
                                     node.shape)


def split(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape = context.values[source].shape
    axis = node["dim"] % len(shape)
    size = shape[axis]
    assert size is not None, "the operator table refuses the batch"
    if "split_sizes" in node.arguments:
        lengths = list(node["split_sizes"])
    else:
        length = -(-size // node["chunks"]) if "chunks" in node.arguments else node["split_size"]
        lengths = [min(length, size - start) for start in range(0, size, length)]
    parts, start = [], 0
    used = {n["argument1"]: n.name for n in context.simulation.model.graph.everything
            if n.refs == (node.name,) and "argument1" in n.arguments}
    for index, length in enumerate(lengths):
        if index in used:  # parts that nobody reads are not made
            part_shape = (*shape[:axis], length, *shape[axis + 1:])
            parts.append(moved(context, op.Slice(used[index], source, axis, start, start + length, 1), part_shape))
        else:
            parts.append("")
        start += length
    context.lists[node.name] = parts


def item(context: Context, node: Node) -> None:
    context.names[node.name] = context.lists[node.refs[0]][node["argument1"]]


def pad(context: Context, node: Node) -> None:
    source, mode = context.read(node["self"]), padding_mode(node)
    shape, flat = list(context.values[source].shape), node["pad"] if "pad" in node.arguments else node["padding"]
    margins = [(0, 0)] * len(shape)
    for i in range(len(flat) // 2):  # ATen counts from the last axis
        margins[len(shape) - 1 - i] = (flat[2 * i], flat[2 * i + 1])
    if not any(map(sum, margins)):
        return unchanged(context, node)
    if mode == "constant":
        return passed(context, node, op.Pad(node.name, source, tuple(margins)))
    picked(context, node, source, {axis: np.pad(np.arange(shape[axis] or 0), pair, _NUMPY_MODES[mode])
                                   for axis, pair in enumerate(margins) if any(pair)})


_NUMPY_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


RULES: Rules = {
    "reshape": reshape, "transpose": transpose, "slice": cut, "select": select, "split": split, "item": item,
    "pad": pad,
}
