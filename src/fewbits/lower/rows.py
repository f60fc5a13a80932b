"""Rules of operators on whole rows: softmax, layer norm, embeddings."""

import numpy as np

from fewbits.graph.graph import Node
from fewbits.lower.context import Context
from fewbits.program import nodes as op


def softmax(context: Context, node: Node) -> None:
    _softmax_of(context, node, context.read(node["self"]), None, 1.0)


def masked_softmax(context: Context, node: Node) -> None:
    mask = None if node["mask"] is None else context.array(node["mask"].name).astype(np.uint8)
    _softmax_of(context, node, context.read(node["x"]), mask, node["factor"])


def _softmax_of(context: Context, node: Node, source: str, mask: np.ndarray | None, factor: float) -> None:
    y = context.result(node)
    context.names[node.name] = context.emit(op.Softmax(y.name, source, mask, factor, y.low, y.high), y.shape,
                                            y.encoding)


def layer_norm(context: Context, node: Node) -> None:
    y, length = context.result(node), node["normalized_shape"][0]
    gain, shift = (np.full(length, default, np.float32) if node[name] is None else context.array(node[name].name)
                   for name, default in (("weight", 1.0), ("bias", 0.0)))
    context.names[node.name] = context.emit(
        op.LayerNorm(y.name, context.read(node["input"]), gain, shift, node["eps"], y.low, y.high), y.shape,
        y.encoding)


def embedding(context: Context, node: Node) -> None:
    y = context.result(node)
    table = y.encoding.encode(context.array(node["weight"].name))
    context.names[node.name] = context.emit(op.Embedding(y.name, node["indices"].name, table), y.shape, y.encoding)
