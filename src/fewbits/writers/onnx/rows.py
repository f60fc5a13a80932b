"""Operators on whole rows, as ONNX: the same operators in both forms."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fewbits.numerics.encoding import Encoding
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import FormTable, OnnxForms, looked_up, quantized_within, reshape_to


def _softmax(b: OnnxBuilder, node: op.Softmax) -> None:
    """Exponentials looked up as float32, which holds them, and added exactly; hidden ones times 0."""
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    axis = b.constant(f"{node.name}.axis", np.array([-1], np.int64))
    x, codes = b.program.encoding(node.input), node.input
    dtype = np.dtype(np.int32) if b.program.is_wide(codes) else x.format.dtype
    if dtype != x.format.dtype:  # ONNX Runtime takes no differences of int16
        codes = step("Cast", [codes], "int32", to=TensorProto.INT32)
    lowest = b.constant(f"{node.name}.lowest", np.array(x.format.low, dtype))
    mask = node.seen if node.mask is None else b.constant(f"{node.name}.mask", node.mask.astype(bool))
    hides_rows = node.seen is not None or (node.mask is not None and not (node.mask != 0).any(-1).all())
    if hides_rows and node.empty != "zero":
        numbers = step("Cast", [str(mask)], "seen_codes", to=TensorProto.INT32)
        any_seen = step("Cast", [step("ReduceMax", [numbers, axis], "any_code", keepdims=1)], "any",
                        to=TensorProto.BOOL)
        mask = step("Or", [str(mask), step("Not", [any_seen], "none")], "shown")
        if node.empty == "uniform":
            codes = step("Where", [any_seen, codes, lowest], "kept_codes")
    seen = codes if mask is None else step("Where", [mask, codes, lowest], "seen")
    steps = step("Sub", [step("ReduceMax", [seen, axis], "largest", keepdims=1), codes], "steps")
    table = constants.exponentials(x, node.factor)[:-1].astype(np.float32)
    powers = looked_up(b, node.name, steps, table, b.name(node.name, "powers"))
    if mask is not None:
        powers = step("Mul", [powers, step("Cast", [mask], "weights", to=TensorProto.FLOAT)], "seen_powers")
    total = _summed_powers(b, node, powers)
    if hides_rows and node.empty == "zero":
        total = step("Max", [total, b.constant(f"{node.name}.one", np.array(1, np.float32))], "total_or_one")
    share = step("Div", [powers, total], "share")
    quantized_within(b, share, node.name, node.low, node.high)


_ADDED_EXACTLY = 2 ** (24 - constants.SOFTMAX_BITS)
"""How many numbers of at most 2^20 float32 adds exactly, in any order."""


def _summed_powers(b: OnnxBuilder, node: op.Softmax, powers: str) -> str:
    """The sum of each row, rounded once to float32: added in float64, which takes five times as long as float32; rows
    that fall into whole runs of a dozen numbers or so by float32 sums of these first."""
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    *outer, length = (-1 if size is None else size for size in b.program.values[node.name].shape)
    axis = f"{node.name}.axis"
    if length <= _ADDED_EXACTLY:
        return step("ReduceSum", [powers, axis], "total", keepdims=1)
    run = max(size for size in range(1, _ADDED_EXACTLY + 1) if length % size == 0)
    if run >= _ADDED_EXACTLY - 4 and not b.program.values[node.name].free:
        runs = reshape_to(b, powers, (*outer, length // run, run), b.name(node.name, "runs"))
        powers = step("ReduceSum", [runs, axis], "run_totals", keepdims=0)
    wide = step("Cast", [powers], "wide", to=TensorProto.DOUBLE)
    return step("Cast", [step("ReduceSum", [wide, axis], "wide_total", keepdims=1)], "total", to=TensorProto.FLOAT)


def _log_softmax(b: OnnxBuilder, node: op.LogSoftmax) -> None:
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    def number(suffix: str, value: int) -> str:
        return b.constant(f"{node.name}.{suffix}", np.array(value, np.int32))

    x, axis = b.program.encoding(node.input), b.constant(f"{node.name}.axis", np.array([-1], np.int64))
    whole, part = (b.constant(f"{node.name}.{suffix}", table)
                   for suffix, table in zip(("whole_log", "part_log"), constants.logarithms(), strict=True))
    steps = step("Sub", [step("ReduceMax", [node.input, axis], "largest", keepdims=1), node.input], "steps")
    table = constants.exponentials(x, 1.0)[:-1].astype(np.float32)
    powers = step("Cast", [looked_up(b, node.name, steps, table, b.name(node.name, "powers"))], "wide",
                  to=TensorProto.DOUBLE)
    total = step("Cast", [step("ReduceSum", [powers, axis], "wide_total", keepdims=1)], "total", to=TensorProto.INT32)
    unit = number("unit", 2**constants.SOFTMAX_BITS)
    high = step("Div", [total, unit], "high")
    rest = step("Sub", [step("Div", [total, high], "mantissa"), unit], "rest")
    place = step("Div", [rest, number("width", 2**10)], "place")
    logarithm = step("Add", [step("Gather", [whole, high], "high_log", axis=0),
                             step("Gather", [part, place], "low_log", axis=0)], "log")
    below = looked_up(b, node.name, steps, constants.steps_below(x), b.name(node.name, "below"), "fall")
    fine = step("Neg", [step("Add", [below, logarithm], "sum")], "fine")
    real = step("Mul", [step("Cast", [fine], "cast", to=TensorProto.FLOAT),
                        b.constant(f"{node.name}.fine_step", np.array(2.0**-constants.LOG_BITS, np.float32))], "real")
    quantized_within(b, real, node.name, node.low, node.high)


_WHOLE_IN_FLOAT = 2**24
"""Up to which all integers are float32 numbers: sums of integers are exact in any order whose parts all stay below."""


def _layer_norm(b: OnnxBuilder, node: op.LayerNorm) -> None:
    """Sums of integers that float32 holds, or float64 where they are too large; each row's variance in int64.

    Codes are measured from 0, or where their squares are too many for that, from the middle of their type; neither
    moves what is measured from their mean."""
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    def number(suffix: str, value: np.ndarray) -> str:
        return b.constant(f"{node.name}.{suffix}", value)

    axes = tuple(range(-node.axes, 0))
    axis, length = number("axis", np.array(axes, np.int64)), b.program.count(node.input, axes)
    x = b.program.encoding(node.input)
    from_mean = node.about == "mean"
    origin = 0 if from_mean else int(x.zero_point)
    if from_mean and length * _farthest(x, 0)**2 > _WHOLE_IN_FLOAT:
        origin = (x.format.low + x.format.high + 1) // 2
    farthest = _farthest(x, origin)
    real = np.dtype(np.float32 if 2 * length * farthest < _WHOLE_IN_FLOAT else np.float64)
    codes = step("Cast", [node.input], "codes", to=helper.np_dtype_to_tensor_dtype(real))
    if origin:
        codes = step("Sub", [codes, number("origin", np.array(origin, real))], "numbers")
    squares = step("Mul", [codes, codes], "square")
    if real == np.float32 and length * farthest**2 > _WHOLE_IN_FLOAT:
        squares = step("Cast", [squares], "wide_square", to=TensorProto.DOUBLE)
    squares = step("Cast", [step("ReduceSum", [squares, axis], "squares", keepdims=0)], "square_count",
                   to=TensorProto.INT64)
    spread = step("Mul", [squares, number("length", np.array(length, np.int64))], "scaled_squares")
    centred = step("Mul", [codes, number("length_real", np.array(length, real))], "scaled")
    if from_mean:
        total = step("ReduceSum", [codes, axis], "total", keepdims=0)
        count = step("Cast", [total], "total_count", to=TensorProto.INT64)
        spread = step("Sub", [spread, step("Mul", [count, count], "total_square")], "spread")
        centred = step("Sub", [centred, step("Unsqueeze", [total, axis], "row_total")], "centred")
    if real == np.float64:
        centred = step("Cast", [centred], "centred_real", to=TensorProto.FLOAT)
    epsilon = number("epsilon", np.array(constants.integer_epsilon(x, node.epsilon, length)))
    variance = step("Add", [step("Cast", [spread], "spread_real", to=TensorProto.FLOAT), epsilon], "variance")
    deviation = step("Unsqueeze", [step("Sqrt", [variance], "root"), axis], "deviation")
    normal = step("Div", [centred, deviation], "normal")
    gained = step("Mul", [normal, number("gain", node.gain)], "gained")
    shifted = step("Add", [gained, number("shift", node.shift)], "real")
    quantized_within(b, shifted, node.name, node.low, node.high)


def _farthest(x: Encoding, origin: int) -> int:
    """The largest distance of a code from the origin."""
    return max(abs(x.format.low - origin), abs(x.format.high - origin))


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
