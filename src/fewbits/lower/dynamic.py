"""Rules of dot products with dynamically quantized inputs."""

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node
from fewbits.lower.context import Context
from fewbits.lower.inputs import quantized
from fewbits.lower.islands import constant, real
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program.windows import margins_of, sizes_of


def dynamic_dot(context: Context, node: Node) -> None:
    """Codes of the run's own range, integer sums, and the float32 that they stand for."""
    assert node.shape is not None, "a dot product returns one tensor"
    weight = _weight(context, node)
    source = real(context, node["input"])
    bias = None if node["bias"] is None else constant(context, node["bias"].name, "bias", node)
    site = context.simulation.plan.sites.get(node.name)
    name = node.name if site is None else f"{node.name}.unrounded"
    if node.op == "conv":
        kernel = context.array(weight).shape[2:]
        dilation, stride = (sizes_of(node[each], len(kernel)) for each in ("dilation", "stride"))
        margins = margins_of(node["padding"], kernel, dilation)
        made: op.ProgramNode = op.DynamicConv(name, source, weight, bias, stride, margins, dilation, node["groups"])
    else:
        made = op.DynamicLinear(name, source, weight, bias)
    context.names[node.name] = context.emit(made, node.shape, None)
    if site is not None:
        context.names[node.name] = quantized(context, node.name, name, node.name, node.shape)


def _weight(context: Context, node: Node) -> str:
    name = node["weight"].name
    format = context.simulation.quantizer(name).spec.format
    if not isinstance(format, Int) or not format.signed or format.bits > 8:
        raise LoweringError(f"weight {name!r} has {format}, but sums with dynamic ranges take signed integers of at "
                            "most 8 bits: give it such a format")
    data = context.weight_of(name)
    if data.encoding.zero_point.any():
        raise LoweringError(f"weight {name!r} has a zero point, which sums with dynamic ranges do not take: make it "
                            "symmetric")
    if name not in context.values:
        context.emit(op.Constant(name, data), data.codes.shape, data.encoding)
    return name
