"""What a graph computes from no input, or from the batch's size alone, computed beforehand.

A value that is the same for every image of the batch becomes a constant with one image, which stands for all of them.
Such values are found by computing with two sizes of the batch.
"""

from dataclasses import replace
from typing import Any

import torch

from fewbits.errors import CaptureError
from fewbits.fold.recurrent import RECURRENT
from fewbits.graph.graph import Node, Param, Ref, Shape, map_leaves
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of

aten = torch.ops.aten

_SIZES = (2, 3)  # of the batch
_ONLY_SHAPE = (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default,
               aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default,
               aten.copy.default, aten.fill.Scalar, aten.fill.Tensor, aten.zero.default)
"""Calls that read nothing of their first argument but its shape and type."""
_FUNCTIONS = _ONLY_SHAPE[:3]
"""Those that, in float32, are functions of one number as well, and may stay one."""

Pair = tuple[Any, Any]  # a value for each size of the batch; one object where it is the same


@torch.no_grad()
def without_constants(model: Model) -> list[Node]:
    """The nodes that depend on data, reading parameters where others computed constants; these are put into the model.

    What depends on the batch's size and differs from image to image stays, with what it is computed from, where what
    depends on data reads it. Raises CaptureError where the model returns a constant.
    """
    found = _Constants(model)
    for node in model.graph.nodes:
        found.evaluate(node)
    for name in model.graph.outputs:
        if name in found.constants:
            raise CaptureError(f"output {name!r} is a constant: it depends on no input")
    kept: list[Node] = []
    whole: set[str] = set(model.graph.outputs)  # values that are needed in their full size
    for node in reversed(model.graph.nodes):
        if node.name not in found.values:
            parts = [found.read(part) for part in _own_rows(found, node)]
        elif node.name in whole:
            parts = [found.read(node, only_plain=True)]
        else:
            continue
        kept += reversed(parts)
        whole |= {name for part in parts for name in part.refs if name in found.values}
    return kept[::-1]


class _Constants:
    """Values that depend on no data, by name. constants: the parameter that stands for each that is one."""

    def __init__(self, model: Model):
        self.model, self.graph, self.shapes = model, model.graph, model.shapes()
        self.values: dict[str, Pair] = {}
        self.constants: dict[str, Param] = {}

    def evaluate(self, node: Node) -> None:
        """Computes a node's value, where it depends on no data, and the constant that stands for it, where one does."""
        pair = self._pair(node)
        if pair is None:
            return
        self.values[node.name] = pair
        if not isinstance(pair[0], torch.Tensor):
            return
        constant = pair[0] if pair[0] is pair[1] else _of_one_image(*pair)
        if constant is None or (pair[0] is not pair[1] and self._starts_a_sequence(node)):
            return  # it numbers the images, or has as many numbers as there are
        name = f"{node.name}.constant"
        self.constants[node.name] = Param(name)
        self.model.set_tensor(name, constant.detach())

    def _starts_a_sequence(self, node: Node) -> bool:
        """Whether recurrent layers alone read a value: their first state, which they take in its full size."""
        readers = self.graph.consumers[node.name]
        return bool(readers) and all(reader.target in RECURRENT for reader in readers)

    def _pair(self, node: Node) -> Pair | None:
        if node.target is aten.sym_size.int:
            return self._size(node)
        shaped = node.target in _ONLY_SHAPE and not (node.target in _FUNCTIONS and node.dtype == "float32")
        unknown = [name for name in node.refs if name not in self.values]
        if unknown and not (shaped and unknown == [node["self"].name]):
            return None
        sized = bool(unknown) or any(self.values[name][0] is not self.values[name][1] for name in node.refs)
        first = node.run(self._arguments(node, 0))
        return first, node.run(self._arguments(node, 1)) if sized else first

    def _size(self, node: Node) -> Pair | None:
        source = self.graph.inputs_by_name.get(node["self"].name)
        if source is None:
            shape = self.shapes.get(node["self"].name)
            size = None if shape is None else shape[node["dim"]]
            return None if size is None else (size, size)
        size = source.shape[node["dim"]]
        return _SIZES if size is None else (size, size)

    def _arguments(self, node: Node, which: int) -> dict[str, Any]:
        def value(item: Any) -> Any:
            if isinstance(item, Param):
                return self.model.tensor(item.name)
            if not isinstance(item, Ref):
                return item
            return self.values[item.name][which] if item.name in self.values else self._empty(item.name, which)

        return {name: map_leaves(argument, value) for name, argument in node.arguments.items()}

    def _empty(self, name: str, which: int) -> torch.Tensor:
        """A tensor of a value's shape and type, with numbers that nobody reads."""
        made = self.graph.by_name.get(name) or self.graph.inputs_by_name[name]
        shape: Shape = made.shape or ()
        one = torch.empty((), dtype=getattr(torch, made.dtype))
        return one.expand([_SIZES[which] if size is None else size for size in shape])

    def read(self, node: Node, only_plain: bool = False) -> Node:
        """The node with parameters in the place of constants; `only_plain`: of those that no batch is in."""
        def leaf(item: Any) -> Any:
            if not isinstance(item, Ref) or item.name not in self.constants:
                return item
            first, second = self.values[item.name]
            return item if only_plain and first is not second else self.constants[item.name]

        return node.changed(leaf)


def _of_one_image(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor | None:
    """What stands for a value of two batches in which all images are alike: with 1 where the sizes differ."""
    if first.ndim != second.ndim:
        return None
    for axis, (size, other) in enumerate(zip(first.shape, second.shape, strict=True)):
        if size != other:
            one, two = first.narrow(axis, 0, 1), second.narrow(axis, 0, 1)
            if not (torch.equal(first, one.expand_as(first)) and torch.equal(second, two.expand_as(second))):
                return None
            first, second = one, two
    return first.contiguous() if torch.equal(first, second) else None


def _own_rows(found: _Constants, node: Node) -> list[Node]:
    """A look-up in which each image reads its own row, `x[arange(n)[:, None], columns]`, as one along the columns."""
    if node.target is not aten.index.Tensor or len(node["indices"]) != 2:
        return [node]
    rows, columns = node["indices"]
    shape = found.shapes.get(node["self"].name) if isinstance(node["self"], Ref) else None
    if not (isinstance(rows, Ref) and isinstance(columns, Ref) and shape and shape[0] is None and node.shape):
        return [node]
    numbers, picked = found.values.get(rows.name), found.values.get(columns.name)
    if numbers is None or picked is None or picked[0] is not picked[1]:
        return [node]
    chosen: torch.Tensor = picked[0]
    each = all(value.shape[0] == value.numel() == size and torch.equal(value.flatten(), torch.arange(size))
               for value, size in zip(numbers, _SIZES, strict=True))
    rank = max(numbers[0].ndim, chosen.ndim)
    if not each or numbers[0].ndim < rank or (chosen.ndim == rank and chosen.shape[0] != 1):
        return [node]
    sizes = [*[1] * (rank - chosen.ndim), *chosen.shape][1:]
    name = f"{node.name}.columns"
    found.model.set_tensor(name, chosen.flatten() % (shape[1] or 1))
    part = replace(node, name=f"{node.name}.picked", shape=(None, chosen.numel(), *shape[2:]))
    part = _call(part, aten.index_select.default, {"self": node["self"], "dim": 1, "index": Param(name)})
    return [part, _call(node, aten.reshape.default, {"self": Ref(part.name), "shape": [-1, *sizes, *shape[2:]]})]


def _call(node: Node, target: Any, arguments: dict[str, Any]) -> Node:
    return replace(node, target=target, operator=operator_of(target), arguments=arguments, positional=len(arguments))
