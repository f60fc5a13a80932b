"""A Program as ONNX: with integer operators, or as a float graph between quantizers (QDQ).

Both forms are chosen so that ONNX Runtime computes the Program's codes: the integer form at every
optimisation level, QDQ where its quantizers are fused (the default level). Why each operator takes the
form it takes is in docs/numerics.md, "What engines compute".
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np
from onnx import TensorProto

from fewbits.errors import VerificationError
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.options import options_checked
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program.ops import Margins, Node
from fewbits.program.ops.pairs import add_codes
from fewbits.program.program import Program
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder
from fewbits.writers.onnx.decode import emit_dequantize, only_inside
from fewbits.writers.onnx.dynamic import emit_dynamic_conv, emit_dynamic_linear
from fewbits.writers.onnx.floats import emit_float_call, emit_float_constant

Form = Literal["integer", "qdq"]

_ELEMENT = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8}


@options_checked
def onnx_bytes(program: Program, form: Form = "integer", every_code: bool = False, *,
               portable: Collection[str] = (), metadata: Mapping[str, str] | None = None) -> bytes:
    """The program as a serialized ONNX model.

    Inputs bear the program's input names and are float32; outputs are the model's, float32, named after
    the program's output values. every_code: a debug copy that also returns every value that is no accumulator, codes
    or floats, under its own name; but for constants that stand in their DequantizeLinear. portable: names of nodes that
    are written so that every x86-64 computes them alike (engines/exactness.py): weights as uint8 with zero point 128,
    sums of two tensors as a table. metadata: what the file says of itself. Raises VerificationError for
    a profile whose arithmetic ONNX does not have, or a float call that it does not.
    """
    if program.profile.engine != "onnxruntime":
        raise VerificationError(f"profile {program.profile.name} rounds in integers as no ONNX operator does: lower "
                                "with profile onnxruntime, onnxruntime-portable or tensorrt to export")
    builder = OnnxBuilder(program, portable)
    # A value that is an output gives its own name to the dequantized tensor; codes keep `<name>` inside.
    emitters = _INTEGER if form == "integer" else _QDQ
    hidden = {node.name for node in program.nodes if isinstance(node, op.Constant) and only_inside(program, node.name)}
    nodes = [node for node in program.nodes if node.name not in hidden]
    for node in nodes:
        emitters[type(node)](builder, node)
    outputs: dict[str, int] = {}
    shapes: dict[str, str] = {}
    for name in program.outputs:
        real = output_name(name)
        if program.is_float(name):
            builder.node("Identity", [name], real)
        elif not program.is_accumulator(name):
            builder.dequantize(name, real)
        outputs[real] = TensorProto.FLOAT
        shapes[real] = name
    if every_code:
        for node in nodes:
            if program.is_float(node.name):
                outputs[node.name] = TensorProto.FLOAT
            elif not program.is_accumulator(node.name):
                outputs[node.name] = _ELEMENT[program.encoding(node.name).format.dtype]
    return builder.model(outputs, shapes, metadata)


def output_name(value: str) -> str:
    """Name of the float32 output that holds a program's value."""
    return f"{value}.float"


# ------------------------------------------------------------------------------- shared emitters


def _bounded(b: OnnxBuilder, node: Any, emit: Callable[[str], str]) -> None:
    """Emits a node that writes codes, and a Clip behind it where its bounds are tighter than its type."""
    if b.needs_clip(node.name, node.low, node.high):
        b.clip(emit(b.name(node.name, "unbounded")), node.name, node.low, node.high)
    else:
        emit(node.name)


def onnx_pads(padding: Margins) -> list[int]:
    return [before for before, _ in padding] + [after for _, after in padding]


def _quantize(b: OnnxBuilder, node: op.Quantize) -> None:
    source = node.input
    if source not in b.program.inputs:
        # Behind an island: between a DequantizeLinear and this quantizer ONNX Runtime would make integers of a call
        # that is to stay float (and of its weights); a sum of one number it leaves alone.
        source = b.node("Sum", [source], b.name(node.name, "kept"))
    format = b.program.encoding(node.name).format
    if b.needs_clip(node.name, format.low, format.high):  # QuantizeLinear knows only the bounds of whole bytes
        b.clip(_quantize_onto(b, source, node.name, b.name(node.name, "unbounded")), node.name, format.low, format.high)
    else:
        b.quantize(source, node.name)


def _constant(b: OnnxBuilder, node: op.Constant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data.codes)], node.name)


def _quantize_onto(b: OnnxBuilder, real: str, name: str, out: str) -> str:
    """QuantizeLinear onto the grid of `name`, writing to `out`."""
    return b.node("QuantizeLinear", [real, *b.grid(name, b.program.encoding(name))], out)


def emit_reshape(b: OnnxBuilder, node: op.Reshape) -> None:
    _reshape_to(b, node.input, node.shape, node.name)


def _reshape_to(b: OnnxBuilder, source: str, shape: tuple[int, ...], out: str) -> str:
    return b.node("Reshape", [source, b.constant(f"{out}.shape", np.array(shape, np.int64))], out)


def emit_transpose(b: OnnxBuilder, node: op.Transpose) -> None:
    b.node("Transpose", [node.input], node.name, perm=list(node.permutation))


def emit_slice(b: OnnxBuilder, node: op.Slice) -> None:
    arguments = [b.constant(f"{node.name}.{part}", np.array([value], np.int64)) for part, value in
                 (("start", node.start), ("stop", node.stop), ("axis", node.axis), ("step", node.step))]
    b.node("Slice", [node.input, *arguments], node.name)


def _pad(b: OnnxBuilder, node: op.Pad) -> None:
    before, after = zip(*node.margins, strict=True)
    encoding = b.program.values[node.input].encoding
    zero = np.array(0, np.float32) if encoding is None else encoding.zero_point.astype(encoding.format.dtype)
    b.node("Pad", [node.input, b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64)),
                   b.constant(f"{node.name}.zero", zero)], node.name)


def emit_max_pool(b: OnnxBuilder, node: op.MaxPool) -> None:
    # Without padding of its own the pool says VALID: ONNX Runtime would otherwise merge a Pad in front into
    # it, and then refuse margins as large as the kernel.
    padded = any(map(sum, node.padding))
    padding: dict[str, Any] = {"pads": onnx_pads(node.padding)} if padded else {"auto_pad": "VALID"}
    b.node("MaxPool", [node.input], node.name, kernel_shape=list(node.kernel), strides=list(node.stride),
           dilations=list(node.dilation), **padding)


def _float_pair(b: OnnxBuilder, node: op.Add | op.Mul | op.Larger | op.MatMul, operator: str) -> None:
    reals = [b.dequantize(name, b.name(name, "real")) for name in (node.first, node.second)]
    real = b.node(operator, reals, b.name(node.name, "real"))
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _quotient(b: OnnxBuilder, node: op.Quotient) -> None:
    first, second = (b.dequantize(name, b.name(name, "real")) for name in (node.first, node.second))
    zero = b.constant(f"{node.name}.zero", np.array(0, np.float32))
    missing = b.node("Equal", [second, zero], b.name(node.name, "missing"))
    tiny = b.constant(f"{node.name}.no_divisor", np.array(constants.NO_DIVISOR, np.float32))
    divisor = b.node("Where", [missing, tiny, second], b.name(node.name, "divisor"))
    real = b.node("Div", [first, divisor], b.name(node.name, "real"))
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _larger(b: OnnxBuilder, node: op.Larger) -> None:
    _float_pair(b, node, "Min" if node.least else "Max")  # a quantizer keeps the order


def emit_gather(b: OnnxBuilder, node: op.Pick) -> None:
    indices = b.constant(f"{node.name}.indices", np.array(node.indices, np.int64))
    b.node("Gather", [node.input, indices], node.name, axis=node.axis)


def _embedding(b: OnnxBuilder, node: op.Embedding) -> None:
    b.node("Gather", [b.constant(f"{node.name}.table", node.table.codes), node.input], node.name, axis=0)


def _table(b: OnnxBuilder, node: op.Table) -> None:
    """Cast, flatten, GatherElements, reshape: four times as fast as Gather in ONNX Runtime."""
    index = b.node("Cast", [node.input], b.name(node.name, "index"), to=TensorProto.INT32)
    rows, lowest = len(node.table), b.program.encoding(node.input).format.low
    if rows > 1 or lowest:
        rank = len(b.program.values[node.input].shape)
        starts = node.table.shape[1] * np.arange(rows, dtype=np.int32) - np.int32(lowest)
        offsets = starts.reshape(-1, *[1] * (rank - 2)) if rows > 1 else starts
        index = b.node("Add", [index, b.constant(f"{node.name}.rows", offsets)], b.name(node.name, "entry"))
    index = _reshape_to(b, index, (-1,), b.name(node.name, "flat"))
    table = b.constant(f"{node.name}.table", node.table.reshape(-1))
    found = b.node("GatherElements", [table, index], b.name(node.name, "found"), axis=0)
    _reshape_to(b, found, tuple(-1 if s is None else s for s in b.program.values[node.name].shape), node.name)


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


def _raw_sums(b: OnnxBuilder, node: op.Conv | op.Linear) -> None:
    """int32 sums of products and their bias, for a Threshold or Dequantize to read."""
    products = node.name if node.bias is None else b.name(node.name, "products")
    if isinstance(node, op.Conv):
        _conv_sums(b, node.name, node.input, node.weight, products, **_conv_attributes(node))
    else:
        zero, weight_zero = b.grid(node.input, b.program.encoding(node.input))[1], b.weight(node.name, node.weight)[2]
        columns = b.constant(f"{node.name}.columns", b.weight_codes(node.name, node.weight.codes.T))
        b.node("MatMulInteger", [node.input, columns, zero, weight_zero], products)
    if node.bias is not None:
        rank = len(b.program.values[node.name].shape)
        shape = (-1, *[1] * (rank - 2)) if isinstance(node, op.Conv) else (-1,)
        b.node("Add", [products, b.constant(f"{node.name}.bias", node.bias.reshape(shape))], node.name)


def _softmax(b: OnnxBuilder, node: op.Softmax) -> None:
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    axis = b.constant(f"{node.name}.axis", np.array([-1], np.int64))
    codes = seen = step("Cast", [node.input], "codes", to=TensorProto.INT32)
    unseen = b.program.encoding(node.input).format.low - 1
    mask = None if node.mask is None else b.constant(f"{node.name}.mask", node.mask.astype(bool))
    if mask is not None:
        seen = step("Where", [mask, codes, b.constant(f"{node.name}.unseen", np.array(unseen, np.int32))], "seen")
    steps = step("Sub", [step("ReduceMax", [seen, axis], "largest", keepdims=1), codes], "steps")
    if mask is not None:
        steps = step("Where", [mask, steps, b.constant(f"{node.name}.masked", np.array(256, np.int32))], "kept")
    table = b.constant(f"{node.name}.exp", constants.exponentials(b.program.encoding(node.input), node.factor))
    powers = step("Gather", [table, steps], "powers", axis=0)
    total = step("ReduceSum", [powers, axis], "total", keepdims=1)
    parts = [step("Cast", [part], "part", to=TensorProto.FLOAT) for part in (powers, total)]
    share = step("Div", parts, "share")
    _bounded(b, node, lambda out: _quantize_onto(b, share, node.name, out))


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
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _layer_norm(b: OnnxBuilder, node: op.LayerNorm) -> None:
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    axes = tuple(range(-node.axes, 0))
    axis, length = b.constant(f"{node.name}.axis", np.array(axes, np.int64)), b.program.count(node.input, axes)
    codes = step("Cast", [node.input], "codes", to=TensorProto.INT64)
    scaled = step("Mul", [codes, b.constant(f"{node.name}.length", np.array(length, np.int64))], "scaled")
    total = step("ReduceSum", [codes, axis], "total", keepdims=1)
    squares = step("ReduceSum", [step("Mul", [codes, codes], "square"), axis], "squares", keepdims=1)
    spread = step("Sub", [step("Mul", [squares, f"{node.name}.length"], "scaled_squares"),
                          step("Mul", [total, total], "total_square")], "spread")
    epsilon = constants.integer_epsilon(b.program.encoding(node.input), node.epsilon, length)
    variance = step("Add", [step("Cast", [spread], "spread_real", to=TensorProto.FLOAT),
                            b.constant(f"{node.name}.epsilon", np.array(epsilon))], "variance")
    centred = step("Cast", [step("Sub", [scaled, total], "centred")], "centred_real", to=TensorProto.FLOAT)
    normal = step("Div", [centred, step("Sqrt", [variance], "deviation")], "normal")
    gained = step("Mul", [normal, b.constant(f"{node.name}.gain", node.gain)], "gained")
    real = step("Add", [gained, b.constant(f"{node.name}.shift", node.shift)], "real")
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _adds_equal_shapes(b: OnnxBuilder, node: op.Add) -> bool:
    return b.program.values[node.first].shape == b.program.values[node.second].shape


def _conv_sums(b: OnnxBuilder, name: str, source: str, weight: Quantized, out: str, **attributes: Any) -> str:
    """int32 sums of products, weight zero points inside. ConvInteger takes one of these, and many are taken off by
    Σ (x − z_x)(w − z_w) = Σ (x − z_x) w − z_w Σ (x − z_x)."""
    zero = b.grid(source, b.program.encoding(source))[1]
    codes, _, weight_zero = b.weight(name, weight)
    zeros = weight.encoding.zero_point
    if (zeros == zeros.flat[0]).all():
        one = weight_zero if zeros.size == 1 else b.constant(
            f"{name}.weight.zero", zeros.reshape(-1)[0].astype(weight.codes.dtype))
        return b.node("ConvInteger", [source, codes, zero, one], out, **attributes)
    ones = b.constant(f"{name}.ones", np.ones_like(weight.codes))
    products = b.node("ConvInteger", [source, codes, zero], b.name(name, "products"), **attributes)
    plain = b.node("ConvInteger", [source, ones, zero], b.name(name, "plain"), **attributes)
    shaped = b.constant(f"{name}.zeros", zeros.astype(np.int32).reshape(1, -1, *[1] * (weight.codes.ndim - 2)))
    return b.node("Sub", [products, b.node("Mul", [plain, shaped], b.name(name, "taken"))], out)


def _scaled_sums(b: OnnxBuilder, name: str, source: str, weight: Quantized, bias: np.ndarray | None,
                 scale: np.ndarray, out: str, **attributes: Any) -> str:
    """Sums of products, bias, and a product with per-position or per-channel scales: float32, exact."""
    sums = _conv_sums(b, name, source, weight, b.name(name, "sums"), **attributes)
    if bias is not None:
        shaped = b.constant(f"{name}.bias", bias.reshape(1, -1, *[1] * (scale.ndim - 2)))
        sums = b.node("Add", [sums, shaped], b.name(name, "biased"))
    real = b.node("Cast", [sums], b.name(name, "cast"), to=TensorProto.FLOAT)
    return b.node("Mul", [real, b.constant(f"{name}.multiplier", scale)], out)


def _conv_attributes(node: op.Conv) -> dict[str, Any]:
    return {"strides": list(node.stride), "pads": onnx_pads(node.padding),
            "dilations": list(node.dilation), "group": node.groups}


def _float_conv(b: OnnxBuilder, node: op.Conv) -> None:
    """A convolution whose accumulators are the model's output."""
    scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
    _scaled_sums(b, node.name, node.input, node.weight, node.bias,
                 scale.reshape(1, -1, *[1] * len(node.stride)), output_name(node.name), **_conv_attributes(node))


def _ones(b: OnnxBuilder, node: op.AveragePool, count: int) -> tuple[Quantized, dict[str, Any]]:
    """The pool as a depthwise convolution with ones at scale 1/count."""
    channels = b.program.values[node.input].shape[1]
    assert channels is not None, "only the batch is unknown"
    ones = Quantized(np.ones((channels, 1, *node.kernel)),
                     Encoding(Int(8), np.float32(1) / np.float32(count), 0, TENSOR))
    return ones, {"strides": list(node.stride), "pads": onnx_pads(node.padding), "group": channels}


def _uneven_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    """Windows of unequal counts: integer sums, times one multiplier per position, rounded."""
    ones, attributes = _ones(b, node, 1)
    y = b.program.encoding(node.name)
    multiplier = constants.pool_multiplier(b.program.encoding(node.input), y, node.counts)[None, None]
    real = _scaled_sums(b, node.name, node.input, ones, None, multiplier,
                        b.name(node.name, "steps"), **attributes)
    grid = [b.constant(f"{node.name}.one", np.array(1, np.float32)), b.grid(node.name, y)[1]]
    _bounded(b, node, lambda out: b.node("QuantizeLinear", [real, *grid], out))


_GLOBAL_POOL_FACTORS = 2.0**-32, 2.0**8
"""Between which QLinearGlobalAveragePool takes its factor, the first of them too; it fails at run time on others."""


def _fits_global_pool(b: OnnxBuilder, node: op.Mean) -> bool:
    lowest, beyond = _GLOBAL_POOL_FACTORS
    count = b.program.count(node.input, node.axes)
    factor = constants.mean_multiplier(b.program.encoding(node.input), b.program.encoding(node.name), count)
    return lowest <= float(factor) < beyond and count < 2**24


def _mean_by_sums(b: OnnxBuilder, node: op.Mean) -> None:
    """Integer sums times the factor, rounded: for factors that no pool takes."""
    def step(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        return b.node(operator, inputs, b.name(node.name, suffix), **attributes)

    x, y = b.program.encoding(node.input), b.program.encoding(node.name)
    zero = b.constant(f"{node.name}.zero", x.zero_point.astype(np.int32))
    centred = step("Sub", [step("Cast", [node.input], "codes", to=TensorProto.INT32), zero], "centred")
    axes = b.constant(f"{node.name}.axes", np.array(node.axes, np.int64))
    total = step("ReduceSum", [centred, axes], "total", keepdims=int(node.keep))
    factor = constants.mean_multiplier(x, y, b.program.count(node.input, node.axes))
    real = step("Mul", [step("Cast", [total], "real", to=TensorProto.FLOAT),
                        b.constant(f"{node.name}.factor", np.array(factor, np.float32))], "steps")
    grid = [b.constant(f"{node.name}.one", np.array(1, np.float32)), b.grid(node.name, y)[1]]
    _bounded(b, node, lambda out: b.node("QuantizeLinear", [real, *grid], out))


def _mean_as_global_pool(b: OnnxBuilder, node: op.Mean, emit: Callable[[str, str], str]) -> None:
    """Brings the reduced axes to the end as [N, C, K, 1], lets `emit` pool them, and restores the shape."""
    shape = b.program.values[node.input].shape
    kept = [axis for axis in range(1, len(shape)) if axis not in node.axes]
    source = node.input
    if [0, *kept, *node.axes] != list(range(len(shape))):
        source = b.node("Transpose", [source], b.name(node.name, "ordered"), perm=[0, *kept, *node.axes])
    sizes = [size for size in shape[1:] if size is not None]
    channels = int(np.prod([sizes[axis - 1] for axis in kept]))
    source = _reshape_to(b, source, (-1, channels, int(np.prod([sizes[a - 1] for a in node.axes])), 1),
                         b.name(node.name, "flat"))
    pooled = b.name(node.name, "pooled")
    emit(source, pooled)
    target = tuple(-1 if s is None else s for s in b.program.values[node.name].shape)
    _bounded(b, node, lambda out: _reshape_to(b, pooled, target, out))


# ------------------------------------------------------------------------------- integer form


def _integer_conv(b: OnnxBuilder, node: op.Conv) -> None:
    if b.program.is_accumulator(node.name):
        return _float_conv(b, node) if node.name in b.program.outputs else _raw_sums(b, node)
    _qlinear_conv(b, node, node.weight, node.bias, _conv_attributes(node))


def _qlinear_conv(b: OnnxBuilder, node: op.Conv | op.AveragePool, weight: Quantized,
                  bias: np.ndarray | None, attributes: dict[str, Any]) -> None:
    x, y = b.program.encoding(node.input), b.program.encoding(node.name)
    inputs = [node.input, *b.grid(node.input, x), *b.weight(node.name, weight), *b.grid(node.name, y)]
    if bias is not None:
        inputs.append(b.constant(f"{node.name}.bias", bias))
    _bounded(b, node, lambda out: b.node("QLinearConv", inputs, out, **attributes))


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
    flat = len(shape) != 2
    if flat:
        source = _reshape_to(b, source, (-1, node.weight.codes.shape[1]), b.name(node.name, "rows"))
    product = gemm(source, b.name(node.name, "product") if flat or needs_clip else name)
    if flat:
        target = tuple(-1 if s is None else s for s in shape)
        product = _reshape_to(b, product, target, b.name(node.name, "shaped") if needs_clip else name)
    if needs_clip:
        b.clip(product, name, node.low, node.high)


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
    flat = _reshape_to(b, place, (-1,), b.name(node.name, "flat"))
    found = b.node("GatherElements", [table, flat], b.name(node.name, "found"), axis=0)
    _reshape_to(b, found, tuple(-1 if s is None else s for s in b.program.values[node.name].shape), node.name)


def _integer_add(b: OnnxBuilder, node: op.Add) -> None:
    if node.name in b.portable:
        return _tabulated_add(b, node)
    if node.subtract:
        return _float_pair(b, node, "Sub")
    if b.program.profile.addition == "float" or not _adds_equal_shapes(b, node):
        return _float_pair(b, node, "Sum")
    inputs = _both(b, node) + b.grid(node.name, b.program.encoding(node.name))
    _bounded(b, node, lambda out: b.node("QLinearAdd", inputs, out, domain=MICROSOFT))


def _integer_mul(b: OnnxBuilder, node: op.Mul) -> None:
    inputs = _both(b, node) + b.grid(node.name, b.program.encoding(node.name))
    _bounded(b, node, lambda out: b.node("QLinearMul", inputs, out, domain=MICROSOFT))


def _integer_matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    inputs = _both(b, node) + b.grid(node.name, b.program.encoding(node.name))
    _bounded(b, node, lambda out: b.node("QLinearMatMul", inputs, out))


def _both(b: OnnxBuilder, node: op.Add | op.Mul | op.MatMul) -> list[str]:
    """Codes, scale and zero point of both operands."""
    return [part for name in (node.first, node.second) for part in (name, *b.grid(name, b.program.encoding(name)))]


def _integer_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    if node.counts.size > 1:
        return _uneven_average_pool(b, node)
    ones, attributes = _ones(b, node, int(node.counts.item()))
    _qlinear_conv(b, node, ones, None, attributes)


def _integer_mean(b: OnnxBuilder, node: op.Mean) -> None:
    if not _fits_global_pool(b, node):
        return _mean_by_sums(b, node)
    grids = [*b.grid(node.input, b.program.encoding(node.input)),
             *b.grid(node.name, b.program.encoding(node.name))]
    _mean_as_global_pool(b, node, lambda source, out: b.node(
        "QLinearGlobalAveragePool", [source, *grids], out, domain=MICROSOFT, channels_last=0))


def _integer_concat(b: OnnxBuilder, node: op.Concat) -> None:
    inputs = b.grid(node.name, b.program.encoding(node.name))
    for name, codes in zip(node.inputs, b.for_every_image(node.name, node.inputs), strict=True):
        inputs += [codes, *b.grid(name, b.program.encoding(name))]
    _bounded(b, node, lambda out: b.node("QLinearConcat", inputs, out, domain=MICROSOFT, axis=node.axis))


def _integer_requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    """A concatenation of one: DequantizeLinear and QuantizeLinear in a row would do, but ONNX Runtime merges
    such a pair with a quantizer in front of it into one of other codes."""
    inputs = [*b.grid(node.name, b.program.encoding(node.name)),
              node.input, *b.grid(node.input, b.program.encoding(node.input))]
    _bounded(b, node, lambda out: b.node("QLinearConcat", inputs, out, domain=MICROSOFT, axis=0))


# ----------------------------------------------------------------------------------- QDQ form


def _qdq_weight(b: OnnxBuilder, name: str, data: Quantized) -> str:
    axis: dict[str, Any] = {"axis": 0} if data.encoding.scale.ndim else {}
    return b.node("DequantizeLinear", b.weight(name, data), b.name(name, "weight.real"), **axis)


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
    inputs = [b.dequantize(node.input, b.name(node.input, "real")), _qdq_weight(b, node.name, node.weight),
              *_qdq_bias(b, node)]
    real = b.node("Conv", inputs, b.name(node.name, "real"), **_conv_attributes(node))
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _qdq_linear(b: OnnxBuilder, node: op.Linear) -> None:
    if b.program.is_accumulator(node.name) and node.name not in b.program.outputs:
        return _raw_sums(b, node)

    def gemm(source: str, out: str) -> str:
        grid = b.grid(node.input, b.program.encoding(node.input))
        real = b.node("DequantizeLinear", [source, *grid], b.name(node.input, "real"))
        inputs = [real, _qdq_weight(b, node.name, node.weight), *_qdq_bias(b, node)]
        if b.program.is_accumulator(node.name):
            return b.node("Gemm", inputs, out, transB=1)
        return _quantize_onto(b, b.node("Gemm", inputs, b.name(node.name, "real"), transB=1), node.name, out)

    _as_matrix(b, node, node.input, gemm)


def _qdq_add(b: OnnxBuilder, node: op.Add) -> None:
    if node.name in b.portable:
        return _tabulated_add(b, node)
    fused = b.program.profile.addition == "fma" and _adds_equal_shapes(b, node)
    _float_pair(b, node, "Sub" if node.subtract else "Add" if fused else "Sum")


def _qdq_mul(b: OnnxBuilder, node: op.Mul) -> None:
    _float_pair(b, node, "Mul")


def _qdq_matmul(b: OnnxBuilder, node: op.MatMul) -> None:
    _float_pair(b, node, "MatMul")


def _qdq_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    if node.counts.size > 1:
        return _uneven_average_pool(b, node)
    ones, attributes = _ones(b, node, int(node.counts.item()))
    inputs = [b.dequantize(node.input, b.name(node.input, "real")), _qdq_weight(b, node.name, ones)]
    real = b.node("Conv", inputs, b.name(node.name, "real"), **attributes)
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _qdq_mean(b: OnnxBuilder, node: op.Mean) -> None:
    if not _fits_global_pool(b, node):
        return _mean_by_sums(b, node)

    def emit(source: str, out: str) -> str:
        grid = b.grid(node.input, b.program.encoding(node.input))
        real = b.node("DequantizeLinear", [source, *grid], b.name(node.input, "real"))
        return _quantize_onto(b, b.node("GlobalAveragePool", [real], b.name(node.name, "real")),
                              node.name, out)

    _mean_as_global_pool(b, node, emit)


def _qdq_concat(b: OnnxBuilder, node: op.Concat) -> None:
    reals = [b.node("DequantizeLinear", [codes, *b.grid(name, b.program.encoding(name))], b.name(name, "real"))
             for name, codes in zip(node.inputs, b.for_every_image(node.name, node.inputs), strict=True)]
    real = b.node("Concat", reals, b.name(node.name, "real"), axis=node.axis)
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _qdq_requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    real = b.node("Concat", [b.dequantize(node.input, b.name(node.input, "real"))], b.name(node.name, "real"),
                  axis=0)
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


_SHARED: dict[type[Node], Callable[[OnnxBuilder, Any], None]] = {
    op.Quantize: _quantize, op.Constant: _constant, op.MaxPool: emit_max_pool, op.Reshape: emit_reshape,
    op.Transpose: emit_transpose, op.Slice: emit_slice, op.Pad: _pad, op.Pick: emit_gather, op.Embedding: _embedding,
    op.Table: _table, op.Threshold: _threshold, op.Softmax: _softmax, op.LogSoftmax: _log_softmax,
    op.LayerNorm: _layer_norm, op.Quotient: _quotient, op.Larger: _larger,
    op.Dequantize: emit_dequantize, op.FloatConstant: emit_float_constant, op.FloatCall: emit_float_call,
    op.DynamicConv: emit_dynamic_conv, op.DynamicLinear: emit_dynamic_linear,
}
_INTEGER = _SHARED | {
    op.Conv: _integer_conv, op.Linear: _integer_linear, op.Add: _integer_add,
    op.AveragePool: _integer_average_pool, op.Mean: _integer_mean, op.Concat: _integer_concat,
    op.Requantize: _integer_requantize, op.Mul: _integer_mul, op.MatMul: _integer_matmul,
}
_QDQ = _SHARED | {
    op.Conv: _qdq_conv, op.Linear: _qdq_linear, op.Add: _qdq_add,
    op.AveragePool: _qdq_average_pool, op.Mean: _qdq_mean, op.Concat: _qdq_concat,
    op.Requantize: _qdq_requantize, op.Mul: _qdq_mul, op.MatMul: _qdq_matmul,
}
