"""Nodes that move codes or floats about and keep their encoding, or none at all."""

from collections.abc import Mapping

import numpy as np

from fewbits.graph.graph import Node, Shape
from fewbits.lower.context import Context, Rules
from fewbits.program import ops as op


def passed(context: Context, node: Node, made: op.ProgramNode) -> None:
    """Emits a node that keeps the encoding of the value it reads."""
    assert node.shape is not None, "only splits return lists"
    context.names[node.name] = moved(context, made, node.shape)


def moved(context: Context, made: op.ProgramNode, shape: Shape) -> str:
    """Emits a node that moves numbers about, on the way to a result."""
    source = context.values[op.reads(made)[0]]
    return context.emit(made, shape, source.encoding, source.dtype)


def picked(context: Context, node: Node, source: str, orders: Mapping[int, np.ndarray]) -> None:
    """Along each of some axes the entries in the order given."""
    shape = list(context.values[source].shape)
    for axis, order in orders.items():
        shape[axis] = len(order)
        name = node.name if axis == [*orders][-1] else f"{node.name}.axis{axis}"
        source = moved(context, op.Gather(name, source, axis, tuple(order.tolist())), tuple(shape))
    context.names[node.name] = source


def unchanged(context: Context, node: Node) -> None:
    context.names[node.name] = context.names[node.refs[0]]


def nothing(context: Context, node: Node) -> None:
    """Sizes live in the shapes of the program's values."""


RULES: Rules = {
    "dropout": unchanged, "identity": unchanged, "cast": unchanged, "size": nothing,
}
