"""A graph being rewritten: the nodes made so far, and what went away."""

from collections.abc import Callable
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
        self.constants: dict[str, Param] = {}  # values that turned out to be parameters
        self.zeros: dict[str, Node] = {}  # states that are 0 for the whole batch, and what made them

    def emit(self, origin: Node, name: str, target: Callable[..., Any], arguments: dict[str, Any],
             shape: Shape | None) -> Ref:
        schema = getattr(target, "_schema", None)
        by_name = {argument.name for argument in schema.arguments if argument.kwarg_only} if schema else set()
        positional = len(arguments.keys() - by_name)
        self.keep(Node(name, target, operator_of(target), arguments, positional, origin.module, origin.source, shape))
        self.shapes[name] = shape
        return Ref(name)

    def keep(self, node: Node) -> None:
        """Puts a node that stays as it is behind those made so far."""
        self.nodes.append(node)
        self._makers[node.name] = node

    def drop(self, node: Node) -> None:
        """Takes back one that was kept."""
        self._dropped.add(node)
        del self._makers[node.name]

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

    def maker(self, item: Any) -> Node | None:
        """The node that made a value; None for what is no value made so far."""
        return self._makers.get(item.name) if isinstance(item, Ref) else None

    def made_by(self, item: Any) -> Node | None:
        """The node that made a value, when only one node reads it."""
        if not isinstance(item, Ref) or len(self.readers.get(item.name, ())) != 1 or item.name in self.outputs:
            return None
        return self.maker(item)

    def finish(self) -> list[Node]:
        """The nodes, reading parameters where a value turned out to be one."""
        def read(item: Any) -> Any:
            return self.constants.get(item.name, item) if isinstance(item, Ref) else item

        return [node.changed(read) for node in self.nodes if node not in self._dropped]
