"""Operators that bring numbers to codes, to other codes, and back, as ONNX."""

from fewbits.program import ops as op
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder
from fewbits.writers.onnx.decode import emit_dequantize
from fewbits.writers.onnx.steps import FormTable, OnnxForms, bounded, quantized_within, twin_bounded


def _quantize(b: OnnxBuilder, node: op.Quantize) -> None:
    source = node.input
    if source not in b.program.inputs:
        # Behind an island: between a DequantizeLinear and this quantizer ONNX Runtime would make integers of a call
        # that is to stay float (and of its weights); a sum of one number it leaves alone.
        source = b.node("Sum", [source], b.name(node.name, "kept"))
    format = b.program.encoding(node.name).format
    quantized_within(b, source, node.name, format.low, format.high)


def _constant(b: OnnxBuilder, node: op.Constant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data.codes)], node.name)


def _integer_requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    """A concatenation of one: DequantizeLinear and QuantizeLinear in a row would do, but ONNX Runtime merges
    such a pair with a quantizer in front of it into one of other codes."""
    inputs = [*b.grid(node.name, b.program.encoding(node.name)),
              node.input, *b.grid(node.input, b.program.encoding(node.input))]
    bounded(b, node, lambda out: b.node("QLinearConcat", inputs, out, domain=MICROSOFT, axis=0))


def _qdq_requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    real = b.node("Concat", [b.dequantize(node.input, b.name(node.input, "real"))], b.name(node.name, "real"),
                  axis=0)
    quantized_within(b, real, node.name, node.low, node.high)


def _integer_concat(b: OnnxBuilder, node: op.Concat) -> None:
    if b.program.is_wide(node.name):  # QLinearConcat writes bytes
        return _qdq_concat(b, node)
    inputs = b.grid(node.name, b.program.encoding(node.name))
    for name, codes in zip(node.inputs, b.for_every_image(node.name, node.inputs), strict=True):
        inputs += [codes, *b.grid(name, b.program.encoding(name))]
    bounded(b, node, lambda out: b.node("QLinearConcat", inputs, out, domain=MICROSOFT, axis=node.axis))


def _qdq_concat(b: OnnxBuilder, node: op.Concat) -> None:
    reals = [b.node("DequantizeLinear", [codes, *b.grid(name, b.program.encoding(name))], b.name(name, "real"))
             for name, codes in zip(node.inputs, b.for_every_image(node.name, node.inputs), strict=True)]
    real = b.node("Concat", reals, b.name(node.name, "real"), axis=node.axis)
    quantized_within(b, real, node.name, node.low, node.high)


def _twin_identity(b: OnnxBuilder, node: op.Quantize | op.Dequantize) -> None:
    b.node("Identity", [node.input], node.name)


def _twin_constant(b: OnnxBuilder, node: op.Constant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data.dequantize())], node.name)


def _twin_requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    twin_bounded(b, node, lambda out: b.node("Identity", [node.input], out))


def _twin_concat(b: OnnxBuilder, node: op.Concat) -> None:
    twin_bounded(b, node, lambda out: b.node("Concat", b.for_every_image(node.name, node.inputs), out, axis=node.axis))


FORMS: FormTable = {
    op.Quantize: OnnxForms(_quantize, _quantize, _twin_identity),
    op.Constant: OnnxForms(_constant, _constant, _twin_constant),
    op.Dequantize: OnnxForms(emit_dequantize, emit_dequantize, _twin_identity),
    op.Concat: OnnxForms(_integer_concat, _qdq_concat, _twin_concat),
    op.Requantize: OnnxForms(_integer_requantize, _qdq_requantize, _twin_requantize),
}
