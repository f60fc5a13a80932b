"""Which sizes of a network's inputs, beside the batch, are its example's alone, and which may be any: the height and
width of images that a fully convolutional network takes, the length of a sequence.

Two questions, both asked of what was captured. When it is captured: does the graph do what the network does at other
sizes too? It is run at some, for a size may be baked in (`x.view(-1, 1024)`, a branch). When it is folded: has every
operator that such a size reaches a form that does not depend on it? `_RULES` lists those that have.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from fewbits.capture.batch_sizes import differ
from fewbits.capture.traced import plain
from fewbits.graph.graph import Graph, Node, Param, Ref, Shape
from fewbits.graph.model import Model
from fewbits.graph.operators import padding_mode, reduced_axes

Axes = tuple[int, ...]
Free = Mapping[str, Axes]
"""Axes by the name of a value, none of values that have none."""


# ------------------------------------------------------------------------------- does it follow the network?


def following(net: nn.Module, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Free:
    """By input, the axes whose sizes the graph of a network follows as the network does: tried at two other sizes, on
    one input of the batch."""
    inputs, shapes, call = model.graph.inputs, model.shapes(), (args, dict(kwargs))
    sizes = [[size or 0 for size in item.shape] for item in inputs]  # 0: the batch
    for candidate in _candidates(model.graph):
        free = {inputs[number].name: axes for number, axes in candidate.items()}
        if _spread(model.graph, shapes, free, early=True) is None:
            continue
        doubled, longer = (_grown(sizes, candidate, change) for change in (lambda size: 2 * size,
                                                                           lambda size: size + 1))
        if _agree(net, model, call, doubled, must=True) and _agree(net, model, call, longer, must=False):
            return free
    return {}


def _candidates(graph: Graph) -> Iterator[dict[int, Axes]]:
    """By the number of an input, axes that may be free together: those of its image, or its steps; of the other inputs
    those of the same place and size."""
    first = next((number for number, item in enumerate(graph.inputs)
                  if item.dtype == "float32" and len(item.shape) > 2 and item.shape[0] is None), None)
    if first is None:
        return
    shape = graph.inputs[first].shape
    image = tuple(range(2, len(shape)))
    for axes in (image, *((axis,) for axis in (*image[::-1], 1) if (axis,) != image)):
        if any((shape[axis] or 0) < 2 for axis in axes):
            continue
        same = {number: tuple(axis for axis in axes if axis < len(item.shape) and item.shape[axis] == shape[axis])
                for number, item in enumerate(graph.inputs)}
        yield {number: found for number, found in same.items() if found}
        if sum(map(bool, same.values())) > 1:
            yield {first: axes}


def _grown(sizes: list[list[int]], candidate: Mapping[int, Axes], change: Callable[[int], int]) -> list[list[int]]:
    return [[change(size) if axis in candidate.get(number, ()) else size for axis, size in enumerate(shape)]
            for number, shape in enumerate(sizes)]


def _agree(net: nn.Module, model: Model, call: tuple[Any, Any], sizes: list[list[int]], must: bool) -> bool:
    """Whether network and graph give the same for tensors of these sizes, the batch as it is where they say 0, one
    input of it. must: whether both must run; else a graph that says no is as good."""
    counter = iter(sizes)

    def resized(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        for axis, size in enumerate(next(counter)):
            wanted = 1 if size == 0 else size
            leaf = leaf.index_select(axis, torch.arange(wanted) % leaf.shape[axis])
        return leaf.clone()

    given, named = pytree.tree_map(resized, call)
    try:
        with torch.no_grad():
            wanted = pytree.tree_leaves(plain(net(*pytree.tree_map_only(torch.Tensor, torch.clone, given),
                                                  **pytree.tree_map_only(torch.Tensor, torch.clone, dict(named)))))
    except Exception:  # the network itself does not take that size
        return not must
    try:
        with torch.no_grad():
            inputs = [leaf for leaf in pytree.tree_leaves((given, named)) if isinstance(leaf, torch.Tensor)]
            got = pytree.tree_leaves(model(*inputs))
    except Exception:  # an operator that holds the example's size
        return not must
    return len(wanted) == len(got) and all(
        isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and not differ(a, b)
        for a, b in zip(wanted, got, strict=True))


# ------------------------------------------------------------------------------- has every operator a form for it?


def marked(model: Model) -> Graph:
    """The graph with the free axes of its inputs and values marked: all that it was found to follow and its operators
    have forms for, or as many of them alone."""
    graph, shapes = model.graph, model.shapes()
    if not graph.follows:
        return graph
    for wanted in _parts(graph.follows):
        found = _spread(graph, shapes, wanted)
        if found is not None:
            inputs = tuple(replace(item, free=found.get(item.name, ())) for item in graph.inputs)
            nodes = tuple(replace(node, free=found[node.name]) if found.get(node.name) else node
                          for node in graph.nodes)
            return replace(graph, inputs=inputs, nodes=nodes)
    return graph


def _parts(follows: Free) -> Iterator[Free]:
    """All of them, then axis by axis."""
    yield follows
    axes = sorted({axis for each in follows.values() for axis in each})
    for axis in axes[::-1] if len(axes) > 1 else ():
        yield {name: (axis,) for name, each in follows.items() if axis in each}


def _spread(graph: Graph, shapes: Mapping[str, Shape | None], free: Free, early: bool = False) -> Free | None:
    """The free axes of every value, where those of the inputs are given; None where an operator holds a size. early:
    before folding, which takes some operators apart."""
    found, unknown = dict(free), set()
    for node in graph.nodes:
        if early and node.role != "size" and (not unknown.isdisjoint(node.refs) or (
                not node.op and any(found.get(name) for name in node.refs))):
            unknown.add(node.name)  # what folding makes of it will be seen then
            continue
        if node.role == "size" or not any(found.get(name) for name in node.refs):
            continue
        rule = _RULES.get(node.op)
        axes = None if rule is None else rule(node, found, shapes)
        if axes is None:
            return None
        last = node.op == "item" and graph.by_name[node.refs[0]].body is not None and node["argument1"] > 0
        found[node.name] = () if last else axes
    return found


def _of(item: Any, free: Free) -> Axes:
    return free.get(item.name, ()) if isinstance(item, Ref) else ()


def _shape(item: Any, shapes: Mapping[str, Shape | None]) -> Shape:
    return (shapes.get(item.name) or ()) if isinstance(item, Ref | Param) else ()


Rule = Callable[[Node, Free, Mapping[str, Shape | None]], Axes | None]
"""From a node, what is free of the values before it, and all shapes, the free axes of its result; None where it has no
form for them."""


def _same(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    return free[node.refs[0]] if len(node.refs) == 1 else None


def _broadcast(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    """Operands meet from their last axes on: a free axis meets one that is free too, or of size 1, or none."""
    operands = [value for name, value in node.arguments.items() if isinstance(value, Ref | Param)]
    rank, found = len(node.shape or ()), set()
    placed = [(rank - len(_shape(each, shapes)), each) for each in operands]
    for start, each in placed:
        found |= {start + axis for axis in _of(each, free)}
    for start, each in placed:
        own = {start + axis for axis in _of(each, free)}
        for axis in found - own:
            if axis >= start and _shape(each, shapes)[axis - start] != 1:
                return None
    return tuple(sorted(found))


def _conv(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    axes = _of(node["input"], free)
    return axes if all(axis >= 2 for axis in axes) else None


def _not_along(*names: str) -> Rule:
    """Of an operator along one axis, which must not be free."""
    def rule(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
        source = next(value for value in node.arguments.values() if isinstance(value, Ref))
        rank = len(_shape(source, shapes))
        along = {node[name] % rank for name in names}
        return None if along & set(_of(source, free)) else _of(source, free)

    return rule


def _linear(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    axes = _of(node["input"], free)
    return None if len(_shape(node["input"], shapes)) - 1 in axes else axes


def _layer_norm(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    axes, rank = _of(node["input"], free), len(_shape(node["input"], shapes))
    return axes if all(axis < rank - len(node["normalized_shape"]) for axis in axes) else None


def _pool(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    """Windows that are all full: of an average those that padding does not shorten."""
    if node["ceil_mode"]:
        return None
    shortened = any(padding != 0 for padding in node["padding"] or ()) and not node.arguments.get("divisor_override")
    if node.op == "average_pool" and shortened and not node["count_include_pad"]:
        return None
    return _conv_like(_of(node["self"], free))


def _conv_like(axes: Axes) -> Axes | None:
    return axes if all(axis >= 2 for axis in axes) else None


def _mean(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    axes, reduced = _of(node["self"], free), reduced_axes(node)
    if set(axes) & set(reduced):
        return None
    return axes if node["keepdim"] else tuple(axis - sum(gone < axis for gone in reduced) for axis in axes)


def _concat(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    axes = {_of(item, free) for item in node["tensors"]}
    rank = len(node.shape or ())
    if len(axes) != 1 or node["dim"] % rank in (found := next(iter(axes))):
        return None
    return found


def _transpose(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    rank = len(_shape(node["self"], shapes))
    order = list(range(rank))
    if "dims" in node.arguments:
        order = [axis % rank for axis in node["dims"]]
    elif rank > 1:
        first, second = node.arguments.get("dim0", 0) % rank, node.arguments.get("dim1", 1) % rank
        order[first], order[second] = order[second], order[first]
    return tuple(sorted(order.index(axis) for axis in _of(node["self"], free)))


def _reshape(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    before, after = _shape(node["self"], shapes), node.shape or ()
    places = [kept_axis(before, after, axis) for axis in _of(node["self"], free)]
    found = tuple(sorted(place for place in places if place is not None))
    return None if None in places or sizes_kept(before, after, found) is None else found


def kept_axis(before: Shape, after: Shape, axis: int) -> int | None:
    """Where a reshape leaves one of the axes as it is: None where it joins it with others or cuts it up."""
    def beside(shape: Shape, place: int) -> tuple[Any, ...]:
        sides = shape[:place], shape[place + 1:]
        return tuple((prod(size for size in side if size is not None), side.count(None)) for side in sides)

    return next((place for place in range(len(after)) if after[place] == before[axis]
                 and beside(after, place) == beside(before, axis)), None)


def sizes_kept(before: Shape, after: Shape, free: Axes) -> tuple[int, ...] | None:
    """A reshape as a program writes it where some axes of its result are free: 0 for an axis that stays as it is in its
    place, -1 for one whose size follows from the others; None where more than one would have to."""
    unknown = [axis for axis, size in enumerate(after) if size is None or axis in free]
    kept = [axis for axis in unknown if axis < len(before) and kept_axis(before, after, axis) == axis]
    if len(unknown) - len(kept) > 1:
        return None
    return tuple(0 if axis in kept else -1 if axis in unknown else size or 0 for axis, size in enumerate(after))


def _select(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    """Of a free axis an entry counted from its beginning or its end."""
    along = node["dim"] % len(_shape(node["self"], shapes))
    return tuple(axis - (axis > along) for axis in _of(node["self"], free) if axis != along)


def _slice(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    along = node["dim"] % len(_shape(node["self"], shapes))
    whole = node["start"] in (None, 0) and (node["end"] is None or node["end"] >= 2**31) and node["step"] == 1
    return None if along in _of(node["self"], free) and not whole else _of(node["self"], free)


def _pad(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    return _of(node["self"], free) if padding_mode(node) == "constant" else None


def _resize(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    """By whole factors: every entry so many times."""
    factors = node["scale_factors"]
    whole = factors is not None and all(factor == int(factor) and factor >= 1 for factor in factors)
    return _conv_like(_of(node["input"], free)) if whole else None


def _recurrence(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
    """Free steps, which its outputs have too."""
    body = node.body
    assert body is not None
    sequences = {_of(entry["sequence"], free) for entry in body.entries}
    states = {_of(state["first"], free) for state in body.states}
    return (node["axis"],) if sequences == {(node["axis"],)} and states == {()} else None


def _image(name: str) -> Rule:
    def rule(node: Node, free: Free, shapes: Mapping[str, Shape | None]) -> Axes | None:
        return _conv_like(_of(node[name], free))

    return rule


_RULES: Mapping[str, Rule] = {
    "conv": _conv, "linear": _linear, "add": _broadcast, "sub": _broadcast, "mul": _broadcast, "div": _same,
    "quotient": _broadcast, "larger": _broadcast, "function": _same, "clamp": _same, "batch_norm": _same,
    "dropout": _same, "identity": _same, "cast": _same, "prelu": _same, "softmax": _not_along("dim"),
    "log_softmax": _not_along("dim"), "layer_norm": _layer_norm, "rms_norm": _layer_norm, "concat": _concat,
    "average_pool": _pool, "max_pool": _pool, "mean": _mean, "reshape": _reshape, "transpose": _transpose,
    "channel_shuffle": _image("self"), "pixel_shuffle": _image("self"), "resize_nearest": _resize,
    "insert_zeros": _image("x"), "slice": _slice, "select": _select, "split": _not_along("dim"), "item": _same,
    "pad": _pad, "recurrence": _recurrence,
}
"""Operators whose forms in a program do not depend on the size of a free axis, by the names of the operator table."""
