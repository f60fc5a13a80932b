"""Rules of dot products: convolutions and linear layers."""

from collections.abc import Callable

import numpy as np

from fewbits.graph.graph import Node
from fewbits.lower.context import Context, Rules, integers
from fewbits.lower.threshold import of_sums
from fewbits.numerics.encoding import Quantized
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program.accumulator import dot_bound, interval
from fewbits.program.windows import margins_of, sizes_of
from fewbits.quant.batch_norm import channel_axis
from fewbits.quant.fake_quantize import FakeQuantize


def conv(context: Context, node: Node) -> None:
    kernel = context.array(node["weight"].name).shape[2:]
    dilation, stride = (sizes_of(node[name], len(kernel)) for name in ("dilation", "stride"))
    margins, source = margins_of(node["padding"], kernel, dilation), context.read(node["input"])
    _dot(context, node, lambda name, weight, bias, low, high: op.Conv(
        name, source, weight, bias, stride, margins, dilation, node["groups"], low, high))


def linear(context: Context, node: Node) -> None:
    source = context.read(node["input"])
    _dot(context, node, lambda name, weight, bias, low, high: op.Linear(name, source, weight, bias, low, high))


def _dot(context: Context, node: Node,
         make: Callable[[str, Quantized, np.ndarray | None, int, int], op.Conv | op.Linear]) -> None:
    """A dot product with its bias and batch norm, and what brings its sums to codes."""
    assert node.shape is not None, "a dot product returns one tensor"
    quantizer, sums = context.uneven(node), context.profile.accumulator
    if quantizer is not None:
        weight, _ = context.operands(node, unscaled=True)
        name = context.emit(make(f"{node.name}.sums", weight, None, sums.low, sums.high), node.shape,
                            context.sums(node, weight))
        context.names[node.name] = _sums_to_levels(context, node, name, weight, quantizer)
        return
    weight, bias = context.operands(node)
    if context.leaves_floats(node):
        name = context.emit(make(f"{node.name}.sums", weight, bias, sums.low, sums.high), node.shape,
                            context.sums(node, weight))
        context.names[node.name] = context.emit(op.Dequantize(node.name, name), node.shape, None)
        return
    if context.leaves_sums(node):
        name, encoding = context.simulation.plan.grid(node.name), context.sums(node, weight)
        low, high = sums.low, sums.high
    else:
        y = context.result(node)
        name, encoding, low, high = y.name, y.encoding, y.low, y.high
    context.names[node.name] = context.emit(make(name, weight, bias, low, high), node.shape, encoding)


def _sums_to_levels(context: Context, node: Node, name: str, weight: Quantized, quantizer: FakeQuantize) -> str:
    """Sums to the codes of a table or float, by comparison."""
    assert node.shape is not None and not isinstance(quantizer.format, Int)
    site, encoding = context.simulation.plan.grid(node.name), context.uneven_encoding(quantizer)
    gain, offset = context.gain_and_offset(node)
    bound = dot_bound(weight, None, *interval(context.encoding(context.read(node["input"]))))
    thresholds, direction = of_sums(site, quantizer.format, integers(quantizer), float(quantizer.encoding.scale),
                                    gain, offset, context.clamped(site), (bound.low, bound.high))
    if (thresholds == thresholds[:1]).all() and (direction == direction[0]).all():
        thresholds, direction = thresholds[:1], direction[:1]
    return context.emit(op.Threshold(site, name, thresholds, direction, context.level_codes(quantizer),
                                     channel_axis(node)), node.shape, encoding)


RULES: Rules = {
    "conv": conv, "linear": linear,
}
