"""Tables over all codes, and comparisons with thresholds, as ONNX."""

import numpy as np
from onnx import TensorProto

from fewbits.program import ops as op
from fewbits.program.unary import BY_WORD
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.float_functions import float_form, integer_float_form, qdq_float_form
from fewbits.writers.onnx.steps import FormTable, OnnxForms, looked_up


def _integer_table(b: OnnxBuilder, node: op.Table) -> None:
    form = float_form(b, node)
    _tabulated(b, node) if form is None else integer_float_form(b, node, form)


def _qdq_table(b: OnnxBuilder, node: op.Table) -> None:
    form = float_form(b, node)
    _tabulated(b, node) if form is None else qdq_float_form(b, node, form)


def _tabulated(b: OnnxBuilder, node: op.Table) -> None:
    rows, lowest = len(node.table), b.program.encoding(node.input).format.low
    codes = node.input
    if rows > 1 or lowest:
        codes = b.node("Cast", [codes], b.name(node.name, "code"), to=TensorProto.INT32)
        rank = len(b.program.values[node.input].shape)
        starts = node.table.shape[1] * np.arange(rows, dtype=np.int32) - np.int32(lowest)
        offsets = starts.reshape(-1, *[1] * (rank - 2)) if rows > 1 else starts
        codes = b.node("Add", [codes, b.constant(f"{node.name}.rows", offsets)], b.name(node.name, "entry"))
    looked_up(b, node.name, codes, node.table.reshape(-1), node.name)


def _threshold(b: OnnxBuilder, node: op.Threshold) -> None:
    """One comparison and one choice for each level after the lowest."""
    sums = b.program.values[node.input].encoding is not None
    dtype, shape = np.int32 if sums else np.float32, [1] * len(b.program.values[node.name].shape)
    shape[node.axis] = len(node.direction)
    x = node.input
    if (node.direction < 0).any():
        direction = b.constant(f"{node.name}.direction", node.direction.astype(dtype).reshape(shape))
        x = b.node("Mul", [x, direction], b.name(node.name, "directed"))
    chosen = b.constant(f"{node.name}.level0", node.levels[0])
    for place, column in enumerate(node.thresholds.T, 1):
        shape[node.axis] = len(column)
        limit = b.constant(f"{node.name}.threshold{place}", column.reshape(shape))
        reached = b.node("GreaterOrEqual", [x, limit], b.name(node.name, "reached"))
        out = node.name if place == len(node.levels) - 1 else b.name(node.name, "chosen")
        level = b.constant(f"{node.name}.level{place}", node.levels[place])
        chosen = b.node("Where", [reached, level, chosen], out)


def _twin_table(b: OnnxBuilder, node: op.Table) -> None:
    """The function itself, with ATen's defaults for its parameters, which a table does not keep: they cost no time.
    What has no defaults (a power, a number that is multiplied with) as one multiplication."""
    row = BY_WORD.get(node.function)
    if row is not None and {} in row.examples:
        b.unary(row.form(row.arguments({})), node.input, node.name)
    else:
        b.node("Mul", [node.input, b.constant(f"{node.name}.factor", np.array(0.5, np.float32))], node.name)


def _twin_threshold(b: OnnxBuilder, node: op.Threshold) -> None:
    """A clamp to the largest numbers, as a float network trained for such levels has one."""
    encoding = b.program.encoding(node.name)
    bounds = [b.constant(f"{node.name}.{side}", encoding.decode(level)) for side, level in
              (("low", node.levels[0]), ("high", node.levels[-1]))]
    b.node("Clip", [node.input, *bounds], node.name)


FORMS: FormTable = {
    op.Table: OnnxForms(_integer_table, _qdq_table, _twin_table),
    op.Threshold: OnnxForms(_threshold, _threshold, _twin_threshold),
}
