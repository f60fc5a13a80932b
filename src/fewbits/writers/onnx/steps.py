"""What the ONNX forms of several families are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.numerics.encoding import Quantized
from fewbits.program import ops as op
from fewbits.program.node import Margins, ProgramNode
from fewbits.writers.onnx.builder import OnnxBuilder, unsigned

Emit = Callable[[OnnxBuilder, Any], None]
"""Adds what a node is in ONNX."""


@dataclass(frozen=True)
class OnnxForms:
    """What an operator is in ONNX. integer: with operators on codes; qdq: a float operator between quantizers;
    twin: in the float network that the program stands for."""

    integer: Emit
    qdq: Emit
    twin: Emit


FormTable = Mapping[type[ProgramNode], OnnxForms]


def bounded(b: OnnxBuilder, node: Any, emit: Callable[[str], str]) -> None:
    """Emits a node that writes bytes, and a Clip behind it where its bounds are tighter than its type."""
    if b.needs_clip(node.name, node.low, node.high):
        b.clip(emit(b.name(node.name, "unbounded")), node.name, node.low, node.high)
    else:
        emit(node.name)


def onnx_pads(padding: Margins) -> list[int]:
    return [before for before, _ in padding] + [after for _, after in padding]


def quantize_onto(b: OnnxBuilder, real: str, name: str, out: str) -> str:
    """QuantizeLinear onto the grid of `name`, writing to `out`."""
    return b.node("QuantizeLinear", [real, *b.grid(name, b.program.encoding(name))], out)


def quantized_within(b: OnnxBuilder, real: str, name: str, low: int, high: int, unit: bool = False) -> None:
    """Numbers to the codes of `name`, and these within bounds. unit: numbers in steps of its grid.

    Bytes are bounded behind the quantizer; wider codes, for which there is no Clip, in front of it: a bound is a number
    that has a code of its own, so that what lies beyond becomes that code, as it does by the definition.
    """
    encoding = b.program.encoding(name)
    grid = b.grid(name, encoding)
    if unit:
        grid[0] = b.constant(f"{name}.unit", np.array(1, np.float32))
    if not b.needs_clip(name, low, high):
        b.node("QuantizeLinear", [real, *grid], name)
    elif encoding.format.dtype.itemsize == 1:
        b.clip(b.node("QuantizeLinear", [real, *grid], b.name(name, "unbounded")), name, low, high)
    else:
        ends = np.array([low, high], np.float32) - encoding.zero_point.astype(np.float32)
        bounds = [b.constant(f"{name}.{side}", np.array(end if unit else end * encoding.scale, np.float32))
                  for side, end in zip(("low", "high"), ends, strict=True)]
        b.node("QuantizeLinear", [b.node("Clip", [real, *bounds], b.name(name, "bounded")), *grid], name)


def reshape_to(b: OnnxBuilder, source: str, shape: tuple[int, ...], out: str) -> str:
    return b.node("Reshape", [source, b.constant(f"{out}.shape", np.array(shape, np.int64))], out)


def reshape_like(b: OnnxBuilder, source: str, like: str, value: str, out: str) -> str:
    """A reshape to the shape of the value `value`, which the tensor `like` has."""
    if b.program.values[value].free:
        return b.node("Reshape", [source, b.node("Shape", [like], b.name(value, "sizes"))], out)
    return reshape_to(b, source, tuple(-1 if s is None else s for s in b.program.values[value].shape), out)


def rows_back(b: OnnxBuilder, rows: str, source: str, value: str, out: str) -> str:
    """Rows [-1, O] in the shape of the value `value`: that of the tensor `source` but for its last axis."""
    shape = b.program.values[value].shape
    if not b.program.values[value].free:
        return reshape_to(b, rows, tuple(-1 if s is None else s for s in shape), out)
    sizes = b.node("Shape", [source], b.name(value, "sizes"), start=0, end=-1)
    width = b.constant(f"{value}.width", np.array([shape[-1] or 0], np.int64))
    return b.node("Reshape", [rows, b.node("Concat", [sizes, width], b.name(value, "whole"), axis=0)], out)


def looked_up(b: OnnxBuilder, name: str, codes: str, table: np.ndarray, out: str, held: str = "table") -> str:
    """Entries of a table [n], a constant of the name `held`, by codes shaped as the value `name`: Cast, flatten,
    GatherElements, reshape. Codes below 0 count from the table's end, as GatherElements counts them. Gather of single
    numbers takes four times as long."""
    index = b.node("Cast", [codes], b.name(name, "index"), to=TensorProto.INT32)
    flat = reshape_to(b, index, (-1,), b.name(name, "flat"))
    found = b.node("GatherElements", [b.constant(f"{name}.{held}", table), flat], b.name(name, "found"), axis=0)
    return reshape_like(b, found, codes, name, out)


def float_pair(b: OnnxBuilder, node: op.Add | op.Sub | op.Mul | op.Max | op.Min | op.MatMul, operator: str) -> None:
    reals = [b.dequantize(name, b.name(name, "real")) for name in (node.first, node.second)]
    real = b.node(operator, reals, b.name(node.name, "real"))
    quantized_within(b, real, node.name, node.low, node.high)


def both(b: OnnxBuilder, node: op.Add | op.Mul | op.MatMul) -> list[str]:
    """Codes, scale and zero point of both operands."""
    return [part for name in (node.first, node.second) for part in (name, *b.grid(name, b.program.encoding(name)))]


def conv_sums(b: OnnxBuilder, name: str, source: str, weight: Quantized, out: str, **attributes: Any) -> str:
    """int32 sums of products, weight zero points inside. ConvInteger takes one of these, and many are taken off by
    Σ (x − z_x)(w − z_w) = Σ (x − z_x) w − z_w Σ (x − z_x).

    Weights beside uint8 codes are uint8, too: ConvInteger has no fast kernel for int8 ones, which take 3 to 6 times as
    long."""
    x = b.program.encoding(source)
    zero, zeros, codes = b.grid(source, x)[1], weight.encoding.zero_point, weight.codes
    raised = 0
    if x.format.low >= 0 and codes.dtype == np.int8:
        codes, raised = unsigned(codes), 128
    held = b.constant(f"{name}.weight", codes)
    one_for_all = bool((zeros == zeros.flat[0]).all())
    own = int(zeros.flat[0]) if one_for_all else 0
    weight_zero = b.constant(f"{name}.weight.zero_point", np.array(own + raised).astype(codes.dtype))
    if one_for_all:
        return b.node("ConvInteger", [source, held, zero, weight_zero], out, **attributes)
    ones = b.constant(f"{name}.ones", np.ones_like(codes))
    products = b.node("ConvInteger", [source, held, zero, weight_zero], b.name(name, "products"), **attributes)
    plain = b.node("ConvInteger", [source, ones, zero], b.name(name, "plain"), **attributes)
    shaped = b.constant(f"{name}.zeros", zeros.astype(np.int32).reshape(1, -1, *[1] * (codes.ndim - 2)))
    return b.node("Sub", [products, b.node("Mul", [plain, shaped], b.name(name, "taken"))], out)


def scaled_sums(b: OnnxBuilder, name: str, source: str, weight: Quantized, bias: np.ndarray | None,
                scale: np.ndarray, out: str, **attributes: Any) -> str:
    """Sums of products, bias, and a product with per-position or per-channel scales: float32, exact."""
    sums = conv_sums(b, name, source, weight, b.name(name, "sums"), **attributes)
    if bias is not None:
        shaped = b.constant(f"{name}.bias", bias.reshape(1, -1, *[1] * (scale.ndim - 2)))
        sums = b.node("Add", [sums, shaped], b.name(name, "biased"))
    real = b.node("Cast", [sums], b.name(name, "cast"), to=TensorProto.FLOAT)
    return b.node("Mul", [real, b.constant(f"{name}.multiplier", scale)], out)


def qlinear_conv(b: OnnxBuilder, node: op.Conv | op.AveragePool, weight: Quantized,
                 bias: np.ndarray | None, attributes: dict[str, Any]) -> None:
    x, y = b.program.encoding(node.input), b.program.encoding(node.name)
    inputs = [node.input, *b.grid(node.input, x), *b.weight(node.name, weight), *b.grid(node.name, y)]
    if bias is not None:
        inputs.append(b.constant(f"{node.name}.bias", bias))
    bounded(b, node, lambda out: b.node("QLinearConv", inputs, out, **attributes))


def qdq_weight(b: OnnxBuilder, name: str, data: Quantized) -> str:
    axis: dict[str, Any] = {"axis": 0} if data.encoding.scale.ndim else {}
    return b.node("DequantizeLinear", b.weight(name, data), b.name(name, "weight.real"), **axis)


def twin_bounded(b: OnnxBuilder, node: Any, emit: Callable[[str], str]) -> None:
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
