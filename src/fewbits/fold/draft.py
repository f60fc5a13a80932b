"""A graph being rewritten: the nodes made so far, and what went away."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fewbits.graph.graph import Node, Param, Ref, Shape
from fewbits.graph.model import Model
from fewbits.graph.operators import operator_of


class Draft:
    """Nodes made so far; `emit` adds one that stands in the module and at the line of the one it replaces."""

    def __init__(self, model: Model):
        self.model = model
        self.shapes = model.shapes()
        self.readers, self.outputs = model.graph.consumers, model.graph.outputs
        self.nodes: list[Node] = []
        self._makers: dict[str, Node] = {}  # the last node of each name
        self._dropped: set[Node] = set()
        self.renamed: dict[str, str] = {}
        self.unmasked: dict[tuple[str, float], Any] = {}  # what values are without their masks (fold/masks.py)
        self.entries: dict[str, Any] = {}  # values that are entries of a recurrence's outputs (fold/unrolled.py)
        self.rolled: set[str] = set()  # steps of loops that were made as one recurrence
        self.zeros: dict[str, Node] = {}  # states that are 0 for the whole batch, and what made them

    def emit(self, origin: Node, name: str, target: Callable[..., Any], arguments: dict[str, Any],
             shape: Shape | None, dtype: str | None = None) -> Ref:
        """dtype: that of `origin` where it is None."""
        schema = getattr(target, "_schema", None)
        by_name = {argument.name for argument in schema.arguments if argument.kwarg_only} if schema else set()
        positional = len(arguments.keys() - by_name)
        self.keep(Node(name, target, operator_of(target), arguments, positional, origin.module, origin.source, shape,
                       dtype or origin.dtype))
        self.shapes[name] = shape
        return Ref(name)

    @contextmanager
    def inside(self) -> Iterator[list[Node]]:
        """What is emitted meanwhile goes into the list that this gives: the nodes of a body."""
        outside, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outside

    def keep(self, node: Node) -> None:
        """Puts a node that stays as it is behind those made so far."""
        self.nodes.append(node)
        self._makers[node.name] = node

    def drop(self, node: Node) -> None:
        """Takes back one that was kept."""
        self._dropped.add(node)
        del self._makers[node.name]

    def fresh(self, name: str) -> str:
        """That name, or that name and a number, where a value bears it already."""
        free, count = name, 1
        while free in self.shapes:
            count += 1
            free = f"{name}#{count}"
        return free

    def parameter(self, name: str, tensor: torch.Tensor) -> Param:
        """Puts a tensor into the model under a dotted name that no other has."""
        free, count = name, 1
        while free in self.shapes:
            count += 1
            free = f"{name}{count}"
        self.model.set_tensor(free, tensor)
        self.shapes[free] = tuple(tensor.shape)
        return Param(free)

    def shape(self, item: Any) -> Shape:
        shape = self.shapes.get(item.name) if isinstance(item, Ref | Param) else None
        return shape or ()

    def dtype(self, item: Any) -> str:
        """Type of a value or parameter, by torch's name."""
        if isinstance(item, Param):
            return str(self.model.tensor(item.name).dtype).removeprefix("torch.")
        return (self.maker(item) or self.model.graph.inputs_by_name[item.name]).dtype

    def maker(self, item: Any) -> Node | None:
        """The node that made a value; None for what is no value made so far."""
        return self._makers.get(self.current(item.name)) if isinstance(item, Ref) else None

    def current(self, name: str) -> str:
        """What a value is called now."""
        while name in self.renamed:
            name = self.renamed[name]
        return name

    def made_by(self, item: Any) -> Node | None:
        """The node that made a value, when only one node reads it."""
        if not isinstance(item, Ref) or len(self.readers.get(item.name, ())) != 1 or item.name in self.outputs:
            return None
        return self.maker(item)

    def finish(self) -> list[Node]:
        """The nodes, in running order."""
        return [node for node in self.nodes if node not in self._dropped]
