"""Rules of operators on several values: sums, products, concatenations."""

import torch

from fewbits.graph.graph import Node
from fewbits.lower.context import Context, Rules
from fewbits.lower.exact import mask
from fewbits.lower.functions import table
from fewbits.program import ops as op


def add(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Add(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def sub(context: Context, node: Node) -> None:
    if isinstance(node["other"], int | float):
        return table(context, node)
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Sub(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def mul(context: Context, node: Node) -> None:
    if isinstance(node["other"], int | float):
        return table(context, node)
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Mul(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def quotient(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["first"]), context.read(node["second"])
    context.names[node.name] = context.emit(op.Div(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def larger(context: Context, node: Node) -> None:
    y, kind = context.result(node), op.Min if node.target is torch.ops.aten.minimum.default else op.Max
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(kind(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def choose(context: Context, node: Node) -> None:
    y, condition = context.result(node), mask(context, node["condition"])
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(op.Choose(y.name, condition, first, second, y.low, y.high), y.shape,
                                            y.encoding)


def matmul(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node.arguments.get("other", node.arguments.get("mat2")))
    context.names[node.name] = context.emit(op.MatMul(y.name, first, second, y.low, y.high), y.shape, y.encoding)


def concat(context: Context, node: Node) -> None:
    y = context.result(node)
    inputs = tuple(context.read(item) for item in node["tensors"])
    context.names[node.name] = context.emit(
        op.Concat(y.name, inputs, node["dim"] % len(y.shape), y.low, y.high), y.shape, y.encoding)


RULES: Rules = {
    "add": add, "sub": sub, "mul": mul, "matmul": matmul, "concat": concat, "quotient": quotient, "larger": larger,
    "choose": choose,
}
