"""Whether the sizes that a program states go together: what an operator reads, what it carries, what it writes.

Sizes are those of the network's example; one that moves with the batch, None, goes with any other. What is left here is
found out when the program runs (engines/misfit.py).
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from fewbits.errors import ProgramError
from fewbits.program.node import Margins, Sizes
from fewbits.program.value import Scope, Shape

_LARGEST = 2**31  # of a kernel's stride, dilation and margins


def conv(program: Scope, node: Any) -> None:
    """Of Conv and DynamicConv."""
    shape, weight = program.values[node.input].shape, _weight(program, node)
    if not (3 <= len(weight) <= 5 and min(weight) > 0 and len(shape) == len(weight) and node.groups > 0
            and weight[0] % node.groups == 0 and _goes(shape[1], weight[1] * node.groups)):
        _refuse(node, f"weights of shape {list(weight)} in {node.groups} groups do not go with {_told(shape)}")
    _bias(program, node, weight[0])
    spatial = windowed(node, shape[2:], weight[2:], node.stride, node.padding, node.dilation)
    written(program, node, (shape[0], weight[0], *spatial))


def linear(program: Scope, node: Any) -> None:
    """Of Linear and DynamicLinear."""
    shape, weight = program.values[node.input].shape, _weight(program, node)
    if len(weight) != 2 or 0 in weight or not shape or not _goes(shape[-1], weight[1]):
        _refuse(node, f"weights of shape {list(weight)} do not go with {_told(shape)}")
    _bias(program, node, weight[0])
    written(program, node, (*shape[:-1], weight[0]))


def matmul(program: Scope, node: Any) -> None:
    """Of MatMul."""
    first, second = program.values[node.first].shape, program.values[node.second].shape
    if min(len(first), len(second)) < 2 or not _goes(first[-1], second[-2]):
        _refuse(node, f"{_told(first)} and {_told(second)} have no matrix product")
    written(program, node, (*_broadcast(node, (first[:-2], second[:-2])), first[-2], second[-1]))


def reshape(program: Scope, node: Any) -> None:
    """Of Reshape. NumPy takes any negative size for one that follows from the others; the program has one word."""
    read = program.values[node.input].shape
    follows, kept = node.shape.count(-1), [axis for axis, size in enumerate(node.shape) if size == 0]
    if min(node.shape, default=0) < -1 or follows > 1 or any(axis >= len(read) for axis in kept):
        _refuse(node, f"{_told(read)} has no shape {list(node.shape)}")


def pool(program: Scope, node: Any) -> None:
    """Of MaxPool, and of AveragePool, whose windows have no dilation."""
    shape = program.values[node.input].shape
    if len(node.kernel) not in (1, 2, 3) or len(shape) != len(node.kernel) + 2:
        _refuse(node, f"windows of {len(node.kernel)} axes do not go with {_told(shape)}")
    dilation = getattr(node, "dilation", (1,) * len(node.kernel))
    spatial = windowed(node, shape[2:], node.kernel, node.stride, node.padding, dilation)
    written(program, node, (*shape[:2], *spatial))
    counts = getattr(node, "counts", None)
    if counts is not None and not (counts.dtype == np.int32 and (counts > 0).all() and counts.ndim == len(spatial)
                                   and all(has in (1, size) or size is None
                                           for has, size in zip(counts.shape, spatial, strict=True))):
        _refuse(node, f"divisors of shape {list(counts.shape)} do not go with {_told(tuple(spatial))}")


def transpose(program: Scope, node: Any) -> None:
    """Of Transpose."""
    shape = program.values[node.input].shape
    if sorted(node.permutation) != list(range(len(shape))):
        _refuse(node, f"axes {list(node.permutation)} are no order of those of {_told(shape)}")
    written(program, node, [shape[axis] for axis in node.permutation])


def pad(program: Scope, node: Any) -> None:
    """Of Pad."""
    shape = program.values[node.input].shape
    if len(node.margins) != len(shape) or min((m for pair in node.margins for m in pair), default=0) < 0:
        _refuse(node, f"margins {list(node.margins)} do not go with {_told(shape)}")
    written(program, node, [None if size is None else size + sum(pair)
                            for size, pair in zip(shape, node.margins, strict=True)])


def gather(program: Scope, node: Any) -> None:
    """Of Gather."""
    shape = program.values[node.input].shape
    _axis(node, node.axis, shape)
    size = shape[node.axis]
    if (node.indices and not 0 <= min(node.indices) <= max(node.indices)) or (
            size is not None and max(node.indices, default=0) >= size > 0):
        _refuse(node, f"it picks what an axis of {size} does not have")
    written(program, node, (*shape[:node.axis], len(node.indices), *shape[node.axis + 1:]))


def cut(program: Scope, node: Any) -> None:
    """Of Slice."""
    shape = program.values[node.input].shape
    _axis(node, node.axis, shape)
    if node.step < 1:
        _refuse(node, f"a step of {node.step} takes nothing")
    size = shape[node.axis]
    left = None if size is None else len(range(*slice(node.start, node.stop, node.step).indices(size)))
    written(program, node, (*shape[:node.axis], left, *shape[node.axis + 1:]))


def mean(program: Scope, node: Any) -> None:
    """Of Mean."""
    shape = program.values[node.input].shape
    if not (node.axes and sorted(set(node.axes)) == list(node.axes) and node.axes[0] >= 0 and node.axes[-1] < len(shape)
            and all(shape[axis] != 0 for axis in node.axes)):
        _refuse(node, f"there is no mean over axes {list(node.axes)} of {_told(shape)}")
    kept = [1 if axis in node.axes else size for axis, size in enumerate(shape) if node.keep or axis not in node.axes]
    written(program, node, kept)


def concat(program: Scope, node: Any) -> None:
    """Of Concat."""
    shapes = [program.values[name].shape for name in node.inputs]
    if not shapes or len({len(shape) for shape in shapes}) > 1:
        _refuse(node, f"{' and '.join(map(_told, shapes)) or 'nothing'} cannot stand one behind the other")
    _axis(node, node.axis, shapes[0])
    along = [shape[node.axis] for shape in shapes]
    beside = _broadcast(node, [shape[:node.axis] + shape[node.axis + 1:] for shape in shapes])
    total = None if None in along else sum(size for size in along if size is not None)
    written(program, node, (*beside[:node.axis], total, *beside[node.axis:]))


def constant(program: Scope, node: Any) -> None:
    """Of Constant."""
    written(program, node, node.data.codes.shape)


def rows(program: Scope, node: Any) -> None:
    """Of Embedding."""
    if node.table.codes.ndim != 2:
        _refuse(node, f"its table has shape {list(node.table.codes.shape)}")
    written(program, node, (*program.values[node.input].shape, node.table.codes.shape[1]))


def table(program: Scope, node: Any) -> None:
    """Of Table."""
    shape, format = program.values[node.input].shape, program.encoding(node.input).format
    channels = shape[1] if len(shape) > 1 else 1
    if not (node.table.ndim == 2 and node.table.shape[1] == format.high - format.low + 1
            and (len(node.table) == 1 or _goes(len(node.table), channels))):
        _refuse(node, f"a table of shape {list(node.table.shape)} does not go with codes of {format}, {_told(shape)}")
    same(program, node)


def same(program: Scope, node: Any) -> None:
    """Of what goes number by number over one value."""
    written(program, node, program.values[node.input].shape)


def pair(program: Scope, node: Any) -> None:
    """Of what joins two values number by number, broadcast."""
    written(program, node, _broadcast(node, (program.values[node.first].shape, program.values[node.second].shape)))


def choose(program: Scope, node: Any) -> None:
    """Of Choose."""
    written(program, node, _broadcast(node, [program.values[name].shape
                                             for name in (node.condition, node.first, node.second)]))


def _broadcast(node: Any, shapes: Sequence[Shape]) -> list[int | None]:
    """The shape that shapes have together. Raises ProgramError for those that have none."""
    rank = max(map(len, shapes))
    found: list[int | None] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in shapes), strict=True):
        known = {size for size in sizes if size not in (1, None)}
        if len(known) > 1:
            _refuse(node, f"{' and '.join(map(_told, shapes))} do not go together")
        found.append(None if None in sizes else known.pop() if known else 1)
    return found


def bounds(program: Scope, node: Any) -> None:
    """Raises ProgramError for bounds of codes that are none of the format of what is written."""
    if program.kind(node.name) != "codes":
        return
    format = program.encoding(node.name).format
    if not format.low <= node.low <= node.high <= format.high:
        _refuse(node, f"codes from {node.low} to {node.high} are none of {format}")


def windowed(node: Any, sizes: Sequence[int | None], kernel: Sizes, stride: Sizes, padding: Margins,
             dilation: Sizes) -> list[int | None]:
    """How many windows there are along each axis. Raises ProgramError where there can be none."""
    rank = len(kernel)
    whole = (len(sizes) == len(stride) == len(padding) == len(dilation) == rank
             and all(0 < each < _LARGEST for each in (*kernel, *stride, *dilation))
             and all(0 <= margin < _LARGEST for pair in padding for margin in pair))
    if not whole:
        _refuse(node, f"windows {list(kernel)} with stride {list(stride)}, padding {list(padding)} and dilation "
                      f"{list(dilation)} are none")
    found: list[int | None] = []
    for size, k, s, margins, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        count = None if size is None else (size + sum(margins) - d * (k - 1) - 1) // s + 1
        if count is not None and count < 1:
            _refuse(node, f"a window of {k} does not fit into {size}")
        found.append(count)
    return found


def written(program: Scope, node: Any, sizes: Sequence[int | None]) -> None:
    """Raises ProgramError unless the value that a node writes has these sizes."""
    shape = program.values[node.name].shape
    if len(shape) != len(sizes) or not all(map(_goes, shape, sizes)):
        _refuse(node, f"it writes {_told(sizes)}, and its value says {_told(shape)}")


def _weight(program: Scope, node: Any) -> tuple[int, ...]:
    return program.constant(node.weight).codes.shape if isinstance(node.weight, str) else node.weight.codes.shape


def _bias(program: Scope, node: Any, channels: int) -> None:
    if node.bias is not None:
        shape = program.values[node.bias].shape if isinstance(node.bias, str) else node.bias.shape
        if shape != (channels,):
            _refuse(node, f"a bias of shape {list(shape)} does not go with {channels} channels")


def _axis(node: Any, axis: int, shape: Shape) -> None:
    if not 0 <= axis < len(shape):
        _refuse(node, f"{_told(shape)} has no axis {axis}")


def _goes(one: int | None, other: int | None) -> bool:
    return one is None or other is None or one == other


def _told(shape: Sequence[int | None]) -> str:
    return "×".join("N" if size is None else str(size) for size in shape) or "one number"


def _refuse(node: Any, told: str) -> NoReturn:
    raise ProgramError(f"{type(node).__name__} {node.name!r} cannot be computed: {told}")
