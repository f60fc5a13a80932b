"""Two values joined number by number, as ONNX."""

import numpy as np
from onnx import TensorProto

from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program.ops.pairs import add_codes, is_fused
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder
from fewbits.writers.onnx.steps import (
    FormTable,
    OnnxForms,
    both,
    bounded,
    float_pair,
    quantize_onto,
    quantized_within,
    reshape_like,
    reshape_to,
    twin_bounded,
)


def _div(b: OnnxBuilder, node: op.Div) -> None:
    first, second = (b.dequantize(name, b.name(name, "real")) for name in (node.first, node.second))
    zero = b.constant(f"{node.name}.zero", np.array(0, np.float32))
    missing = b.node("Equal", [second, zero], b.name(node.name, "missing"))
    tiny = b.constant(f"{node.name}.no_divisor", np.array(constants.NO_DIVISOR, np.float32))
    divisor = b.node("Where", [missing, tiny, second], b.name(node.name, "divisor"))
    real = b.node("Div", [first, divisor], b.name(node.name, "real"))
    quantized_within(b, real, node.name, node.low, node.high)


def _max(b: OnnxBuilder, node: op.Max) -> None:
    float_pair(b, node, "Max")  # a quantizer keeps the order


def _min(b: OnnxBuilder, node: op.Min) -> None:
    float_pair(b, node, "Min")


def _sub(b: OnnxBuilder, node: op.Sub) -> None:
    float_pair(b, node, "Sub")


def _integer_add(b: OnnxBuilder, node: op.Add) -> None:
    if node.name in b.portable:
        return _tabulated_add(b, node)
    if not is_fused(b.program, node):
        return float_pair(b, node, "Sum")
    inputs = both(b, node) + b.grid(node.name, b.program.encoding(node.name))
    bounded(b, node, lambda out: b.node("QLinearAdd", inputs, out, domain=MICROSOFT))


def _qdq_add(b: OnnxBuilder, node: op.Add) -> None:
    if node.name in b.portable:
        return _tabulated_add(b, node)
    float_pair(b, node, "Add" if is_fused(b.program, node) else "Sum")


def _wide_mul(b: OnnxBuilder, node: op.Mul) -> None:
    """Codes less their zero points as floats, which hold their products; times the factor, and the zero point added
    (eq. 10)."""
    one, encoding = b.constant(f"{node.name}.one", np.array(1, np.float32)), b.program.encoding
    steps = [b.node("DequantizeLinear", [name, one, b.grid(name, encoding(name))[1]], b.name(name, "steps"))
             for name in (node.first, node.second)]
    factor = constants.product_multiplier(encoding(node.first), encoding(node.second), encoding(node.name))
    product = b.node("Mul", steps, b.name(node.name, "product"))
    real = b.node("Mul", [product, b.constant(f"{node.name}.factor", factor)], b.name(node.name, "real"))
    offset = b.constant(f"{node.name}.offset", encoding(node.name).zero_point.astype(np.float32))
    moved = b.node("Add", [real, offset], b.name(node.name, "moved"))
    bounds = [b.constant(f"{node.name}.{side}", np.array(bound, np.float32))
              for side, bound in (("low", node.low), ("high", node.high))]
    none = b.constant(f"{node.name}.none", np.zeros((), encoding(node.name).format.dtype))
    b.node("QuantizeLinear", [b.node("Clip", [moved, *bounds], b.name(node.name, "bounded")), one, none], node.name)


def _has_wide(b: OnnxBuilder, node: op.Mul) -> bool:
    return any(map(b.program.is_wide, (node.first, node.second, node.name)))


def _integer_mul(b: OnnxBuilder, node: op.Mul) -> None:
    if _has_wide(b, node):
        return _wide_mul(b, node)
    inputs = both(b, node) + b.grid(node.name, b.program.encoding(node.name))
    bounded(b, node, lambda out: b.node("QLinearMul", inputs, out, domain=MICROSOFT))


def _qdq_mul(b: OnnxBuilder, node: op.Mul) -> None:
    if _has_wide(b, node):
        return _wide_mul(b, node)
    float_pair(b, node, "Mul")


def _tabulated_add(b: OnnxBuilder, node: op.Add) -> None:
    """The sum of every code of the first with every code of the second, looked up."""
    first, second = (b.program.encoding(name).format for name in (node.first, node.second))
    count = second.high - second.low + 1
    codes = np.broadcast_arrays(*(np.arange(format.low, format.high + 1).astype(format.dtype).reshape(shape)
                                  for format, shape in ((first, (-1, 1)), (second, (1, -1)))))
    table = b.constant(f"{node.name}.sums", add_codes(b.program, node, *codes).reshape(-1))
    row, column = (b.node("Cast", [name], b.name(node.name, part), to=TensorProto.INT32)
                   for name, part in ((node.first, "row"), (node.second, "column")))
    each = b.constant(f"{node.name}.count", np.array(count, np.int32))
    start = b.node("Mul", [row, each], b.name(node.name, "start"))
    place = b.node("Add", [start, column], b.name(node.name, "place"))
    lowest = first.low * count + second.low
    if lowest:
        place = b.node("Sub", [place, b.constant(f"{node.name}.lowest", np.array(lowest, np.int32))],
                       b.name(node.name, "entry"))
    flat = reshape_to(b, place, (-1,), b.name(node.name, "flat"))
    found = b.node("GatherElements", [table, flat], b.name(node.name, "found"), axis=0)
    reshape_like(b, found, place, node.name, node.name)


def _twin_add(b: OnnxBuilder, node: op.Add) -> None:
    twin_bounded(b, node, lambda out: b.node("Add", [node.first, node.second], out))


def _twin_sub(b: OnnxBuilder, node: op.Sub) -> None:
    twin_bounded(b, node, lambda out: b.node("Sub", [node.first, node.second], out))


def _twin_mul(b: OnnxBuilder, node: op.Mul) -> None:
    twin_bounded(b, node, lambda out: b.node("Mul", [node.first, node.second], out))


def _twin_div(b: OnnxBuilder, node: op.Div) -> None:
    twin_bounded(b, node, lambda out: b.node("Div", [node.first, node.second], out))


def _twin_max(b: OnnxBuilder, node: op.Max) -> None:
    twin_bounded(b, node, lambda out: b.node("Max", [node.first, node.second], out))


def _twin_min(b: OnnxBuilder, node: op.Min) -> None:
    twin_bounded(b, node, lambda out: b.node("Min", [node.first, node.second], out))


def _choose(b: OnnxBuilder, node: op.Choose) -> None:
    """Both on the grid of the result, then the choice between their codes."""
    codes = []
    for name in (node.first, node.second):
        real = b.dequantize(name, b.name(name, "real"))
        codes.append(quantize_onto(b, real, node.name, b.name(node.name, "regridded")))
    bounded(b, node, lambda out: b.node("Where", [node.condition, *codes], out))


def _twin_choose(b: OnnxBuilder, node: op.Choose) -> None:
    twin_bounded(b, node, lambda out: b.node("Where", [node.condition, node.first, node.second], out))


FORMS: FormTable = {
    op.Choose: OnnxForms(_choose, _choose, _twin_choose),
    op.Div: OnnxForms(_div, _div, _twin_div),
    op.Max: OnnxForms(_max, _max, _twin_max),
    op.Min: OnnxForms(_min, _min, _twin_min),
    op.Add: OnnxForms(_integer_add, _qdq_add, _twin_add),
    op.Sub: OnnxForms(_sub, _sub, _twin_sub),
    op.Mul: OnnxForms(_integer_mul, _qdq_mul, _twin_mul),
}
