"""Rules of operators on whole rows: softmax, layer and group norm, embeddings."""

import math

import numpy as np

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node, Param
from fewbits.lower.context import Context, Rules
from fewbits.lower.emit import moved
from fewbits.lower.exact import mask
from fewbits.lower.sizes import minus_one
from fewbits.program import ops as op

LARGEST_LOG_STEP = 256.0  # 255 steps of it, in 2^-14, stay below 2^31


def softmax(context: Context, node: Node) -> None:
    y = context.result(node)
    made = op.Softmax(y.name, context.read(node["self"]), None, 1.0, y.low, y.high)
    context.names[node.name] = context.emit(made, y.shape, y.encoding)


def masked_softmax(context: Context, node: Node) -> None:
    """A mask that is known is part of the node; one that the model is given, or computes, a value it reads."""
    y, source, factor = context.result(node), context.read(node["x"]), node["factor"]
    known, seen, empty = None, None, node["empty"]
    if isinstance(node["mask"], Param):
        known = context.array(node["mask"].name).astype(np.uint8)
        if known.any(-1).all():
            empty = "zero"  # whatever: there is no such row
    elif node["mask"] is not None:
        seen = mask(context, node["mask"])
    made = op.Softmax(y.name, source, known, factor, y.low, y.high, seen, empty)
    context.names[node.name] = context.emit(made, y.shape, y.encoding)


def log_softmax(context: Context, node: Node) -> None:
    y, source = context.result(node), context.read(node["self"])
    scale = float(context.encoding(source).scale)
    if scale > LARGEST_LOG_STEP:
        raise LoweringError(f"log softmax {node.name!r} reads numbers in steps of {scale:.3g}, and its integers hold "
                            f"steps up to {LARGEST_LOG_STEP}: its input is far out of a logarithm's range")
    context.names[node.name] = context.emit(op.LogSoftmax(y.name, source, y.low, y.high), y.shape, y.encoding)


def layer_norm(context: Context, node: Node) -> None:
    y, sizes = context.result(node), tuple(node["normalized_shape"])
    gain, shift = _gain_and_shift(context, node, sizes)
    context.names[node.name] = context.emit(
        op.LayerNorm(y.name, context.read(node["input"]), gain, shift, node["eps"], y.low, y.high, len(sizes)),
        y.shape, y.encoding)


def rms_norm(context: Context, node: Node) -> None:
    y, sizes = context.result(node), tuple(node["normalized_shape"])
    gain = np.ones(sizes, np.float32) if node["weight"] is None else context.array(node["weight"].name)
    made = op.LayerNorm(y.name, context.read(node["input"]), gain, np.zeros(sizes, np.float32), node["eps"], y.low,
                        y.high, len(sizes), "zero")
    context.names[node.name] = context.emit(made, y.shape, y.encoding)


def group_norm(context: Context, node: Node) -> None:
    """[N, C, ...] as [N, groups, C / groups, positions], normalised over the last two."""
    y, source, groups = context.result(node), context.read(node["input"]), node["num_groups"]
    batch, channels, *rest = y.shape
    assert channels is not None, "the operator table refuses channels of unknown number"
    grouped = (batch, groups, channels // groups, math.prod(size or 0 for size in rest))
    source = moved(context, op.Reshape(f"{node.name}.groups", source, minus_one(grouped)), grouped)
    gain, shift = (part.reshape(groups, -1, 1) for part in _gain_and_shift(context, node, (channels,)))
    normal = op.LayerNorm(f"{y.name}.normal", source, gain, shift, node["eps"], y.low, y.high, 2)
    source = context.emit(normal, grouped, y.encoding)
    context.names[node.name] = moved(context, op.Reshape(y.name, source, minus_one(y.shape)), y.shape)


def _gain_and_shift(context: Context, node: Node, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    gain, shift = (np.full(shape, default, np.float32) if node[name] is None else context.array(node[name].name)
                   for name, default in (("weight", 1.0), ("bias", 0.0)))
    return gain, shift


def embedding(context: Context, node: Node) -> None:
    y = context.result(node)
    table = y.encoding.encode(context.array(node["weight"].name))
    numbers = context.names[node["indices"].name]
    context.names[node.name] = context.emit(op.Embedding(y.name, numbers, table), y.shape, y.encoding)


RULES: Rules = {
    "softmax": softmax, "masked_softmax": masked_softmax, "layer_norm": layer_norm, "log_softmax": log_softmax,
    "group_norm": group_norm, "rms_norm": rms_norm, "embedding": embedding,
}
