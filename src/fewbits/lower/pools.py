"""Rules of pools and means."""

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node
from fewbits.graph.operators import mean_axes
from fewbits.lower.context import Context
from fewbits.lower.emit import passed
from fewbits.lower.sizes import margins_of, sizes_of
from fewbits.program import nodes as op
from fewbits.program.nodes import Margins, Sizes


def average_pool(context: Context, node: Node) -> None:
    y = context.result(node)
    kernel = sizes_of(node["kernel_size"], 2)
    stride = sizes_of(node["stride"], 2) if node["stride"] else kernel
    margins = _pool_margins(context, node, kernel, stride, (1, 1))
    if node["ceil_mode"] and margins != margins_of(node["padding"], kernel, (1, 1)):
        raise LoweringError(f"average pool {node.name!r} has windows that reach beyond its padding (ceil_mode): "
                            "choose sizes that divide")
    context.names[node.name] = context.emit(
        op.AveragePool(y.name, context.read(node["self"]), kernel, stride, margins,
                       node["count_include_pad"], node["divisor_override"] or 0, y.low, y.high),
        y.shape, y.encoding)


def max_pool(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    kernel, dilation = sizes_of(node["kernel_size"], 2), sizes_of(node["dilation"], 2)
    stride = sizes_of(node["stride"], 2) if node["stride"] else kernel
    margins = _pool_margins(context, node, kernel, stride, dilation)
    passed(context, node, op.MaxPool(node.name, source, kernel, stride, margins, dilation))


def _pool_margins(context: Context, node: Node, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Margins:
    """A pool's padding, with what ceil_mode's last windows reach beyond it added behind."""
    assert node.shape is not None, "a pool returns one tensor"
    sizes = context.shape(node["self"])[-2:]
    margins = []
    for axis, (before, after) in enumerate(margins_of(node["padding"], kernel, dilation)):
        size, windows = sizes[axis], node.shape[axis - 2]
        if size is None or windows is None:
            raise LoweringError(f"pool {node.name!r} works on an axis whose size is not known")
        reach = (windows - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        margins.append((before, max(after, reach - size - before)))
    return tuple(margins)


def mean(context: Context, node: Node) -> None:
    y = context.result(node)
    axes = mean_axes(node)
    keep = len(y.shape) == len(context.shape(node["self"]))
    context.names[node.name] = context.emit(
        op.Mean(y.name, context.read(node["self"]), axes, keep, y.low, y.high), y.shape, y.encoding)
