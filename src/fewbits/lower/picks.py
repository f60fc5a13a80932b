"""Rules of operators that repeat numbers, mix their order, or put zeros between them."""

import numpy as np
import torch
import torch.nn.functional as F

from fewbits.graph.graph import Node
from fewbits.lower.context import Context, Rules
from fewbits.lower.emit import moved, passed, picked
from fewbits.lower.sizes import minus_one
from fewbits.program import ops as op


def roll(context: Context, node: Node) -> None:
    shape = context.shape(node["self"])
    orders = {}
    for axis, shift in zip(node["dims"], node["shifts"], strict=True):
        before = orders.get(axis % len(shape), np.arange(shape[axis] or 0))
        orders[axis % len(shape)] = np.roll(before, shift)
    picked(context, node, context.read(node["self"]), orders)


def flip(context: Context, node: Node) -> None:
    shape = context.shape(node["self"])
    orders = {axis % len(shape): np.arange(shape[axis] or 0)[::-1] for axis in node["dims"]}
    picked(context, node, context.read(node["self"]), orders)


def channel_shuffle(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    channels = context.values[source].shape[1]
    assert channels is not None, "only the batch is unknown"
    order = np.arange(channels).reshape(node["groups"], -1).T.reshape(-1)
    passed(context, node, op.Gather(node.name, source, 1, tuple(int(i) for i in order)))


def pixel_shuffle(context: Context, node: Node) -> None:
    assert node.shape is not None, "a shuffle returns one tensor"
    source, factor = context.read(node["self"]), node["upscale_factor"]
    if node.free:
        context.names[node.name] = _free_pixel_shuffle(context, node.name, source, factor)
        return
    _, channels, height, width = context.values[source].shape
    assert channels is not None, "only the batch is unknown"
    split = (None, channels // factor**2, factor, factor, height, width)
    apart = moved(context, op.Reshape(f"{node.name}.apart", source, minus_one(split)), split)
    order = (0, 1, 4, 2, 5, 3)
    turned = moved(context, op.Transpose(f"{node.name}.turned", apart, order), tuple(split[axis] for axis in order))
    passed(context, node, op.Reshape(node.name, turned, minus_one(node.shape)))


def resize_nearest(context: Context, node: Node) -> None:
    """Along each axis the entries that torch picks: found by resizing the numbers 0, 1, 2, …"""
    mode = "nearest-exact" if "exact" in str(node.target) else "nearest"
    source = context.read(node["input"])
    shape = list(context.values[source].shape)
    assert node.shape is not None, "a resize returns one tensor"
    if node.free:
        for axis, factor in enumerate(map(int, node["scale_factors"]), 2):
            source = _widened(context, f"{node.name}.rows{axis}", source, axis, factor, zeros=False)
        context.names[node.name] = source
        return
    factors = node["scale_factors"] or [None] * (len(shape) - 2)
    for axis, factor in enumerate(factors, 2):
        size, goal = shape[axis], node.shape[axis]
        assert size is not None, "the operator table refuses unknown sizes"
        numbers = torch.arange(size, dtype=torch.float64).reshape(1, 1, -1)
        picked = F.interpolate(numbers, goal if factor is None else None, factor, mode=mode).long().flatten().tolist()
        shape[axis] = goal
        last = axis == len(shape) - 1
        pick = op.Gather(node.name if last else f"{node.name}.rows{axis}", source, axis, tuple(picked))
        source = moved(context, pick, tuple(shape))
    context.names[node.name] = source


def expand(context: Context, node: Node) -> None:
    assert node.shape is not None, "an expansion returns one tensor"
    source = context.read(node["self"])
    shape = [*[1] * (len(node.shape) - len(context.shape(node["self"]))), *context.shape(node["self"])]
    grown = [axis for axis, (old, new) in enumerate(zip(shape, node.shape, strict=True)) if old != new]
    if len(shape) != len(context.values[source].shape):
        name = f"{node.name}.ones" if grown else node.name
        source = moved(context, op.Reshape(name, source, minus_one(tuple(shape))), tuple(shape))
    for axis in grown:
        size = shape[axis] = node.shape[axis]
        assert size is not None, "the operator table refuses to repeat along the batch"
        name = node.name if axis == grown[-1] else f"{node.name}.axis{axis}"
        source = moved(context, op.Gather(name, source, axis, (0,) * size), tuple(shape))
    context.names[node.name] = source


def index_select(context: Context, node: Node) -> None:
    source = context.read(node["self"])
    shape = context.values[source].shape
    axis, numbers = node["dim"] % len(shape), context.array(node["index"].name)
    picked(context, node, source, {axis: numbers % (shape[axis] or 1)})


def insert_zeros(context: Context, node: Node) -> None:
    """[.., H, W] → [.., H, 1, W, 1] → padded to [.., H, f, W, f] → [.., H·f, W·f] → without the last f − 1."""
    assert node.shape is not None, "it returns one tensor"
    source, factors = context.read(node["x"]), node["factors"]
    if node.free:
        for axis, factor in enumerate(factors, 2):
            source = _widened(context, f"{node.name}.zeros{axis}", source, axis, factor, zeros=True)
        context.names[node.name] = source
        return
    shape = context.values[source].shape
    apart = (*shape[:2], *(part for size in shape[2:] for part in (size, 1)))
    name = moved(context, op.Reshape(f"{node.name}.apart", source, minus_one(apart)), apart)
    margins = ((0, 0), (0, 0), *(pair for factor in factors for pair in ((0, 0), (0, factor - 1))))
    filled = (*shape[:2], *(part for size, factor in zip(shape[2:], factors, strict=True) for part in (size, factor)))
    name = moved(context, op.Pad(f"{node.name}.filled", name, margins), filled)
    joined = [*shape[:2], *((size or 0) * factor for size, factor in zip(shape[2:], factors, strict=True))]
    name = moved(context, op.Reshape(f"{node.name}.joined", name, minus_one(tuple(joined))), tuple(joined))
    cuts = [axis for axis, factor in enumerate(factors, 2) if factor > 1]
    for axis in cuts:
        stop = node.shape[axis]
        assert stop is not None, "only the batch is unknown"
        joined[axis] = stop
        last = axis == cuts[-1]
        cut = op.Slice(node.name if last else f"{node.name}.cut{axis}", name, axis, 0, stop, 1)
        name = moved(context, cut, tuple(joined))
    context.names[node.name] = name


def _widened(context: Context, name: str, source: str, axis: int, factor: int, zeros: bool) -> str:
    """Every entry of an axis of any size `factor` times, or with zeros to its next: turned to the end, where it gets an
    axis beside it, of as many entries, and is joined with it."""
    if factor == 1:
        return source
    shape = context.values[source].shape
    rank, size = len(shape), shape[axis]
    order = (*(each for each in range(rank) if each != axis), axis)
    turned = tuple(shape[each] for each in order)
    made = moved(context, op.Transpose(f"{name}.turned", source, order), turned)
    made = moved(context, op.Reshape(f"{name}.apart", made, (*[0] * rank, 1)), (*turned, 1))
    wider = op.Pad(f"{name}.filled", made, (*[(0, 0)] * rank, (0, factor - 1))) if zeros else op.Gather(
        f"{name}.filled", made, rank, (0,) * factor)
    made = moved(context, wider, (*turned, factor))
    joined = (*turned[:-1], (size or 0) * factor)
    made = moved(context, op.Reshape(f"{name}.joined", made, (*[0] * (rank - 1), -1)), joined)
    if zeros:
        joined = (*joined[:-1], (size or 0) * factor - factor + 1)
        made = moved(context, op.Slice(f"{name}.cut", made, rank - 1, 0, 1 - factor, 1), joined)
    back = tuple(order.index(each) for each in range(rank))
    return moved(context, op.Transpose(f"{name}.back", made, back), tuple(joined[each] for each in back))


def _free_pixel_shuffle(context: Context, name: str, source: str, factor: int) -> str:
    """[N, H, W, C, r, r] to [N, C, H·r, W·r], one axis joined at a time."""
    batch, channels, height, width = context.values[source].shape
    assert channels is not None and height is not None and width is not None, "only the batch is unknown"
    few = channels // factor**2
    sizes = (batch, height, width, few, factor, factor)
    made = moved(context, op.Transpose(f"{name}.turned", source, (0, 2, 3, 1)), (*sizes[:3], channels))
    made = moved(context, op.Reshape(f"{name}.apart", made, (0, 0, 0, few, factor, factor)), sizes)
    made = moved(context, op.Transpose(f"{name}.rows", made, (0, 3, 1, 4, 2, 5)),
                 (batch, few, height, factor, width, factor))
    made = moved(context, op.Reshape(f"{name}.wide", made, (0, 0, 0, 0, -1)),
                 (batch, few, height, factor, width * factor))
    made = moved(context, op.Transpose(f"{name}.columns", made, (0, 1, 4, 2, 3)),
                 (batch, few, width * factor, height, factor))
    made = moved(context, op.Reshape(f"{name}.high", made, (0, 0, 0, -1)),
                 (batch, few, width * factor, height * factor))
    return moved(context, op.Transpose(name, made, (0, 1, 3, 2)), (batch, few, height * factor, width * factor))


RULES: Rules = {
    "expand": expand, "roll": roll, "flip": flip, "channel_shuffle": channel_shuffle, "pixel_shuffle": pixel_shuffle,
    "resize_nearest": resize_nearest, "insert_zeros": insert_zeros, "index_select": index_select,
}
