"""Sums of products as ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder, output_name
from fewbits.writers.onnx.steps import (
    FormTable,
    OnnxForms,
    both,
    bounded,
    conv_sums,
    float_pair,
    onnx_pads,
    qdq_weight,
    qlinear_conv,
    quantize_onto,
    quantized_within,
    reshape_to,
    rows_back,
    scaled_sums,
    twin_bounded,
)


def _raw_sums(b: OnnxBuilder, node: op.Conv | op.Linear) -> None:
    """int32 sums of products and their bias, for a Threshold or Dequantize to read."""
    products = node.name if node.bias is None else b.name(node.name, "products")
    if isinstance(node, op.Conv):
        conv_sums(b, node.name, node.input, node.weight, products, **_conv_attributes(node))
    else:
        zero, weight_zero = b.grid(node.input, b.program.encoding(node.input))[1], b.weight(node.name, node.weight)[2]
        columns = b.constant(f"{node.name}.columns", b.weight_codes(node.name, node.weight.codes.T))
        b.node("MatMulInteger", [node.input, columns, zero, weight_zero], products)
    if node.bias is not None:
        rank = len(b.program.values[node.name].shape)
        shape = (-1, *[1] * (rank - 2)) if isinstance(node, op.Conv) else (-1,)
        b.node("Add", [products, b.constant(f"{node.name}.bias", node.bias.reshape(shape))], node.name)


def _conv_attributes(node: op.Conv) -> dict[str, Any]:
    return {"strides": list(node.stride), "pads": onnx_pads(node.padding),
            "dilations": list(node.dilation), "group": node.groups}


def _float_conv(b: OnnxBuilder, node: op.Conv) -> None:
    """A convolution whose accumulators are the model's output."""
    scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
    scaled_sums(b, node.name, node.input, node.weight, node.bias,
                scale.reshape(1, -1, *[1] * len(node.stride)), output_name(node.name), **_conv_attributes(node))


def _integer_conv(b: OnnxBuilder, node: op.Conv) -> None:
    if b.program.is_accumulator(node.name):
        return _float_conv(b, node) if node.name in b.program.outputs else _raw_sums(b, node)
    qlinear_conv(b, node, node.weight, node.bias, _conv_attributes(node))


def _integer_linear(b: OnnxBuilder, node: op.Linear) -> None:
    accumulates = b.program.is_accumulator(node.name)
    if accumulates and node.name not in b.program.outputs:
        return _raw_sums(b, node)
    bias = "" if node.bias is None else b.constant(f"{node.name}.bias", node.bias)

    def gemm(source: str, out: str) -> str:
        inputs = [source, *b.grid(node.input, b.program.encoding(node.input)),
                  *b.weight(node.name, node.weight), bias]
        if not accumulates:
            inputs += b.grid(node.name, b.program.encoding(node.name))
        while not inputs[-1]:
            inputs.pop()
        return b.node("QGemm", inputs, out, domain=MICROSOFT, transB=1)

    _as_matrix(b, node, node.input, gemm)


def _as_matrix(b: OnnxBuilder, node: op.Linear, source: str, gemm: Callable[[str, str], str]) -> None:
    """A matrix product over the last axis of any rank: reshape to rows, multiply, reshape back."""
    shape, accumulates = b.program.values[node.name].shape, b.program.is_accumulator(node.name)
    name = output_name(node.name) if accumulates else node.name
    needs_clip = not accumulates and b.needs_clip(name, node.low, node.high)
    flat, given = len(shape) != 2, source
    if flat:
        source = reshape_to(b, source, (-1, node.weight.codes.shape[1]), b.name(node.name, "rows"))
    product = gemm(source, b.name(node.name, "product") if flat or needs_clip else name)
    if flat:
        product = rows_back(b, product, given, node.name, b.name(node.name, "shaped") if needs_clip else name)
    if needs_clip:
        b.clip(product, name, node.low, node.high)


def _qdq_bias(b: OnnxBuilder, node: op.Conv | op.Linear) -> list[str]:
    if node.bias is None:
        return []
    scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
    axis: dict[str, Any] = {"axis": 0} if scale.ndim else {}
    parts = [b.constant(f"{node.name}.bias", node.bias), b.constant(f"{node.name}.bias.scale", scale)]
    return [b.node("DequantizeLinear", parts, b.name(node.name, "bias.real"), **axis)]


def _qdq_conv(b: OnnxBuilder, node: op.Conv) -> None:
    if b.program.is_accumulator(node.name):
        if node.name not in b.program.outputs:
            return _raw_sums(b, node)
        return _float_conv(b, node)  # a float Conv without a quantizer behind it would not be exact
    inputs = [b.dequantize(node.input, b.name(node.input, "real")), qdq_weight(b, node.name, node.weight),
              *_qdq_bias(b, node)]
    real = b.node("Conv", inputs, b.name(node.name, "real"), **_conv_attributes(node))
    quantized_within(b, real, node.name, node.low, node.high)


def _qdq_linear(b: OnnxBuilder, node: op.Linear) -> None:
    if b.program.is_accumulator(node.name) and node.name not in b.program.outputs:
        return _raw_sums(b, node)

    def gemm(source: str, out: str) -> str:
        grid = b.grid(node.input, b.program.encoding(node.input))
        real = b.node("DequantizeLinear", [source, *grid], b.name(node.input, "real"))
        inputs = [real, qdq_weight(b, node.name, node.weight), *_qdq_bias(b, node)]
        if b.program.is_accumulator(node.name):
            return b.node("Gemm", inputs, out, transB=1)
        return quantize_onto(b, b.node("Gemm", inputs, b.name(node.name, "real"), transB=1), node.name, out)

    _as_matrix(b, node, node.input, gemm)


def _wide_matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    """Sums of products, times the factor, to wider codes than QLinearMatMul has."""
    first, second, y = (b.program.encoding(name) for name in (node.first, node.second, node.name))
    zeros = [b.grid(name, b.program.encoding(name))[1] for name in (node.first, node.second)]
    sums = b.node("MatMulInteger", [node.first, node.second, *zeros], b.name(node.name, "sums"))
    real = b.node("Cast", [sums], b.name(node.name, "cast"), to=TensorProto.FLOAT)
    factor = b.constant(f"{node.name}.multiplier", constants.product_multiplier(first, second, y))
    steps = b.node("Mul", [real, factor], b.name(node.name, "steps"))
    quantized_within(b, steps, node.name, node.low, node.high, unit=True)


def _integer_matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    if b.program.is_wide(node.name):
        return _wide_matmul(b, node)
    inputs = both(b, node) + b.grid(node.name, b.program.encoding(node.name))
    bounded(b, node, lambda out: b.node("QLinearMatMul", inputs, out))


def _qdq_matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    if b.program.is_wide(node.name):
        return _wide_matmul(b, node)
    float_pair(b, node, "MatMul")


def _twin_weights(b: OnnxBuilder, node: op.Conv | op.Linear) -> list[str]:
    names = [b.constant(f"{node.name}.weight", node.weight.dequantize())]
    if node.bias is not None:
        scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
        names.append(b.constant(f"{node.name}.bias", node.bias.astype(np.float32) * scale))
    return names


def _twin_conv(b: OnnxBuilder, node: op.Conv) -> None:
    twin_bounded(b, node, lambda out: b.node(
        "Conv", [node.input, *_twin_weights(b, node)], out, strides=list(node.stride), pads=onnx_pads(node.padding),
        dilations=list(node.dilation), group=node.groups))


def _twin_linear(b: OnnxBuilder, node: op.Linear) -> None:
    weight, *bias = _twin_weights(b, node)
    if len(b.program.values[node.name].shape) == 2:
        twin_bounded(b, node, lambda out: b.node("Gemm", [node.input, weight, *bias], out, transB=1))
        return
    columns = b.constant(f"{node.name}.columns", node.weight.dequantize().T)

    def emit(out: str) -> str:
        product = b.node("MatMul", [node.input, columns], b.name(node.name, "product") if bias else out)
        return b.node("Add", [product, *bias], out) if bias else product

    twin_bounded(b, node, emit)


def _twin_matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    twin_bounded(b, node, lambda out: b.node("MatMul", [node.first, node.second], out))


FORMS: FormTable = {
    op.Conv: OnnxForms(_integer_conv, _qdq_conv, _twin_conv),
    op.Linear: OnnxForms(_integer_linear, _qdq_linear, _twin_linear),
    op.MatMul: OnnxForms(_integer_matmul, _qdq_matmul, _twin_matmul),
}
