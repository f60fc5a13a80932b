"""Operators on whole rows, as ONNX: the same operators in both forms."""

from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import FormTable, OnnxForms, bounded, quantize_onto


def _softmax(b: OnnxBuilder, node: op.Softmax) -> None:
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    axis = b.constant(f"{node.name}.axis", np.array([-1], np.int64))
    codes = seen = step("Cast", [node.input], "codes", to=TensorProto.INT32)
    lowest = b.program.encoding(node.input).format.low
    unseen = lowest - 1
    mask = None if node.mask is None else b.constant(f"{node.name}.mask", node.mask.astype(bool))
    hides_rows = node.seen is not None or (node.mask is not None and not (node.mask != 0).any(-1).all())
    if node.seen is not None:
        mask = node.seen
    if hides_rows and node.empty != "zero":
        numbers = step("Cast", [str(mask)], "seen_codes", to=TensorProto.INT32)
        any_seen = step("Cast", [step("ReduceMax", [numbers, axis], "any_code", keepdims=1)], "any",
                        to=TensorProto.BOOL)
        mask = step("Or", [str(mask), step("Not", [any_seen], "none")], "shown")
        if node.empty == "uniform":
            codes = seen = step("Where", [any_seen, codes, b.constant(f"{node.name}.same", np.array(lowest, np.int32))],
                                "kept_codes")
    if mask is not None:
        seen = step("Where", [mask, codes, b.constant(f"{node.name}.unseen", np.array(unseen, np.int32))], "seen")
    steps = step("Sub", [step("ReduceMax", [seen, axis], "largest", keepdims=1), codes], "steps")
    if mask is not None:
        steps = step("Where", [mask, steps, b.constant(f"{node.name}.masked", np.array(256, np.int32))], "kept")
    table = b.constant(f"{node.name}.exp", constants.exponentials(b.program.encoding(node.input), node.factor))
    powers = step("Gather", [table, steps], "powers", axis=0)
    total = step("ReduceSum", [powers, axis], "total", keepdims=1)
    if hides_rows and node.empty == "zero":
        total = step("Max", [total, b.constant(f"{node.name}.one", np.array(1, np.int32))], "total_or_one")
    parts = [step("Cast", [part], "part", to=TensorProto.FLOAT) for part in (powers, total)]
    share = step("Div", parts, "share")
    bounded(b, node, lambda out: quantize_onto(b, share, node.name, out))


def _log_softmax(b: OnnxBuilder, node: op.LogSoftmax) -> None:
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    def number(suffix: str, value: int) -> str:
        return b.constant(f"{node.name}.{suffix}", np.array(value, np.int32))

    x, axis = b.program.encoding(node.input), b.constant(f"{node.name}.axis", np.array([-1], np.int64))
    whole, part = (b.constant(f"{node.name}.{suffix}", table)
                   for suffix, table in zip(("whole_log", "part_log"), constants.logarithms(), strict=True))
    codes = step("Cast", [node.input], "codes", to=TensorProto.INT32)
    steps = step("Sub", [step("ReduceMax", [codes, axis], "largest", keepdims=1), codes], "steps")
    powers = step("Gather", [b.constant(f"{node.name}.exp", constants.exponentials(x, 1.0)), steps], "powers", axis=0)
    total, unit = step("ReduceSum", [powers, axis], "total", keepdims=1), number("unit", 2**constants.SOFTMAX_BITS)
    high = step("Div", [total, unit], "high")
    rest = step("Sub", [step("Div", [total, high], "mantissa"), unit], "rest")
    place = step("Div", [rest, number("width", 2**10)], "place")
    logarithm = step("Add", [step("Gather", [whole, high], "high_log", axis=0),
                             step("Gather", [part, place], "low_log", axis=0)], "log")
    below = step("Gather", [b.constant(f"{node.name}.fall", constants.steps_below(x)), steps], "below", axis=0)
    fine = step("Neg", [step("Add", [below, logarithm], "sum")], "fine")
    real = step("Mul", [step("Cast", [fine], "cast", to=TensorProto.FLOAT),
                        b.constant(f"{node.name}.fine_step", np.array(2.0**-constants.LOG_BITS, np.float32))], "real")
    bounded(b, node, lambda out: quantize_onto(b, real, node.name, out))


def _layer_norm(b: OnnxBuilder, node: op.LayerNorm) -> None:
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    axes = tuple(range(-node.axes, 0))
    axis, length = b.constant(f"{node.name}.axis", np.array(axes, np.int64)), b.program.count(node.input, axes)
    codes = step("Cast", [node.input], "codes", to=TensorProto.INT64)
    if node.about == "zero":
        zero = np.array(int(b.program.encoding(node.input).zero_point), np.int64)
        codes = step("Sub", [codes, b.constant(f"{node.name}.zero", zero)], "numbers")
    scaled = step("Mul", [codes, b.constant(f"{node.name}.length", np.array(length, np.int64))], "scaled")
    total = step("ReduceSum", [codes, axis], "total", keepdims=1) if node.about == "mean" else ""
    squares = step("ReduceSum", [step("Mul", [codes, codes], "square"), axis], "squares", keepdims=1)
    spread = step("Mul", [squares, f"{node.name}.length"], "scaled_squares")
    if total:
        spread = step("Sub", [spread, step("Mul", [total, total], "total_square")], "spread")
    epsilon = constants.integer_epsilon(b.program.encoding(node.input), node.epsilon, length)
    variance = step("Add", [step("Cast", [spread], "spread_real", to=TensorProto.FLOAT),
                            b.constant(f"{node.name}.epsilon", np.array(epsilon))], "variance")
    scaled = step("Sub", [scaled, total], "centred") if total else scaled
    centred = step("Cast", [scaled], "centred_real", to=TensorProto.FLOAT)
    normal = step("Div", [centred, step("Sqrt", [variance], "deviation")], "normal")
    gained = step("Mul", [normal, b.constant(f"{node.name}.gain", node.gain)], "gained")
    real = step("Add", [gained, b.constant(f"{node.name}.shift", node.shift)], "real")
    bounded(b, node, lambda out: quantize_onto(b, real, node.name, out))


def _embedding(b: OnnxBuilder, node: op.Embedding) -> None:
    b.node("Gather", [b.constant(f"{node.name}.table", node.table.codes), node.input], node.name, axis=0)


def _twin_softmax(b: OnnxBuilder, node: op.Softmax) -> None:
    source = node.input
    if node.mask is not None or node.seen is not None:
        mask = node.seen if node.mask is None else b.constant(f"{node.name}.mask", node.mask.astype(bool))
        parts = [str(mask), source,
                 b.constant(f"{node.name}.unseen", np.array(-1e30, np.float32))]
        source = b.node("Where", parts, b.name(node.name, "seen"))
    b.node("Softmax", [source], node.name, axis=-1)


def _twin_log_softmax(b: OnnxBuilder, node: op.LogSoftmax) -> None:
    b.node("LogSoftmax", [node.input], node.name, axis=-1)


def _twin_layer_norm(b: OnnxBuilder, node: op.LayerNorm) -> None:
    """With gains per channel, as a group norm has them, these are a product and a sum behind it."""
    gain, shift = b.constant(f"{node.name}.gain", node.gain), b.constant(f"{node.name}.shift", node.shift)
    if node.about == "zero":
        return _twin_rms_norm(b, node, gain)
    sizes = [size for size in b.program.values[node.input].shape[-node.axes:] if size is not None]
    if node.gain.shape == tuple(sizes):
        b.node("LayerNormalization", [node.input, gain, shift], node.name, axis=-node.axes, epsilon=node.epsilon)
        return
    ones = b.constant(f"{node.name}.ones", np.ones(sizes, np.float32))
    normal = b.node("LayerNormalization", [node.input, ones], b.name(node.name, "normal"), axis=-node.axes,
                    epsilon=node.epsilon)
    b.node("Add", [b.node("Mul", [normal, gain], b.name(node.name, "gained")), shift], node.name)


def _twin_rms_norm(b: OnnxBuilder, node: op.LayerNorm, gain: str) -> None:
    def step(operator: str, inputs: list[str]) -> str:
        return b.node(operator, inputs, b.name(node.name, operator.lower()))

    axes = b.constant(f"{node.name}.axes", np.arange(-node.axes, 0))
    mean = step("ReduceMean", [step("Mul", [node.input, node.input]), axes])
    epsilon = b.constant(f"{node.name}.epsilon", np.array(node.epsilon, np.float32))
    b.node("Mul", [step("Div", [node.input, step("Sqrt", [step("Add", [mean, epsilon])])]), gain], node.name)


def _twin_embedding(b: OnnxBuilder, node: op.Embedding) -> None:
    b.node("Gather", [b.constant(f"{node.name}.table", node.table.dequantize()), node.input], node.name, axis=0)


FORMS: FormTable = {
    op.Embedding: OnnxForms(_embedding, _embedding, _twin_embedding),
    op.Softmax: OnnxForms(_softmax, _softmax, _twin_softmax),
    op.LogSoftmax: OnnxForms(_log_softmax, _log_softmax, _twin_log_softmax),
    op.LayerNorm: OnnxForms(_layer_norm, _layer_norm, _twin_layer_norm),
}
