"""The lowering rules: what each operator of the graph becomes in the program."""

from collections.abc import Callable
from typing import Any

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node
from fewbits.graph.operators import mean_axes
from fewbits.lower.context import Context
from fewbits.program import nodes as op
from fewbits.program.nodes import Margins, Pair

Rule = Callable[[Context, Node], None]
WHOLE = 2**31  # slices that end beyond this run to the end


def _pair(value: Any) -> Pair:
    """ATen's lists of one or two sizes."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def _same_margins(kernel: Pair, dilation: Pair) -> Margins:
    """padding="same": total dilation · (kernel − 1), the odd one behind."""
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    return (top, bottom), (left, right)


def _margins(padding: Any, kernel: Pair, dilation: Pair) -> Margins:
    if padding == "same":
        return _same_margins(kernel, dilation)
    height, width = (0, 0) if padding == "valid" else _pair(padding)
    return (height, height), (width, width)


def _conv(context: Context, node: Node) -> None:
    weight, y = context.weight(node), context.result(node)
    kernel, dilation = (weight.codes.shape[2], weight.codes.shape[3]), _pair(node["dilation"])
    context.names[node.name] = context.emit(
        op.Conv(y.name, context.read(node["input"]), weight, context.bias(node), _pair(node["stride"]),
                _margins(node["padding"], kernel, dilation), dilation, node["groups"], y.low, y.high),
        y.shape, y.encoding)


def _linear(context: Context, node: Node) -> None:
    y = context.result(node)
    context.names[node.name] = context.emit(
        op.Linear(y.name, context.read(node["input"]), context.weight(node), context.bias(node), y.low, y.high),
        y.shape, y.encoding)


def _add(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Add(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def _concat(context: Context, node: Node) -> None:
    y = context.result(node)
    inputs = tuple(context.read(item) for item in node["tensors"])
    context.names[node.name] = context.emit(
        op.Concat(y.name, inputs, node["dim"] % len(y.shape), y.low, y.high), y.shape, y.encoding)


def _clamp(context: Context, node: Node) -> None:
    source = node.refs[0]
    if context.simulation.plan.grid(source) == node.name:  # the node before carries it in its bounds
        context.names[node.name] = context.names[source]
        return
    y = context.result(node)
    context.names[node.name] = context.emit(
        op.Requantize(y.name, context.names[source], y.low, y.high), y.shape, y.encoding)


def _average_pool(context: Context, node: Node) -> None:
    y = context.result(node)
    kernel = _pair(node["kernel_size"])
    stride = _pair(node["stride"]) if node["stride"] else kernel
    margins = _pool_margins(context, node, kernel, stride, (1, 1))
    if node["ceil_mode"] and margins != _margins(node["padding"], kernel, (1, 1)):
        raise LoweringError(f"average pool {node.name!r} has windows that reach beyond its padding (ceil_mode): "
                            "choose sizes that divide")
    context.names[node.name] = context.emit(
        op.AveragePool(y.name, context.read(node["self"]), kernel, stride, margins,
                       node["count_include_pad"], node["divisor_override"] or 0, y.low, y.high),
        y.shape, y.encoding)


def _pool_margins(context: Context, node: Node, kernel: Pair, stride: Pair, dilation: Pair) -> Margins:
    """A pool's padding, with what ceil_mode's last windows reach beyond it added behind."""
    assert node.shape is not None, "a pool returns one tensor"
    sizes = context.shape(node["self"])[-2:]
    margins = []
    for axis, (before, after) in enumerate(_margins(node["padding"], kernel, dilation)):
        size, windows = sizes[axis], node.shape[axis - 2]
        if size is None or windows is None:
            raise LoweringError(f"pool {node.name!r} works on an axis whose size is not known")
        reach = (windows - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        margins.append((before, max(after, reach - size - before)))
    return margins[0], margins[1]


def _max_pool(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    kernel, dilation = _pair(node["kernel_size"]), _pair(node["dilation"])
    stride = _pair(node["stride"]) if node["stride"] else kernel
    margins = _pool_margins(context, node, kernel, stride, dilation)
    _pass(context, node, op.MaxPool(node.name, source, kernel, stride, margins, dilation))


def _mean(context: Context, node: Node) -> None:
    y = context.result(node)
    axes = mean_axes(node)
    keep = len(y.shape) == len(context.shape(node["self"]))
    context.names[node.name] = context.emit(
        op.Mean(y.name, context.read(node["self"]), axes, keep, y.low, y.high), y.shape, y.encoding)


def _pass(context: Context, node: Node, made: op.Node) -> None:
    """Emits a node that keeps the encoding of the value it reads."""
    assert node.shape is not None, "only splits return lists"
    encoding = context.encoding(op.reads(made)[0])
    context.names[node.name] = context.emit(made, node.shape, encoding)


def _unchanged(context: Context, node: Node) -> None:
    context.names[node.name] = context.names[node.refs[0]]


def _reshape(context: Context, node: Node) -> None:
    assert node.shape is not None, "a reshape returns one tensor"
    if node.shape == context.shape(node["self"]):
        return _unchanged(context, node)
    shape = tuple(-1 if size is None else size for size in node.shape)
    _pass(context, node, op.Reshape(node.name, context.read(node["self"]), shape))


def _transpose(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    order = list(range(len(context.values[source].shape)))
    if "dims" in node.arguments:
        order = [axis % len(order) for axis in node["dims"]]
    elif len(order) > 1:
        first, second = node.arguments.get("dim0", 0) % len(order), node.arguments.get("dim1", 1) % len(order)
        order[first], order[second] = order[second], order[first]
    _pass(context, node, op.Transpose(node.name, source, tuple(order)))


def _slice(context: Context, node: Node) -> None:
    shape = context.shape(node["self"])
    axis = node["dim"] % len(shape)
    size = shape[axis]
    if size is None:
        return _unchanged(context, node)  # the whole batch: the operator table refuses anything else
    start, stop, step = slice(node["start"], min(node["end"] or WHOLE, WHOLE) if node["end"] != 0 else 0,
                              node["step"]).indices(size)
    if (start, stop, step) == (0, size, 1):
        return _unchanged(context, node)
    _pass(context, node, op.Slice(node.name, context.read(node["self"]), axis, start, stop, step))


def _select(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape, encoding = context.values[source].shape, context.encoding(source)
    axis = node["dim"] % len(shape)
    size = shape[axis]
    assert size is not None and node.shape is not None, "the operator table refuses the batch"
    index = node["index"] % size
    kept = (*shape[:axis], 1, *shape[axis + 1:])
    part = context.emit(op.Slice(f"{node.name}.part", source, axis, index, index + 1, 1), kept, encoding)
    target = tuple(-1 if s is None else s for s in node.shape)
    context.names[node.name] = context.emit(op.Reshape(node.name, part, target), node.shape, encoding)


def _split(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape, encoding = context.values[source].shape, context.encoding(source)
    axis = node["dim"] % len(shape)
    size = shape[axis]
    assert size is not None, "the operator table refuses the batch"
    if "split_sizes" in node.arguments:
        lengths = list(node["split_sizes"])
    else:
        length = -(-size // node["chunks"]) if "chunks" in node.arguments else node["split_size"]
        lengths = [min(length, size - start) for start in range(0, size, length)]
    parts, start = [], 0
    used = {n["argument1"]: n.name for n in context.simulation.model.graph.nodes
            if n.refs == (node.name,) and "argument1" in n.arguments}
    for index, length in enumerate(lengths):
        if index in used:  # parts that nobody reads are not made
            part_shape = (*shape[:axis], length, *shape[axis + 1:])
            parts.append(context.emit(op.Slice(used[index], source, axis, start, start + length, 1), part_shape,
                                      encoding))
        else:
            parts.append("")
        start += length
    context.lists[node.name] = parts


def _item(context: Context, node: Node) -> None:
    context.names[node.name] = context.lists[node.refs[0]][node["argument1"]]


def _pad(context: Context, node: Node) -> None:
    rank, flat = len(context.shape(node["self"])), list(node["pad"])
    margins = [(0, 0)] * rank
    for i in range(len(flat) // 2):  # ATen counts from the last axis
        margins[rank - 1 - i] = (flat[2 * i], flat[2 * i + 1])
    if not any(map(sum, margins)):
        return _unchanged(context, node)
    _pass(context, node, op.Pad(node.name, context.read(node["self"]), tuple(margins)))


def _nothing(context: Context, node: Node) -> None:
    """Sizes live in the shapes of the program's values."""


RULES: dict[str, Rule] = {
    "conv": _conv, "linear": _linear, "add": _add, "concat": _concat, "clamp": _clamp,
    "average_pool": _average_pool, "global_average_pool": _mean, "mean": _mean, "max_pool": _max_pool,
    "reshape": _reshape, "transpose": _transpose, "slice": _slice, "select": _select, "split": _split,
    "item": _item, "pad": _pad, "dropout": _unchanged, "identity": _unchanged, "cast": _unchanged,
    "size": _nothing,
}
