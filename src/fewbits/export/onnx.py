"""A Program as ONNX: with integer operators, or as a float graph between quantizers (QDQ).

Both forms are chosen so that ONNX Runtime computes the Program's codes: the integer form at every
optimisation level, QDQ where its quantizers are fused (the default level). Why each operator takes the
form it takes is in docs/numerics.md, "What engines compute".
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from onnx import TensorProto

from fewbits.export.onnx_builder import MICROSOFT, OnnxBuilder
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program import nodes as op
from fewbits.program import requantize as constants
from fewbits.program.nodes import Margins, Node
from fewbits.program.program import Program

Form = Literal["integer", "qdq"]

_ELEMENT = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8}


def onnx_bytes(program: Program, form: Form = "integer", every_code: bool = False) -> bytes:
    """The program as a serialized ONNX model.

    Inputs bear the program's input names and are float32; outputs are the model's, float32, named after
    the program's output values. every_code: a debug copy that also returns the codes of every value that
    is not an accumulator, under the name `<value>.codes`.
    """
    builder = OnnxBuilder(program)
    # A value that is an output gives its own name to the dequantized tensor; codes keep `<name>` inside.
    emitters = _INTEGER if form == "integer" else _QDQ
    for node in program.nodes:
        emitters[type(node)](builder, node)
    outputs: dict[str, int] = {}
    shapes: dict[str, str] = {}
    for name in program.outputs:
        real = output_name(name)
        if not program.is_accumulator(name):
            builder.dequantize(name, real)
        outputs[real] = TensorProto.FLOAT
        shapes[real] = name
    if every_code:
        for node in program.nodes:
            if not program.is_accumulator(node.name):
                outputs[node.name] = _ELEMENT[program.encoding(node.name).format.dtype]
    return builder.model(outputs, shapes)


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


def _onnx_pads(padding: Margins) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


def _quantize(b: OnnxBuilder, node: op.Quantize) -> None:
    b.quantize(node.input, node.name)


def _constant(b: OnnxBuilder, node: op.Constant) -> None:
    b.node("Identity", [b.constant(f"{node.name}.data", node.data.codes)], node.name)


def _quantize_onto(b: OnnxBuilder, real: str, name: str, out: str) -> str:
    """QuantizeLinear onto the grid of `name`, writing to `out`."""
    return b.node("QuantizeLinear", [real, *b.grid(name, b.program.encoding(name))], out)


def _reshape(b: OnnxBuilder, node: op.Reshape) -> None:
    _reshape_to(b, node.input, node.shape, node.name)


def _reshape_to(b: OnnxBuilder, source: str, shape: tuple[int, ...], out: str) -> str:
    return b.node("Reshape", [source, b.constant(f"{out}.shape", np.array(shape, np.int64))], out)


def _transpose(b: OnnxBuilder, node: op.Transpose) -> None:
    b.node("Transpose", [node.input], node.name, perm=list(node.permutation))


def _slice(b: OnnxBuilder, node: op.Slice) -> None:
    arguments = [b.constant(f"{node.name}.{part}", np.array([value], np.int64)) for part, value in
                 (("start", node.start), ("stop", node.stop), ("axis", node.axis), ("step", node.step))]
    b.node("Slice", [node.input, *arguments], node.name)


def _pad(b: OnnxBuilder, node: op.Pad) -> None:
    before, after = zip(*node.margins, strict=True)
    encoding = b.program.encoding(node.input)
    b.node("Pad", [node.input, b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64)),
                   b.constant(f"{node.name}.zero", encoding.zero_point.astype(encoding.format.dtype))],
           node.name)


def _max_pool(b: OnnxBuilder, node: op.MaxPool) -> None:
    # Without padding of its own the pool says VALID: ONNX Runtime would otherwise merge a Pad in front into
    # it, and then refuse margins as large as the kernel.
    padded = any(map(sum, node.padding))
    padding: dict[str, Any] = {"pads": _onnx_pads(node.padding)} if padded else {"auto_pad": "VALID"}
    b.node("MaxPool", [node.input], node.name, kernel_shape=list(node.kernel), strides=list(node.stride),
           dilations=list(node.dilation), **padding)


def _float_add(b: OnnxBuilder, node: op.Add, operator: str) -> None:
    reals = [b.dequantize(name, b.name(name, "real")) for name in (node.first, node.second)]
    real = b.node(operator, reals, b.name(node.name, "real"))
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _adds_equal_shapes(b: OnnxBuilder, node: op.Add) -> bool:
    return b.program.values[node.first].shape == b.program.values[node.second].shape


def _scaled_sums(b: OnnxBuilder, name: str, source: str, weight: list[str], bias: np.ndarray | None,
                 scale: np.ndarray, out: str, **attributes: Any) -> str:
    """ConvInteger, bias, and a product with per-position or per-channel scales: float32, exact."""
    zero = b.grid(source, b.program.encoding(source))[1]
    sums = b.node("ConvInteger", [source, weight[0], zero], b.name(name, "sums"), **attributes)
    if bias is not None:
        shaped = b.constant(f"{name}.bias", bias.reshape(1, -1, 1, 1))
        sums = b.node("Add", [sums, shaped], b.name(name, "biased"))
    real = b.node("Cast", [sums], b.name(name, "cast"), to=TensorProto.FLOAT)
    return b.node("Mul", [real, b.constant(f"{name}.multiplier", scale)], out)


def _conv_attributes(node: op.Conv) -> dict[str, Any]:
    return {"strides": list(node.stride), "pads": _onnx_pads(node.padding),
            "dilations": list(node.dilation), "group": node.groups}


def _float_conv(b: OnnxBuilder, node: op.Conv) -> None:
    """A convolution whose accumulators are the model's output."""
    scale = constants.accumulator_scale(b.program.encoding(node.input), node.weight.encoding)
    _scaled_sums(b, node.name, node.input, b.weight(node.name, node.weight), node.bias,
                 scale.reshape(1, -1, 1, 1), output_name(node.name), **_conv_attributes(node))


def _ones(b: OnnxBuilder, node: op.AveragePool, count: int) -> tuple[Quantized, dict[str, Any]]:
    """The pool as a depthwise convolution with ones at scale 1/count."""
    channels = b.program.values[node.input].shape[1]
    assert channels is not None, "only the batch is unknown"
    ones = Quantized(np.ones((channels, 1, *node.kernel)),
                     Encoding(Int(8), np.float32(1) / np.float32(count), 0, TENSOR))
    return ones, {"strides": list(node.stride), "pads": _onnx_pads(node.padding), "group": channels}


def _uneven_average_pool(b: OnnxBuilder, node: op.AveragePool, counts: np.ndarray) -> None:
    """Windows of unequal counts: integer sums, times one multiplier per position, rounded."""
    ones, attributes = _ones(b, node, 1)
    y = b.program.encoding(node.name)
    multiplier = constants.pool_multiplier(b.program.encoding(node.input), y, counts)
    real = _scaled_sums(b, node.name, node.input, b.weight(node.name, ones), None, multiplier,
                        b.name(node.name, "steps"), **attributes)
    grid = [b.constant(f"{node.name}.one", np.array(1, np.float32)), b.grid(node.name, y)[1]]
    _bounded(b, node, lambda out: b.node("QuantizeLinear", [real, *grid], out))


def _counts(b: OnnxBuilder, node: op.AveragePool) -> np.ndarray:
    height, width = b.program.values[node.input].shape[2:]
    assert height is not None and width is not None, "only the batch is unknown"
    return constants.window_counts(node, height, width)


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
        return _float_conv(b, node)
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


def _integer_add(b: OnnxBuilder, node: op.Add) -> None:
    if b.program.profile.addition == "float" or not _adds_equal_shapes(b, node):
        return _float_add(b, node, "Sum")
    inputs = [part for name in (node.first, node.second)
              for part in (name, *b.grid(name, b.program.encoding(name)))]
    inputs += b.grid(node.name, b.program.encoding(node.name))
    _bounded(b, node, lambda out: b.node("QLinearAdd", inputs, out, domain=MICROSOFT))


def _integer_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    counts = _counts(b, node)
    if counts.size > 1:
        return _uneven_average_pool(b, node, counts)
    ones, attributes = _ones(b, node, int(counts[0, 0]))
    _qlinear_conv(b, node, ones, None, attributes)


def _integer_mean(b: OnnxBuilder, node: op.Mean) -> None:
    grids = [*b.grid(node.input, b.program.encoding(node.input)),
             *b.grid(node.name, b.program.encoding(node.name))]
    _mean_as_global_pool(b, node, lambda source, out: b.node(
        "QLinearGlobalAveragePool", [source, *grids], out, domain=MICROSOFT, channels_last=0))


def _integer_concat(b: OnnxBuilder, node: op.Concat) -> None:
    inputs = b.grid(node.name, b.program.encoding(node.name))
    for name in node.inputs:
        inputs += [name, *b.grid(name, b.program.encoding(name))]
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
        return _float_conv(b, node)  # a float Conv without a quantizer behind it would not be exact
    inputs = [b.dequantize(node.input, b.name(node.input, "real")), _qdq_weight(b, node.name, node.weight),
              *_qdq_bias(b, node)]
    real = b.node("Conv", inputs, b.name(node.name, "real"), **_conv_attributes(node))
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _qdq_linear(b: OnnxBuilder, node: op.Linear) -> None:
    def gemm(source: str, out: str) -> str:
        grid = b.grid(node.input, b.program.encoding(node.input))
        real = b.node("DequantizeLinear", [source, *grid], b.name(node.input, "real"))
        inputs = [real, _qdq_weight(b, node.name, node.weight), *_qdq_bias(b, node)]
        if b.program.is_accumulator(node.name):
            return b.node("Gemm", inputs, out, transB=1)
        return _quantize_onto(b, b.node("Gemm", inputs, b.name(node.name, "real"), transB=1), node.name, out)

    _as_matrix(b, node, node.input, gemm)


def _qdq_add(b: OnnxBuilder, node: op.Add) -> None:
    fused = b.program.profile.addition == "fma" and _adds_equal_shapes(b, node)
    _float_add(b, node, "Add" if fused else "Sum")


def _qdq_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    counts = _counts(b, node)
    if counts.size > 1:
        return _uneven_average_pool(b, node, counts)
    ones, attributes = _ones(b, node, int(counts[0, 0]))
    inputs = [b.dequantize(node.input, b.name(node.input, "real")), _qdq_weight(b, node.name, ones)]
    real = b.node("Conv", inputs, b.name(node.name, "real"), **attributes)
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _qdq_mean(b: OnnxBuilder, node: op.Mean) -> None:
    def emit(source: str, out: str) -> str:
        grid = b.grid(node.input, b.program.encoding(node.input))
        real = b.node("DequantizeLinear", [source, *grid], b.name(node.input, "real"))
        return _quantize_onto(b, b.node("GlobalAveragePool", [real], b.name(node.name, "real")),
                              node.name, out)

    _mean_as_global_pool(b, node, emit)


def _qdq_concat(b: OnnxBuilder, node: op.Concat) -> None:
    reals = [b.dequantize(name, b.name(name, "real")) for name in node.inputs]
    real = b.node("Concat", reals, b.name(node.name, "real"), axis=node.axis)
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


def _qdq_requantize(b: OnnxBuilder, node: op.Requantize) -> None:
    real = b.node("Concat", [b.dequantize(node.input, b.name(node.input, "real"))], b.name(node.name, "real"),
                  axis=0)
    _bounded(b, node, lambda out: _quantize_onto(b, real, node.name, out))


_SHARED: dict[type[Node], Callable[[OnnxBuilder, Any], None]] = {
    op.Quantize: _quantize, op.Constant: _constant, op.MaxPool: _max_pool, op.Reshape: _reshape,
    op.Transpose: _transpose, op.Slice: _slice, op.Pad: _pad,
}
_INTEGER = _SHARED | {
    op.Conv: _integer_conv, op.Linear: _integer_linear, op.Add: _integer_add,
    op.AveragePool: _integer_average_pool, op.Mean: _integer_mean, op.Concat: _integer_concat,
    op.Requantize: _integer_requantize,
}
_QDQ = _SHARED | {
    op.Conv: _qdq_conv, op.Linear: _qdq_linear, op.Add: _qdq_add,
    op.AveragePool: _qdq_average_pool, op.Mean: _qdq_mean, op.Concat: _qdq_concat,
    op.Requantize: _qdq_requantize,
}
