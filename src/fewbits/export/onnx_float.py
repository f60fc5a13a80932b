"""A Program's float twin as ONNX: the same graph without quantizers, to measure against.

Weights are the dequantized ones and ReLUs stand where the program bounds its codes, so the twin costs what
the float model costs in the same engine, operator for operator. Its numbers are near the original's, not equal.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.export.onnx import output_name
from fewbits.export.onnx_builder import OnnxBuilder
from fewbits.program import nodes as op
from fewbits.program import requantize as constants
from fewbits.program.nodes import Node
from fewbits.program.program import Program


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


def _identity(b: OnnxBuilder, node: op.Quantize) -> None:
    b.node("Identity", [node.input], node.name)


def _constant(b: OnnxBuilder, node: op.Constant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data.dequantize())], node.name)


def _weights(b: OnnxBuilder, node: op.Conv | op.Linear) -> list[str]:
    names = [b.constant(f"{node.name}.weight", node.weight.dequantize())]
    if node.bias is not None:
        scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
        names.append(b.constant(f"{node.name}.bias", node.bias.astype(np.float32) * scale))
    return names


def _pads(padding: op.Margins) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


def _conv(b: OnnxBuilder, node: op.Conv) -> None:
    _bounded(b, node, lambda out: b.node(
        "Conv", [node.input, *_weights(b, node)], out, strides=list(node.stride), pads=_pads(node.padding),
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
    _bounded(b, node, lambda out: b.node("Add", [node.first, node.second], out))


def _requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    _bounded(b, node, lambda out: b.node("Identity", [node.input], out))


def _max_pool(b: OnnxBuilder, node: op.MaxPool) -> None:
    b.node("MaxPool", [node.input], node.name, kernel_shape=list(node.kernel), strides=list(node.stride),
           pads=_pads(node.padding), dilations=list(node.dilation))


def _average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    _bounded(b, node, lambda out: b.node(
        "AveragePool", [node.input], out, kernel_shape=list(node.kernel), strides=list(node.stride),
        pads=_pads(node.padding), count_include_pad=int(node.count_padding)))


def _mean(b: OnnxBuilder, node: op.Mean) -> None:
    axes = b.constant(f"{node.name}.axes", np.array(node.axes, np.int64))
    _bounded(b, node, lambda out: b.node("ReduceMean", [node.input, axes], out, keepdims=int(node.keep)))


def _concat(b: OnnxBuilder, node: op.Concat) -> None:
    _bounded(b, node, lambda out: b.node("Concat", list(node.inputs), out, axis=node.axis))


def _reshape(b: OnnxBuilder, node: op.Reshape) -> None:
    shape = b.constant(f"{node.name}.shape", np.array(node.shape, np.int64))
    b.node("Reshape", [node.input, shape], node.name)


def _transpose(b: OnnxBuilder, node: op.Transpose) -> None:
    b.node("Transpose", [node.input], node.name, perm=list(node.permutation))


def _slice(b: OnnxBuilder, node: op.Slice) -> None:
    arguments = [b.constant(f"{node.name}.{part}", np.array([value], np.int64)) for part, value in
                 (("start", node.start), ("stop", node.stop), ("axis", node.axis), ("step", node.step))]
    b.node("Slice", [node.input, *arguments], node.name)


def _pad(b: OnnxBuilder, node: op.Pad) -> None:
    before, after = zip(*node.margins, strict=True)
    b.node("Pad", [node.input, b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64))],
           node.name)


_EMITTERS: dict[type[Node], Callable[[OnnxBuilder, Any], None]] = {
    op.Quantize: _identity, op.Constant: _constant, op.Conv: _conv, op.Linear: _linear, op.Add: _add,
    op.Requantize: _requantize, op.MaxPool: _max_pool, op.AveragePool: _average_pool, op.Mean: _mean,
    op.Concat: _concat, op.Reshape: _reshape, op.Transpose: _transpose, op.Slice: _slice, op.Pad: _pad,
}
