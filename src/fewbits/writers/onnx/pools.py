"""Windows and axes made one number each, as ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder
from fewbits.writers.onnx.steps import (
    FormTable,
    OnnxForms,
    bounded,
    onnx_pads,
    qdq_weight,
    qlinear_conv,
    quantize_onto,
    reshape_to,
    scaled_sums,
    twin_bounded,
)


def _max_pool(b: OnnxBuilder, node: op.MaxPool) -> None:
    # Without padding of its own the pool says VALID: ONNX Runtime would otherwise merge a Pad in front into
    # it, and then refuse margins as large as the kernel.
    padded = any(map(sum, node.padding))
    padding: dict[str, Any] = {"pads": onnx_pads(node.padding)} if padded else {"auto_pad": "VALID"}
    b.node("MaxPool", [node.input], node.name, kernel_shape=list(node.kernel), strides=list(node.stride),
           dilations=list(node.dilation), **padding)


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
    real = scaled_sums(b, node.name, node.input, ones, None, multiplier,
                       b.name(node.name, "steps"), **attributes)
    grid = [b.constant(f"{node.name}.one", np.array(1, np.float32)), b.grid(node.name, y)[1]]
    bounded(b, node, lambda out: b.node("QuantizeLinear", [real, *grid], out))


_GLOBAL_POOL_FACTORS = 2.0**-32, 2.0**8
"""Between which QLinearGlobalAveragePool takes its factor, the first of them too; it fails at run time on others."""


def _fits_global_pool(b: OnnxBuilder, node: op.Mean) -> bool:
    lowest, beyond = _GLOBAL_POOL_FACTORS
    count = b.program.count(node.input, node.axes)
    factor = constants.mean_multiplier(b.program.encoding(node.input), b.program.encoding(node.name), count)
    value = b.program.values[node.input]
    return lowest <= float(factor) < beyond and count < 2**24 and None not in value.shape[1:] and not value.free


def _mean_by_sums(b: OnnxBuilder, node: op.Mean) -> None:
    """Integer sums times the factor, rounded: for factors that no pool takes, and where the batch is not the first
    axis, as in a stack of results."""
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
    bounded(b, node, lambda out: b.node("QuantizeLinear", [real, *grid], out))


def _mean_as_global_pool(b: OnnxBuilder, node: op.Mean, emit: Callable[[str, str], str]) -> None:
    """Lets `emit` pool the reduced axes and restores the shape. An image stays one, whose layout ONNX Runtime chooses;
    of all else the reduced axes are brought to the end, as [N, C, K, 1]."""
    shape = b.program.values[node.input].shape
    image = len(shape) == 4 and node.axes == (2, 3)
    source = node.input if image else _as_columns(b, node)
    if image and node.keep:
        return bounded(b, node, lambda out: emit(source, out))
    pooled = emit(source, b.name(node.name, "pooled"))
    target = tuple(-1 if s is None else s for s in b.program.values[node.name].shape)
    bounded(b, node, lambda out: reshape_to(b, pooled, target, out))


def _as_columns(b: OnnxBuilder, node: op.Mean) -> str:
    shape = b.program.values[node.input].shape
    kept = [axis for axis in range(1, len(shape)) if axis not in node.axes]
    source = node.input
    if [0, *kept, *node.axes] != list(range(len(shape))):
        source = b.node("Transpose", [source], b.name(node.name, "ordered"), perm=[0, *kept, *node.axes])
    sizes = [size for size in shape[1:] if size is not None]
    channels = int(np.prod([sizes[axis - 1] for axis in kept]))
    return reshape_to(b, source, (-1, channels, int(np.prod([sizes[a - 1] for a in node.axes])), 1),
                      b.name(node.name, "flat"))


def _integer_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    if node.counts.size > 1:
        return _uneven_average_pool(b, node)
    ones, attributes = _ones(b, node, int(node.counts.item()))
    qlinear_conv(b, node, ones, None, attributes)


def _integer_mean(b: OnnxBuilder, node: op.Mean) -> None:
    if not _fits_global_pool(b, node):
        return _mean_by_sums(b, node)
    grids = [*b.grid(node.input, b.program.encoding(node.input)),
             *b.grid(node.name, b.program.encoding(node.name))]
    _mean_as_global_pool(b, node, lambda source, out: b.node(
        "QLinearGlobalAveragePool", [source, *grids], out, domain=MICROSOFT, channels_last=0))


def _qdq_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    if node.counts.size > 1:
        return _uneven_average_pool(b, node)
    ones, attributes = _ones(b, node, int(node.counts.item()))
    inputs = [b.dequantize(node.input, b.name(node.input, "real")), qdq_weight(b, node.name, ones)]
    real = b.node("Conv", inputs, b.name(node.name, "real"), **attributes)
    bounded(b, node, lambda out: quantize_onto(b, real, node.name, out))


def _qdq_mean(b: OnnxBuilder, node: op.Mean) -> None:
    if not _fits_global_pool(b, node):
        return _mean_by_sums(b, node)

    def emit(source: str, out: str) -> str:
        grid = b.grid(node.input, b.program.encoding(node.input))
        real = b.node("DequantizeLinear", [source, *grid], b.name(node.input, "real"))
        return quantize_onto(b, b.node("GlobalAveragePool", [real], b.name(node.name, "real")),
                             node.name, out)

    _mean_as_global_pool(b, node, emit)


def _twin_average_pool(b: OnnxBuilder, node: op.AveragePool) -> None:
    twin_bounded(b, node, lambda out: b.node(
        "AveragePool", [node.input], out, kernel_shape=list(node.kernel), strides=list(node.stride),
        pads=onnx_pads(node.padding), count_include_pad=int(node.counts.size == 1)))


def _twin_mean(b: OnnxBuilder, node: op.Mean) -> None:
    axes = b.constant(f"{node.name}.axes", np.array(node.axes, np.int64))
    twin_bounded(b, node, lambda out: b.node("ReduceMean", [node.input, axes], out, keepdims=int(node.keep)))


FORMS: FormTable = {
    op.MaxPool: OnnxForms(_max_pool, _max_pool, _max_pool),
    op.AveragePool: OnnxForms(_integer_average_pool, _qdq_average_pool, _twin_average_pool),
    op.Mean: OnnxForms(_integer_mean, _qdq_mean, _twin_mean),
}
