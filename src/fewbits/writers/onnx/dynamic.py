"""Dot products with ranges of their own in each run, as ONNX: DynamicQuantizeLinear and integer sums."""

from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.program import ops as op
from fewbits.writers.onnx.builder import OnnxBuilder, unsigned
from fewbits.writers.onnx.steps import FormTable, OnnxForms, onnx_pads


def _dynamic_conv(b: OnnxBuilder, node: op.DynamicConv) -> None:
    before, after = zip(*node.padding, strict=True)
    # uint8 on every processor: ConvInteger has no fast kernel for int8 weights.
    weight = _unsigned(b, node, "codes8", b.program.constant(node.weight).codes)
    _emit(b, node, "ConvInteger", weight, (1, -1, *[1] * len(node.stride)), strides=list(node.stride),
          pads=[*before, *after], dilations=list(node.dilation), group=node.groups)


def _dynamic_linear(b: OnnxBuilder, node: op.DynamicLinear) -> None:
    columns = b.program.constant(node.weight).codes.T
    if node.name in b.portable:  # several nodes may share a weight, written in one way or both
        weight = _unsigned(b, node, "columns", columns)
    else:
        weight = [b.constant(f"{node.weight}.columns", columns.astype(np.int8))]
    _emit(b, node, "MatMulInteger", weight, (-1,))


def _unsigned(b: OnnxBuilder, node: op.DynamicConv | op.DynamicLinear, part: str, codes: np.ndarray) -> list[str]:
    """Codes as uint8, and their zero point."""
    return [b.constant(f"{node.weight}.{part}.unsigned", unsigned(codes)),
            b.constant(f"{node.weight}.unsigned.zero_point", unsigned(np.array(0)))]


def _emit(b: OnnxBuilder, node: op.DynamicConv | op.DynamicLinear, operator: str, weight: list[str],
          shape: tuple[int, ...], **attributes: Any) -> None:
    """Codes, sums, and their product with both scales; the bias by a Sum, which ONNX Runtime leaves as it is."""
    codes, scale, zero = (b.name(node.name, part) for part in ("taken", "taken_scale", "taken_zero"))
    b.several("DynamicQuantizeLinear", [node.input], [codes, scale, zero])
    sums = b.node(operator, [codes, weight[0], zero, *weight[1:]], b.name(node.name, "products"), **attributes)
    reals = b.node("Cast", [sums], b.name(node.name, "reals"), to=TensorProto.FLOAT)
    scales = b.program.constant(node.weight).encoding.scale
    other = b.constant(f"{node.name}.weight_scale", scales.reshape(shape) if scales.ndim else scales)
    both = b.node("Mul", [scale, other], b.name(node.name, "multiplier"))
    product = b.node("Mul", [reals, both], node.name if node.bias is None else b.name(node.name, "scaled"))
    if node.bias is not None:
        target = b.constant(f"{node.name}.bias_shape", np.array(shape, np.int64))
        bias = b.node("Reshape", [node.bias, target], b.name(node.name, "shaped_bias"))
        b.node("Sum", [product, bias], node.name)


def _twin_dynamic_conv(b: OnnxBuilder, node: op.DynamicConv) -> None:
    b.node("Conv", list(op.reads(node)), node.name, strides=list(node.stride), pads=onnx_pads(node.padding),
           dilations=list(node.dilation), group=node.groups)


def _twin_dynamic_linear(b: OnnxBuilder, node: op.DynamicLinear) -> None:
    columns = b.constant(f"{node.weight}.columns", np.ascontiguousarray(b.program.constant(node.weight).dequantize().T))
    product = node.name if node.bias is None else b.name(node.name, "product")
    b.node("MatMul", [node.input, columns], product)
    if node.bias is not None:
        b.node("Add", [product, node.bias], node.name)


FORMS: FormTable = {
    op.DynamicConv: OnnxForms(_dynamic_conv, _dynamic_conv, _twin_dynamic_conv),
    op.DynamicLinear: OnnxForms(_dynamic_linear, _dynamic_linear, _twin_dynamic_linear),
}
