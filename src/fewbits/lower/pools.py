"""Rules of pools, means and maxima."""

import math

import numpy as np

from fewbits.graph.graph import Node, Shape
from fewbits.graph.operators import reduced_axes
from fewbits.lower.context import Context, Rules
from fewbits.lower.emit import moved, unchanged
from fewbits.lower.sizes import minus_one
from fewbits.program import ops as op
from fewbits.program.ops import Margins, Sizes
from fewbits.program.windows import margins_of, outer, positions, same_for_all, sizes_of


def average_pool(context: Context, node: Node) -> None:
    sizes = _image(context.shape(node["self"]))
    kernel, stride, margins = _windows(node, sizes, (1,) * len(sizes))
    if node["divisor_override"]:
        counts = np.full((1,) * len(sizes), node["divisor_override"])
    else:  # what ceil_mode's last windows reach beyond the padding never counts
        counted = margins_of(node["padding"], kernel, (1,) * len(sizes)) if node["count_include_pad"] else ()
        counts = positions(sizes, kernel, stride, margins, counted)
    _average(context, node, context.read(node["self"]), kernel, stride, margins, counts)


def _average(context: Context, node: Node, source: str, kernel: Sizes, stride: Sizes, margins: Margins,
             counts: np.ndarray) -> None:
    y = context.result(node)
    context.names[node.name] = context.emit(
        op.AveragePool(y.name, source, kernel, stride, margins, same_for_all(counts), y.low, y.high), y.shape,
        y.encoding)


def adaptive_average_pool(context: Context, node: Node) -> None:
    """A mean of the whole image, or windows that are laid out one behind the other where they are not equal: the
    shorter ones are filled up with the number 0, which does not count."""
    assert node.shape is not None, "a pool returns one tensor"
    if set(node.shape[2:]) == {1}:
        return mean(context, node)
    source, kernel, counts = context.read(node["self"]), [], []
    for axis, goal in enumerate(_image(node.shape), 2):
        first, end = _adaptive(context.values[source].shape[axis], goal)
        widest = int((end - first).max())
        kernel.append(widest)
        counts.append(end - first)
        if len(first) * widest != end[-1]:
            size = int(end[-1])
            entries = [start + i if start + i < stop else size
                       for start, stop in zip(first.tolist(), end.tolist(), strict=True) for i in range(widest)]
            if size in entries:
                source = _one_zero_behind(context, f"{node.name}.zero{axis}", source, axis)
            source = _picked(context, f"{node.name}.windows{axis}", source, axis, entries)
    _average(context, node, source, tuple(kernel), tuple(kernel), ((0, 0),) * len(kernel), outer(counts))


def adaptive_max_pool(context: Context, node: Node) -> None:
    """Windows laid out one behind the other where they are not equal, the shorter ones repeating their last number."""
    assert node.shape is not None, "a pool returns one tensor"
    source, kernel = context.read(node["x"]), []
    for axis, goal in enumerate(_image(node.shape), 2):
        first, end = _adaptive(context.values[source].shape[axis], goal)
        widest = int((end - first).max())
        kernel.append(widest)
        if len(first) * widest != end[-1]:
            entries = [min(start + i, stop - 1)
                       for start, stop in zip(first.tolist(), end.tolist(), strict=True) for i in range(widest)]
            source = _picked(context, f"{node.name}.windows{axis}", source, axis, entries)
    context.names[node.name] = moved(context, op.MaxPool(
        node.name, source, tuple(kernel), tuple(kernel), ((0, 0),) * len(kernel), (1,) * len(kernel)), node.shape)


def _adaptive(size: int | None, goal: int) -> tuple[np.ndarray, np.ndarray]:
    """First position of each window and the one behind its last, as torch lays them out: int64 [goal]."""
    assert size is not None, "only the batch is unknown"
    windows = np.arange(goal)
    return windows * size // goal, -(-(windows + 1) * size // goal)


def _one_zero_behind(context: Context, name: str, source: str, axis: int) -> str:
    shape = list(context.values[source].shape)
    margins = tuple((0, int(axis == other)) for other in range(len(shape)))
    shape[axis] = (shape[axis] or 0) + 1
    return moved(context, op.Pad(name, source, margins), tuple(shape))


def _picked(context: Context, name: str, source: str, axis: int, entries: list[int]) -> str:
    shape = list(context.values[source].shape)
    shape[axis] = len(entries)
    return moved(context, op.Gather(name, source, axis, tuple(entries)), tuple(shape))


def max_pool(context: Context, node: Node) -> None:
    assert node.shape is not None, "a pool returns one tensor"
    sizes = _image(context.shape(node["self"]))
    dilation = sizes_of(node["dilation"], len(sizes))
    kernel, stride, margins = _windows(node, sizes, dilation)
    context.names[node.name] = moved(
        context, op.MaxPool(node.name, context.read(node["self"]), kernel, stride, margins, dilation), node.shape)


def _image(shape: Shape) -> Sizes:
    """Sizes behind the channels."""
    sizes = tuple(size for size in shape[2:] if size is not None)
    assert len(sizes) == len(shape) - 2, "the operator table refuses images of unknown size"
    return sizes


def _windows(node: Node, sizes: Sizes, dilation: Sizes) -> tuple[Sizes, Sizes, Margins]:
    """Kernel, stride and padding of a pool, what ceil_mode's last windows reach beyond it added behind."""
    assert node.shape is not None, "a pool returns one tensor"
    kernel = sizes_of(node["kernel_size"], len(sizes))
    stride = sizes_of(node["stride"], len(sizes)) if node["stride"] else kernel
    margins = []
    for axis, (before, after) in enumerate(margins_of(node["padding"], kernel, dilation)):
        windows = node.shape[axis + 2] or 0
        reach = (windows - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        margins.append((before, max(after, reach - sizes[axis] - before)))
    return kernel, stride, tuple(margins)


def mean(context: Context, node: Node) -> None:
    y = context.result(node)
    keep = len(y.shape) == len(context.shape(node["self"]))
    context.names[node.name] = context.emit(
        op.Mean(y.name, context.read(node["self"]), reduced_axes(node), keep, y.low, y.high), y.shape, y.encoding)


def largest(context: Context, node: Node) -> None:
    """The largest along axes: turned to the end, made one, and pooled."""
    assert node.shape is not None, "a maximum returns one tensor"
    source, axes = context.read(node["self"]), reduced_axes(node)
    shape = context.values[source].shape
    if not axes:
        return unchanged(context, node)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    order = (*kept, *axes)
    if order != tuple(range(len(shape))):
        turned = tuple(shape[axis] for axis in order)
        source = moved(context, op.Transpose(f"{node.name}.turned", source, order), turned)
    length = math.prod(shape[axis] or 0 for axis in axes)
    first, *others = [shape[axis] for axis in kept]
    batch: Shape = (None, 1) if None in others else (first, math.prod(size or 0 for size in others))
    flat = (*batch, length, 1)
    source = moved(context, op.Reshape(f"{node.name}.flat", source, minus_one(flat)), flat)
    pool = op.MaxPool(f"{node.name}.largest", source, (length, 1), (length, 1), ((0, 0), (0, 0)), (1, 1))
    source = moved(context, pool, (*batch, 1, 1))
    context.names[node.name] = moved(context, op.Reshape(node.name, source, minus_one(node.shape)), node.shape)


RULES: Rules = {
    "average_pool": average_pool, "adaptive_average_pool": adaptive_average_pool, "mean": mean, "max_pool": max_pool,
    "adaptive_max_pool": adaptive_max_pool, "largest": largest,
}
