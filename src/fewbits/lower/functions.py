"""Rules of functions of one number: tables over the codes, and clamps."""

import numpy as np
import torch

from fewbits.fold.batch_norm import scale_and_shift
from fewbits.graph.graph import Node
from fewbits.lower.context import Context, Rules
from fewbits.lower.emit import unchanged
from fewbits.program import ops as op


def table(context: Context, node: Node) -> None:
    """The ATen call itself, in float64, on every number the input's codes stand for."""
    name = next(iter(node.arguments))
    reals = context.every_real(context.read(node[name]))
    results = node.run(dict(node.arguments) | {name: torch.from_numpy(reals)})
    tabulate(context, node, context.read(node[name]), results.numpy().reshape(1, -1))


def batch_norm(context: Context, node: Node) -> None:
    """Part of the dot product before it, or a function of one number per channel."""
    if context.is_inside(node):
        return unchanged(context, node)
    scale, shift = (part.cpu().numpy()[:, None] for part in scale_and_shift(context.simulation.model, node))
    source = context.read(node["input"])
    tabulate(context, node, source, scale * context.every_real(source) + shift)


def prelu(context: Context, node: Node) -> None:
    slopes = context.array(node["weight"].name).astype(np.float64).reshape(-1, 1)
    source = context.read(node["self"])
    reals = context.every_real(source)
    tabulate(context, node, source, np.where(reals >= 0, reals, slopes * reals))


def clamp(context: Context, node: Node) -> None:
    source = node.refs[0]
    if context.simulation.plan.grid(source) == node.name:  # the node before carries it in its bounds
        context.names[node.name] = context.names[source]
        return
    if context.uneven(node) is not None:
        return tabulate(context, node, context.names[source], context.every_real(context.names[source]).reshape(1, -1))
    y = context.result(node)
    context.names[node.name] = context.emit(
        op.Requantize(y.name, context.names[source], y.low, y.high), y.shape, y.encoding)


def tabulate(context: Context, node: Node, source: str, results: np.ndarray) -> None:
    """results: float64 [rows, codes], the function's values in code order; where it has none (NaN), 0 is taken."""
    assert node.shape is not None, "a function returns one tensor"
    results = np.where(np.isnan(results), 0.0, results)
    site, quantizer = context.simulation.plan.grid(node.name), context.uneven(node)
    if quantizer is not None:
        encoding = context.uneven_encoding(quantizer)
        codes = quantizer.integers(results.clip(*context.clamped(site))).codes
    else:
        y = context.result(node)
        encoding, codes = y.encoding, y.encoding.encode(results).codes.clip(y.low, y.high)
    entries = np.zeros((len(results), max(256, results.shape[1])), encoding.format.dtype)
    entries[:, :results.shape[1]] = codes
    arguments = [str(value) for value in node.arguments.values() if isinstance(value, int | float | str)]
    words = str(getattr(node.target, "__name__", node.target)).split(".")[0]
    if words in ("mul", "div", "sub", "rsub", "pow"):
        words = f"{words} {arguments[0]}"
    context.names[node.name] = context.emit(op.Table(site, source, entries, words), node.shape, encoding)


RULES: Rules = {
    "function": table, "div": table, "prelu": prelu, "clamp": clamp, "batch_norm": batch_norm,
}
