"""A Program's float twin as ONNX: the same graph without quantizers, to measure against.

Weights are the dequantized ones and ReLUs stand where the program bounds its codes, so the twin costs what
the float model costs in the same engine, operator for operator. Its numbers are near the original's, not equal.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program.ops import Node
from fewbits.program.program import Program
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.floats import emit_float_call, emit_float_constant
from fewbits.writers.onnx.program import (
    emit_gather,
    emit_max_pool,
    emit_reshape,
    emit_slice,
    emit_transpose,
    onnx_pads,
    output_name,
)


def float_onnx_bytes(program: Program) -> bytes:
    """The float twin, with the input and output names of `onnx_bytes`."""
    builder = OnnxBuilder(program)
    for node in program.nodes:
        _EMITTERS[type(node)](builder, node)
    outputs = {}
    for name in program.outputs:
        outputs[builder.node("Identity", [name], output_name(name))] = TensorProto.FLOAT
    return builder.model(outputs, {output_name(name): name for name in program.outputs})


def _bounded(b: OnnxBuilder, node: Any, emit: Callable[[str], str]) -> None:
    """A ReLU or Clip where the node's code bounds say that the float model has one."""
    encoding = b.program.encoding(node.name)
    if b.program.is_accumulator(node.name):
        emit(node.name)
        return
    low, high = encoding.decode(np.array([node.low, node.high]))
    cut_above = node.high < encoding.format.high
    if low == 0 and not cut_above:
        b.node("Relu", [emit(b.name(node.name, "sum"))], node.name)
    elif low == 0 or cut_above or node.low > encoding.format.low:
        bounds = [b.constant(f"{node.name}.{side}", np.array(value, np.float32))
                  for side, value in (("low", low), ("high", high))]
        b.node("Clip", [emit(b.name(node.name, "sum")), *bounds], node.name)
    else:
        emit(node.name)


def _identity(b: OnnxBuilder, node: op.Quantize | op.Dequantize) -> None:
    b.node("Identity", [node.input], node.name)


def _constant(b: OnnxBuilder, node: op.Constant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data.dequantize())], node.name)


def _weights(b: OnnxBuilder, node: op.Conv | op.Linear) -> list[str]:
    names = [b.constant(f"{node.name}.weight", node.weight.dequantize())]
    if node.bias is not None:
        scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
        names.append(b.constant(f"{node.name}.bias", node.bias.astype(np.float32) * scale))
    return names


def _conv(b: OnnxBuilder, node: op.Conv) -> None:
    _bounded(b, node, lambda out: b.node(
        "Conv", [node.input, *_weights(b, node)], out, strides=list(node.stride), pads=onnx_pads(node.padding),
        dilations=list(node.dilation), group=node.groups))


def _linear(b: OnnxBuilder, node: op.Linear) -> None:
    weight, *bias = _weights(b, node)
    if len(b.program.values[node.name].shape) == 2:
        _bounded(b, node, lambda out: b.node("Gemm", [node.input, weight, *bias], out, transB=1))
        return
    columns = b.constant(f"{node.name}.columns", node.weight.dequantize().T)

    def emit(out: str) -> str:
        product = b.node("MatMul", [node.input, columns], b.name(node.name, "product") if bias else out)
        return b.node("Add", [product, *bias], out) if bias else product

    _bounded(b, node, emit)


def _add(b: OnnxBuilder, node: op.Add) -> None:
    _bounded(b, node, lambda out: b.node("Sub" if node.subtract else "Add", [node.first, node.second], out))


def _mul(b: OnnxBuilder, node: op.Mul) -> None:
    _bounded(b, node, lambda out: b.node("Mul", [node.first, node.second], out))


def _quotient(b: OnnxBuilder, node: op.Quotient) -> None:
    _bounded(b, node, lambda out: b.node("Div", [node.first, node.second], out))


def _larger(b: OnnxBuilder, node: op.Larger) -> None:
    _bounded(b, node, lambda out: b.node("Min" if node.least else "Max", [node.first, node.second], out))


def _matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    _bounded(b, node, lambda out: b.node("MatMul", [node.first, node.second], out))


_FUNCTIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "hardswish": "HardSwish",
              "hardsigmoid": "HardSigmoid", "elu": "Elu", "leaky_relu": "LeakyRelu", "softplus": "Softplus",
              "sqrt": "Sqrt", "neg": "Neg"}


def _table(b: OnnxBuilder, node: op.Table) -> None:
    """The function itself where ONNX has it; SiLU and GELU as the products they are; else one multiplication."""
    if node.function in _FUNCTIONS:
        b.node(_FUNCTIONS[node.function], [node.input], node.name)
    elif node.function in ("silu", "gelu"):
        inner = b.node("Sigmoid" if node.function == "silu" else "Erf", [node.input], b.name(node.name, "gate"))
        b.node("Mul", [node.input, inner], node.name)
    else:
        b.node("Mul", [node.input, b.constant(f"{node.name}.factor", np.array(0.5, np.float32))], node.name)


def _threshold(b: OnnxBuilder, node: op.Threshold) -> None:
    """A clamp to the largest numbers, as a float network trained for such levels has one."""
    encoding = b.program.encoding(node.name)
    bounds = [b.constant(f"{node.name}.{side}", encoding.decode(level)) for side, level in
              (("low", node.levels[0]), ("high", node.levels[-1]))]
    b.node("Clip", [node.input, *bounds], node.name)


def _softmax(b: OnnxBuilder, node: op.Softmax) -> None:
    source = node.input
    if node.mask is not None:
        parts = [b.constant(f"{node.name}.mask", node.mask.astype(bool)), source,
                 b.constant(f"{node.name}.unseen", np.array(-1e30, np.float32))]
        source = b.node("Where", parts, b.name(node.name, "seen"))
    b.node("Softmax", [source], node.name, axis=-1)


def _log_softmax(b: OnnxBuilder, node: op.LogSoftmax) -> None:
    b.node("LogSoftmax", [node.input], node.name, axis=-1)


def _layer_norm(b: OnnxBuilder, node: op.LayerNorm) -> None:
    """With gains per channel, as a group norm has them, these are a product and a sum behind it."""
    gain, shift = b.constant(f"{node.name}.gain", node.gain), b.constant(f"{node.name}.shift", node.shift)
    sizes = [size for size in b.program.values[node.input].shape[-node.axes:] if size is not None]
    if node.gain.shape == tuple(sizes):
        b.node("LayerNormalization", [node.input, gain, shift], node.name, axis=-node.axes, epsilon=node.epsilon)
        return
    ones = b.constant(f"{node.name}.ones", np.ones(sizes, np.float32))
    normal = b.node("LayerNormalization", [node.input, ones], b.name(node.name, "normal"), axis=-node.axes,
                    epsilon=node.epsilon)
    b.node("Add", [b.node("Mul", [normal, gain], b.name(node.name, "gained")), shift], node.name)


def _embedding(b: OnnxBuilder, node: op.Embedding) -> None:
    b.node("Gather", [b.constant(f"{node.name}.table", node.table.dequantize()), node.input], node.name, axis=0)


def _requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    _bounded(b, node, lambda out: b.node("Identity", [node.input], out))


def _average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    _bounded(b, node, lambda out: b.node(
        "AveragePool", [node.input], out, kernel_shape=list(node.kernel), strides=list(node.stride),
        pads=onnx_pads(node.padding), count_include_pad=int(node.counts.size == 1)))


def _mean(b: OnnxBuilder, node: op.Mean) -> None:
    axes = b.constant(f"{node.name}.axes", np.array(node.axes, np.int64))
    _bounded(b, node, lambda out: b.node("ReduceMean", [node.input, axes], out, keepdims=int(node.keep)))


def _concat(b: OnnxBuilder, node: op.Concat) -> None:
    _bounded(b, node, lambda out: b.node("Concat", b.for_every_image(node.name, node.inputs), out, axis=node.axis))


def _dynamic_conv(b: OnnxBuilder, node: op.DynamicConv) -> None:
    b.node("Conv", list(op.reads(node)), node.name, strides=list(node.stride), pads=onnx_pads(node.padding),
           dilations=list(node.dilation), group=node.groups)


def _dynamic_linear(b: OnnxBuilder, node: op.DynamicLinear) -> None:
    columns = b.constant(f"{node.weight}.columns", np.ascontiguousarray(b.program.constant(node.weight).dequantize().T))
    product = node.name if node.bias is None else b.name(node.name, "product")
    b.node("MatMul", [node.input, columns], product)
    if node.bias is not None:
        b.node("Add", [product, node.bias], node.name)


def _pad(b: OnnxBuilder, node: op.Pad) -> None:
    before, after = zip(*node.margins, strict=True)
    b.node("Pad", [node.input, b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64))],
           node.name)


_EMITTERS: dict[type[Node], Callable[[OnnxBuilder, Any], None]] = {
    op.Quantize: _identity, op.Constant: _constant, op.Conv: _conv, op.Linear: _linear, op.Add: _add,
    op.Mul: _mul, op.Quotient: _quotient, op.Larger: _larger, op.LogSoftmax: _log_softmax,
    op.MatMul: _matmul, op.Table: _table, op.Threshold: _threshold,
    op.Softmax: _softmax, op.LayerNorm: _layer_norm, op.Embedding: _embedding, op.Pick: emit_gather,
    op.Requantize: _requantize, op.MaxPool: emit_max_pool,
    op.AveragePool: _average_pool, op.Mean: _mean,
    op.Concat: _concat, op.Reshape: emit_reshape, op.Transpose: emit_transpose, op.Slice: emit_slice, op.Pad: _pad,
    op.Dequantize: _identity, op.FloatConstant: emit_float_constant, op.FloatCall: emit_float_call,
    op.DynamicConv: _dynamic_conv, op.DynamicLinear: _dynamic_linear,
}
