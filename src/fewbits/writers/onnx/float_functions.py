"""Tables that float operators give code for code, which the table decides: DequantizeLinear, function, QuantizeLinear.

ONNX Runtime looks up a code in 0.7 ns and computes some functions of its number in half of that, and its layout
optimiser moves transpositions past float operators, but not past a look-up. Its float kernels round as they like; but
where for each of the codes the function's value, give or take all that they err by, rounds to the table's code, they
give the table on every processor. A value near a tie is moved away from it by another scale, within 2^-12 of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fewbits.numerics.encoding import Encoding
from fewbits.program import ops as op
from fewbits.program.unary import BY_WORD, FloatKernel, Unary
from fewbits.writers.onnx.builder import MICROSOFT, OnnxBuilder


@dataclass(frozen=True)
class FloatForm:
    """A function as float operators compute it: its row, its other arguments, and the scale that its codes are read
    with."""

    row: Unary
    kernel: FloatKernel
    arguments: Mapping[str, float]
    scale: np.float32


def float_form(b: OnnxBuilder, node: op.Table) -> FloatForm | None:
    """The float operators that give the table, None where there are none, or where they might not."""
    x, y, row = b.program.encoding(node.input), b.program.encoding(node.name), BY_WORD.get(node.function)
    if row is None or row.kernel is None or len(node.table) > 1 or max(x.format.bits, y.format.bits) > 8:
        return None
    codes = np.arange(x.format.low, x.format.high + 1)
    table = node.table[0, :codes.size].astype(np.int64)
    for scale in _scales(x.scale):
        reals = np.float64(scale) * (codes - int(x.zero_point))
        for arguments in _arguments(row.kernel, reals, table, y):
            results = row.call(torch.from_numpy(reals), **arguments).numpy()
            if _round_to(results, _error(row.kernel, reals, results), table, y):
                return FloatForm(row, row.kernel, arguments, scale)
    return None


def _scales(scale: np.ndarray) -> Iterator[np.float32]:
    """The scale itself, then others near it."""
    for place in range(65):
        yield np.float32(np.float64(scale) * (1 + (place + 1) // 2 * (-1) ** place * 2.0**-17))


def _arguments(kernel: FloatKernel, x: np.ndarray, table: np.ndarray, y: Encoding) -> Iterator[Mapping[str, float]]:
    """The defaults, where a function has no slope of its own below 0; else the middle of the slopes that give the
    table, which does not say what it was made with."""
    if not kernel.slope_below:
        yield {}
        return
    limits = np.iinfo(y.format.dtype)
    inside = (x < 0) & (table > limits.min) & (table < limits.max)
    steps = table[inside] - int(y.zero_point)
    ends = [np.float64(y.scale) * (steps + side / 2) / x[inside] for side in (1, -1)]
    low, high = ends[0].max(initial=0), ends[1].min(initial=1)
    yield {kernel.slope_below: float(np.float32((low + high) / 2))}


def _error(kernel: FloatKernel, x: np.ndarray, results: np.ndarray) -> np.ndarray:
    """Bound of what is between the function of the exact numbers and the quotient that QuantizeLinear rounds, in units
    of the function: the kernel's error, the rounding of x, and that of the quotient."""
    return kernel.absolute + (kernel.relative + kernel.slope * 2.0**-23) * np.abs(x) + np.abs(results) * 2.0**-22


def _round_to(results: np.ndarray, error: np.ndarray, table: np.ndarray, y: Encoding) -> bool:
    """Whether all numbers within `error` of the results become the table's codes, bounded by their type alone."""
    zero, limits = int(y.zero_point), np.iinfo(y.format.dtype)
    return all(np.array_equal((np.rint((results + side * error) / np.float64(y.scale)) + zero)
                              .clip(limits.min, limits.max), table) for side in (-1, 1))


def integer_float_form(b: OnnxBuilder, node: op.Table, form: FloatForm) -> None:
    """ONNX Runtime's own operators where it has them: on codes, or one for the whole function."""
    x, y = _grids(b, node, form)
    plain = form.row.form(form.row.arguments(form.arguments))
    if form.kernel.on_codes:
        attributes = {name: float(value) for name, value in getattr(plain, "attributes", {}).items()}
        b.node(form.kernel.on_codes, [node.input, *x, *y], node.name, MICROSOFT, **attributes)
        return
    real = b.node("DequantizeLinear", [node.input, *x], b.name(node.name, "number"))
    result = b.name(node.name, "result")
    if form.kernel.fused is not None:
        fused = form.kernel.fused
        b.node(fused.operator, [real], result, MICROSOFT, **dict(fused.attributes))
    else:
        b.unary(plain, real, result)
    b.node("QuantizeLinear", [result, *y], node.name)


def qdq_float_form(b: OnnxBuilder, node: op.Table, form: FloatForm) -> None:
    """Standard operators. A Sum of one behind DequantizeLinear keeps it one where several operators read it: ONNX
    Runtime would copy it for each, and then not see that it has a kernel for all of them."""
    x, y = _grids(b, node, form)
    real = b.node("DequantizeLinear", [node.input, *x], b.name(node.name, "number"))
    if form.kernel.fused is not None:
        real = b.node("Sum", [real], b.name(node.name, "kept"))
    result = b.unary(form.row.form(form.row.arguments(form.arguments)), real, b.name(node.name, "result"))
    b.node("QuantizeLinear", [result, *y], node.name)


def _grids(b: OnnxBuilder, node: op.Table, form: FloatForm) -> tuple[list[str], list[str]]:
    """Scale and zero point of what is read and of what is written."""
    x_scale, x_zero = b.grid(node.input, b.program.encoding(node.input))
    if form.scale != b.program.encoding(node.input).scale:
        x_scale = b.constant(f"{node.name}.from_scale", np.array(form.scale))
    return [x_scale, x_zero], b.grid(node.name, b.program.encoding(node.name))
