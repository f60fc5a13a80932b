"""Calls that give numbers another place, as the reshapes, selections, pads and concatenations that they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fewbits.fold.draft import Draft
from fewbits.graph.functions import join, lookup
from fewbits.graph.graph import Node, Param, Ref, Shape

aten = torch.ops.aten


def scattered(draft: Draft, node: Node) -> bool:
    """A tensor with a part of it replaced: what is in front of the part, the part, and what is behind."""
    whole, part = node["self"], node["src"]
    shape = node.shape
    assert shape is not None, "a scatter returns one tensor"
    axis = node["dim"] % len(shape)
    size = shape[axis]
    if size is None:
        return False
    if node.target is aten.select_scatter.default:
        start, stop = node["index"] % size, node["index"] % size + 1
        part = _unsqueezed(draft, node, part, axis)
    else:
        start, stop, step = slice(node["start"], node["end"], node["step"]).indices(size)
        if step != 1:
            return False
    front, behind = _cut(draft, node, whole, axis, 0, start), _cut(draft, node, whole, axis, stop, size)
    pieces = [piece for piece in (front, part, behind) if piece is not None]
    alone = any(isinstance(piece, Param) and draft.shape(piece)[:1] == (1,) for piece in pieces)
    target = join if alone and shape[0] is None else aten.cat.default
    if len(pieces) == 1 and isinstance(part, Ref):
        draft.renamed[node.name] = part.name
        return True
    draft.emit(node, node.name, target, {"tensors": pieces, "dim": axis}, shape, node.dtype)
    return True


def _unsqueezed(draft: Draft, node: Node, part: Any, axis: int) -> Any:
    shape = draft.shape(part)
    if isinstance(part, Param):
        return draft.parameter(f"{node.name}.part", draft.model.tensor(part.name).unsqueeze(axis))
    return draft.emit(node, draft.fresh(f"{node.name}.part"), aten.unsqueeze.default, {"self": part, "dim": axis},
                      (*shape[:axis], 1, *shape[axis:]), node.dtype)


def _cut(draft: Draft, node: Node, whole: Any, axis: int, start: int, stop: int) -> Any:
    """Some entries along an axis; None for none of them."""
    if start >= stop:
        return None
    if isinstance(whole, Param):
        kept = draft.model.tensor(whole.name).narrow(axis, start, stop - start).contiguous()
        return draft.parameter(f"{node.name}.kept", kept)
    shape = draft.shape(whole)
    return draft.emit(node, draft.fresh(f"{node.name}.kept"), aten.slice.Tensor,
                      {"self": whole, "dim": axis, "start": start, "end": stop, "step": 1},
                      (*shape[:axis], stop - start, *shape[axis + 1:]), node.dtype)


def pixel_unshuffled(draft: Draft, node: Node) -> bool:
    """[.., C, H·f, W·f] → [.., C, H, f, W, f] → [.., C, f, f, H, W] → [.., C·f², H, W]."""
    shape, factor = draft.shape(node["self"]), node["downscale_factor"]
    if len(shape) != 4 or None in shape[1:]:
        return False
    batch, channels, height, width = shape
    assert height is not None and width is not None, "checked above"
    apart = (batch, channels, height // factor, factor, width // factor, factor)
    split = _reshaped(draft, node, f"{node.name}.apart", node["self"], apart)
    order = (0, 1, 3, 5, 2, 4)
    turned = draft.emit(node, f"{node.name}.turned", aten.permute.default, {"self": split, "dims": list(order)},
                        tuple(apart[axis] for axis in order), node.dtype)
    _reshaped(draft, node, node.name, turned, node.shape or ())
    return True


def _reshaped(draft: Draft, node: Node, name: str, value: Any, shape: Shape) -> Ref:
    sizes = [-1 if size is None else size for size in shape]
    return draft.emit(node, name, aten.reshape.default, {"self": value, "shape": sizes}, shape, node.dtype)


def repeated(draft: Draft, node: Node) -> bool:
    """Along each axis the entries once more; along the batch it cannot."""
    shape, times = draft.shape(node["self"]), list(node["repeats"])
    value: Any = node["self"]
    if not all(isinstance(count, int) for count in times) or not isinstance(value, Ref):
        return False
    new = len(times) - len(shape)
    if any(count != 1 for count in times[:new]) and None in shape:
        return False  # another axis in front of the batch
    if new:
        shape = (*[1] * new, *shape)
        value = _reshaped(draft, node, draft.fresh(f"{node.name}.axes"), value, shape)
    orders = {}
    for axis, count in enumerate(times):
        size = shape[axis]
        if count == 1:
            continue
        if size is None:
            return False
        orders[axis] = torch.arange(size).repeat(count)
    return _selected(draft, node, value, orders)


def _selected(draft: Draft, node: Node, value: Any, orders: dict[int, torch.Tensor]) -> bool:
    """Along some axes the entries of the given numbers, under the node's own name."""
    if not orders:
        draft.renamed[node.name] = value.name
        return True
    shape = list(draft.shape(value))
    for place, (axis, order) in enumerate(orders.items()):
        shape[axis] = len(order)
        name = node.name if place == len(orders) - 1 else draft.fresh(f"{node.name}.axis{axis}")
        value = select(draft, node, name, value, axis, order, tuple(shape))
    return True


def select(draft: Draft, node: Node, name: str, value: Any, axis: int, order: torch.Tensor, shape: Shape) -> Ref:
    """The entries of the given numbers along an axis."""
    numbers = draft.parameter(f"{name}.numbers", order.clone())
    return draft.emit(node, name, aten.index_select.default, {"self": value, "dim": axis, "index": numbers}, shape,
                      node.dtype)


def indexed(draft: Draft, node: Node) -> bool:
    """x[:, [3, 1, 0]]: constant numbers along neighbouring axes; and tables looked up by numbers of the model."""
    value, indices = node["self"], list(node["indices"])
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    if isinstance(value, Param):
        return _looked_up(draft, node, value, indices)
    numbers = [_numbers(draft, indices[axis]) for axis in axes]
    shape, target = draft.shape(value), node.shape or ()
    if any(each is None for each in numbers) or axes != list(range(axes[0], axes[-1] + 1)):
        return False
    chosen = torch.broadcast_tensors(*[each for each in numbers if each is not None])
    sizes = [shape[axis] for axis in axes]
    if None in sizes:
        return False
    entry = torch.zeros_like(chosen[0])
    for each, size in zip(chosen, sizes, strict=True):
        assert size is not None, "checked above"
        entry = entry * size + each % size
    first, after = axes[0], shape[axes[-1] + 1:]
    if len(axes) > 1:
        flat = (*shape[:first], int(torch.tensor(sizes).prod()), *after)
        value = _reshaped(draft, node, draft.fresh(f"{node.name}.flat"), value, flat)
    picked = (*shape[:first], entry.numel(), *after)
    name = node.name if entry.ndim == 1 else draft.fresh(f"{node.name}.picked")
    value = select(draft, node, name, value, first, entry.flatten(), picked)
    if entry.ndim != 1:
        _reshaped(draft, node, node.name, value, target)
    return True


def _numbers(draft: Draft, index: Any) -> torch.Tensor | None:
    """Constant row numbers; those that are True of a constant mask of one axis."""
    if not isinstance(index, Param):
        return None
    tensor = draft.model.tensor(index.name)
    if tensor.dtype == torch.bool:
        return tensor.nonzero().flatten() if tensor.ndim == 1 else None
    return tensor.long()


def _looked_up(draft: Draft, node: Node, table: Param, indices: list[Any]) -> bool:
    """A constant row of numbers, each place of the result being one of them."""
    tensor = draft.model.tensor(table.name)
    if tensor.ndim != 1 or len(indices) != 1 or tensor.is_floating_point() or not isinstance(indices[0], Ref):
        return False
    draft.emit(node, node.name, lookup, {"table": table, "numbers": indices[0]}, node.shape, node.dtype)
    return True


def gathered(draft: Draft, node: Node) -> bool:
    """From a constant row that is the same for every image, the entries of the given numbers."""
    if not isinstance(node["self"], Param) or not isinstance(node["index"], Ref):
        return False
    tensor = draft.model.tensor(node["self"].name)
    axis = node["dim"] % tensor.ndim
    if tensor.is_floating_point() or tensor.numel() != tensor.shape[axis]:
        return False
    table = draft.parameter(f"{node.name}.table", tensor.flatten())
    draft.emit(node, node.name, lookup, {"table": table, "numbers": node["index"]}, node.shape, node.dtype)
    return True


def padded(draft: Draft, node: Node) -> bool:
    """A pad that crops as the slices it is; one with another number than 0 around the distance from that number; one
    with -inf in front of a max pool as the edges repeated, of which none is larger than what they stand beside."""
    if node.arguments.get("mode", "constant") != "constant" or not isinstance(node["self"], Ref):
        return False
    margins, value, shape = list(node["pad"]), node["value"] or 0.0, draft.shape(node["self"])
    if not isinstance(value, int | float) or not all(isinstance(size, int) for size in margins):
        return False
    if min(margins) < 0:
        return _cropped(draft, node, margins, value)
    if value == 0:
        return False
    if value <= -1e30 and _only_before_pools(draft, node, margins):
        draft.emit(node, node.name, aten.pad.default, dict(node.arguments) | {"mode": "replicate", "value": None},
                   node.shape)
        return True
    if value in (float("inf"), float("-inf")):
        return False
    low = draft.emit(node, draft.fresh(f"{node.name}.less"), aten.sub.Tensor,
                     {"self": node["self"], "other": float(value), "alpha": 1}, shape)
    around = draft.emit(node, draft.fresh(f"{node.name}.around"), aten.pad.default,
                        {"self": low, "pad": margins, "mode": "constant", "value": None}, node.shape)
    constant = draft.parameter(f"{node.name}.number", torch.tensor(float(value)))
    draft.emit(node, node.name, aten.add.Tensor, {"self": around, "other": constant, "alpha": 1}, node.shape)
    return True


def cropped(draft: Draft, node: Node, value: Any, margins: Sequence[int]) -> Ref:
    """Without what negative margins, last axis first, take away."""
    shape = list(draft.shape(value))
    for place in range(len(margins) // 2):
        axis, before, after = len(shape) - 1 - place, min(margins[2 * place], 0), min(margins[2 * place + 1], 0)
        size = shape[axis]
        if (before or after) and size is not None:
            shape[axis] = size + before + after
            value = draft.emit(node, draft.fresh(f"{node.name}.cropped"), aten.slice.Tensor,
                               {"self": value, "dim": axis, "start": -before, "end": size + after, "step": 1},
                               tuple(shape), node.dtype)
    return value


def _cropped(draft: Draft, node: Node, margins: list[int], value: float) -> bool:
    shape, rank = draft.shape(node["self"]), len(draft.shape(node["self"]))
    if any(shape[rank - 1 - i // 2] is None for i, size in enumerate(margins) if size < 0):
        return False
    kept = cropped(draft, node, node["self"], margins)
    grown = [max(size, 0) for size in margins]
    if not any(grown):
        draft.renamed[node.name] = kept.name
        return True
    inner = replace(node, arguments=dict(node.arguments) | {"self": kept, "pad": grown})
    if not padded(draft, inner):
        draft.keep(inner)
    return True


def _only_before_pools(draft: Draft, node: Node, margins: list[int]) -> bool:
    """Whether all that reads a pad are max pools whose windows reach further than it."""
    readers = draft.readers[node.name]
    pools = (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
    for reader in readers:
        if reader.target not in pools:
            return False
        sizes, steps = ([reader[name]] if isinstance(reader[name], int) else list(reader[name])
                        for name in ("kernel_size", "dilation"))
        if any(step != 1 for step in steps) or len(margins) > 2 * (len(node.shape or ()) - 2):
            return False
        if max(margins) + max([reader["padding"]] if isinstance(reader["padding"], int) else reader["padding"]) >= min(
                sizes):
            return False
    return bool(readers) and node.name not in draft.outputs
