"""The definition: what each node computes, in NumPy integers. Slow, plain, and always right.

Sums of products are int64, so nothing wraps; what is not an integer is float32, rounded to nearest even
after every operation, in the order written here. Calls of float islands are the exception: float64, rounded once.
Equation numbers refer to docs/numerics.md.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.rounding import half_away, half_even
from fewbits.program import dynamic, rescale
from fewbits.program import nodes as op
from fewbits.program import requantize as constants
from fewbits.program.fixed_point import ROUNDINGS, Fixed
from fewbits.program.float_calls import rounded_once
from fewbits.program.nodes import Margins, Node, Sizes, reads
from fewbits.program.parts import parts
from fewbits.program.program import Program

f32 = np.float32
Codes = np.ndarray
Regridded = op.Requantize | op.Concat | op.AveragePool | op.Larger


def run(program: Program, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> dict[str, Codes]:
    """Codes of the program's outputs and of the values named in `keep`; of float values, the float32 themselves.

    inputs: float32 (for embeddings int64) arrays by input name. Raises ProgramError when one is missing or of
    another shape.
    """
    values = check_inputs(program, inputs)
    wanted = dict.fromkeys([*program.outputs, *keep])
    last_use = {name: i for i, node in enumerate(program.nodes) for name in reads(node)}
    for i, node in enumerate(program.nodes):
        values[node.name] = _KERNELS[type(node)](program, node, *(values[name] for name in reads(node)))
        for name in reads(node):
            if last_use[name] == i and name not in wanted:
                values.pop(name, None)
    return {name: values[name] for name in wanted}


def check_inputs(program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs as arrays, in the program's order; ProgramError names what does not fit."""
    checked = {}
    for name in program.inputs:
        if name not in inputs:
            raise ProgramError(f"input {name!r} is missing: the program takes {', '.join(program.inputs)}")
        x, shape = np.asarray(inputs[name]), program.values[name].shape
        if x.dtype != program.values[name].dtype:
            raise ProgramError(f"input {name!r} is {x.dtype}: give {program.values[name].dtype}")
        if len(x.shape) != len(shape) or any(s not in (None, t) for s, t in zip(shape, x.shape, strict=True)):
            raise ProgramError(f"input {name!r} has shape {x.shape}, but the program takes "
                               f"{tuple('N' if s is None else s for s in shape)}")
        checked[name] = x
    unknown = set(inputs) - set(checked)
    if unknown:
        raise ProgramError(f"the program has no input {sorted(unknown)[0]!r}: it takes {', '.join(checked)}")
    return checked


# ------------------------------------------------------------------------------- shared steps


def _saturate(v: np.ndarray, zero_point: int, low: int, high: int, encoding: Encoding) -> Codes:
    """clip(half_even(v) + zero_point, low, high): the zero point is added after rounding (eq. 6)."""
    return (half_even(v).astype(np.float64) + zero_point).clip(low, high).astype(encoding.format.dtype)


def _rescale(acc: np.ndarray, factor: rescale.Factor, rounding: str, y: Encoding, low: int, high: int) -> Codes:
    """Integers times a factor, rounded, to codes: in float32 (eq. 6), or by multiplier and shift (eq. 18-20)."""
    if isinstance(factor, Fixed):
        rounded = ROUNDINGS[rounding](acc, factor) + int(y.zero_point)
        return rounded.clip(low, high).astype(y.format.dtype)
    return _saturate(acc.astype(f32) * factor, int(y.zero_point), low, high, y)


def _centred(program: Program, name: str, codes: Codes) -> np.ndarray:
    """code − zero_point as int64: the number in units of its scale, so that 0 is the number 0."""
    return codes.astype(np.int64) - int(program.encoding(name).zero_point)


def _windows(x: np.ndarray, kernel: Sizes, stride: Sizes, padding: Margins, dilation: Sizes,
             fill: float) -> Iterator[tuple[Sizes, np.ndarray]]:
    """Yields (position, x under that position of the kernel for every window): [N, C, ...]."""
    x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    counts = [1 + (size - d * (k - 1) - 1) // s
              for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    for position in np.ndindex(*kernel):
        taps = tuple(slice(i * d, i * d + (count - 1) * s + 1, s)
                     for i, d, s, count in zip(position, dilation, stride, counts, strict=True))
        yield position, x[(slice(None), slice(None), *taps)]


def _finish(program: Program, node: op.Conv | op.Linear, acc: np.ndarray, channel_axis: int) -> Codes:
    """Adds the bias, then requantises (eq. 5, 6) or keeps the accumulator."""
    shape = [1] * acc.ndim
    shape[channel_axis] = -1
    if node.bias is not None:
        acc = acc + node.bias.astype(np.int64).reshape(shape)
    y = program.encoding(node.name)
    if program.is_accumulator(node.name):
        return acc.astype(y.format.dtype)
    factor = rescale.dot(program.profile, program.encoding(node.input), node.weight.encoding, y)
    factor = factor.reshape(tuple(shape)) if factor.ndim else factor
    return _rescale(acc, factor, rescale.rounding_of(program.profile, node), y, node.low, node.high)


def _requantize(program: Program, codes: Codes, source: str, node: Regridded) -> Codes:
    """float32(code − x_zero) · x_scale / y_scale, rounded (eq. 2, then eq. 1); in integer profiles eq. 18 or 19."""
    x, y, profile = program.encoding(source), program.encoding(node.name), program.profile
    if profile.rescaling == "float":
        return _saturate(x.decode(codes) / y.scale, int(y.zero_point), node.low, node.high, y)
    centred = codes.astype(np.int64) - int(x.zero_point)
    return _rescale(centred, rescale.regrid(x, y), rescale.rounding_of(profile, node), y, node.low, node.high)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32(a·b + c) with one rounding, for float32 a, b, c.

    The product is exact in float64; the sum is rounded to odd there, which makes the second rounding
    to float32 correct (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
    """
    product, c = np.broadcast_arrays(np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64))
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)  # exact (TwoSum)
    bits = np.ascontiguousarray(total).view(np.int64)
    towards_error = np.where((error > 0) == (total > 0), 1, -1)
    odd = bits + np.where((error != 0) & (bits & 1 == 0), towards_error, 0)
    return odd.view(np.float64).astype(f32).reshape(total.shape)


def add_codes(program: Program, node: op.Add, a: Codes, b: Codes) -> Codes:
    """Eq. 7 or 21, in the profile's form; differences, and sums that broadcast, take the float form of eq. 7."""
    if program.profile.addition == "integer":
        return _add_integers(program, node, a, b)
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    if node.subtract or program.profile.addition == "float" or a.shape != b.shape:
        left, right = first.decode(a), second.decode(b)
        v = (left - right if node.subtract else left + right) / y.scale
        return _saturate(v, int(y.zero_point), node.low, node.high, y)
    ratio_a, ratio_b = first.scale / y.scale, second.scale / y.scale
    zero_a, zero_b, zero_y = (e.zero_point.astype(f32) for e in (first, second, y))
    fixed = zero_y - fma(ratio_a, zero_a, ratio_b * zero_b)
    v = fma(a.astype(f32), ratio_a, fma(b.astype(f32), ratio_b, fixed))
    return _saturate(v, 0, node.low, node.high, y)  # the zero point is inside `fixed`, before rounding


def _add_integers(program: Program, node: op.Add, a: Codes, b: Codes) -> Codes:
    """Eq. 21: both codes raised, brought to the grid of twice the larger scale, added, and brought to the output's."""
    y, rounding = program.encoding(node.name), rescale.rounding_of(program.profile, node)
    raised, onto_a, onto_b, from_sum = rescale.addition(program.profile, program.encoding(node.first),
                                                        program.encoding(node.second), y)
    left = ROUNDINGS[rounding](_centred(program, node.first, a) << raised, onto_a)
    right = ROUNDINGS[rounding](_centred(program, node.second, b) << raised, onto_b)
    return _rescale(left - right if node.subtract else left + right, from_sum, rounding, y, node.low, node.high)


def _added(program: Program, node: op.Conv | op.Linear, w: np.ndarray,
           sums: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sums of products; where the profile splits them, of parts that are each kept to its width (eq. 23)."""
    bits = program.profile.sum_bits
    cuts = parts(program, node, bits) if program.profile.split else None
    if cuts is None:
        return sums(w)
    total: Any = 0
    for cut in cuts:
        part = np.zeros_like(w)
        flat, source = part.reshape(len(w), -1), w.reshape(len(w), -1)
        flat[:, cut] = source[:, cut]
        half = 2 ** (bits - 1)
        total = total + ((sums(part) + half) % (2 * half) - half)  # as an accumulator of that width wraps
    return total


# ------------------------------------------------------------------------------------ kernels


def _quantize(program: Program, node: op.Quantize, x: np.ndarray) -> Codes:
    rounding = half_even if program.profile.entering == "half_even" else half_away
    return program.encoding(node.name).encode(x, rounding).codes


def _constant(program: Program, node: op.Constant) -> Codes:
    return node.data.codes


def _conv(program: Program, node: op.Conv, x: Codes) -> Codes:
    w = node.weight.codes.astype(np.int64) - _weight_zero(node.weight.encoding, node.weight.codes.ndim)
    centred = _centred(program, node.input, x)
    return _finish(program, node, _added(program, node, w, lambda w: _convolve(node, centred, w)), channel_axis=1)


def _convolve(node: op.Conv | op.DynamicConv, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    groups, kernel = node.groups, w.shape[2:]
    w = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    acc = None
    for position, taps in _windows(x, kernel, node.stride, node.padding, node.dilation, fill=0):
        flat = taps.reshape(len(taps), groups, w.shape[2], -1)
        part = np.einsum("ngcp,goc->ngop", flat, w[(..., *position)])
        part = part.reshape(len(taps), -1, *taps.shape[2:])
        acc = part if acc is None else acc + part
    assert acc is not None, "a kernel has at least one position"
    return acc


def _linear(program: Program, node: op.Linear, x: Codes) -> Codes:
    w = node.weight.codes.astype(np.int64) - _weight_zero(node.weight.encoding, 2)
    centred = _centred(program, node.input, x)
    acc = _added(program, node, w, lambda w: np.einsum("...k,ok->...o", centred, w))
    return _finish(program, node, acc, channel_axis=-1)


def _weight_zero(encoding: Encoding, rank: int) -> np.ndarray:
    zero = encoding.zero_point.astype(np.int64)
    return zero.reshape(zero.shape + (1,) * (rank - zero.ndim)) if zero.ndim else zero


def _requantize_node(program: Program, node: op.Requantize, x: Codes) -> Codes:
    return _requantize(program, x, node.input, node)


def _max_pool(program: Program, node: op.MaxPool, x: Codes) -> Codes:
    best, lowest = None, -np.inf if x.dtype == f32 else np.iinfo(x.dtype).min
    for _, taps in _windows(x, node.kernel, node.stride, node.padding, node.dilation, fill=lowest):
        best = taps if best is None else np.maximum(best, taps)
    assert best is not None, "a kernel has at least one position"
    return best.astype(x.dtype)


def _average_pool(program: Program, node: op.AveragePool, x: Codes) -> Codes:
    if program.profile.rescaling != "float":
        return _average_in_place(program, node, x)
    total = sum(taps for _, taps in _windows(_centred(program, node.input, x), node.kernel, node.stride,
                                             node.padding, (1,) * len(node.kernel), fill=0))
    y = program.encoding(node.name)
    multiplier = constants.pool_multiplier(program.encoding(node.input), y, node.counts)
    return _saturate(np.asarray(total).astype(f32) * multiplier, int(y.zero_point), node.low, node.high, y)


def _average_in_place(program: Program, node: op.AveragePool, x: Codes) -> Codes:
    """Eq. 22: the mean of the codes, half away from 0, on the input's grid; then the output's."""
    total: Any = sum(taps for _, taps in _windows(_centred(program, node.input, x), node.kernel, node.stride,
                                                  node.padding, (1,) * len(node.kernel), fill=0))
    count = node.counts.astype(np.int64)
    codes = total + count * int(program.encoding(node.input).zero_point)
    average = np.sign(codes) * ((np.abs(codes) + count // 2) // count)
    return _requantize(program, average, node.input, node)


def _mean(program: Program, node: op.Mean, x: Codes) -> Codes:
    total = _centred(program, node.input, x).sum(node.axes, keepdims=node.keep)
    count = int(np.prod([x.shape[axis] for axis in node.axes]))
    y = program.encoding(node.name)
    factor = rescale.mean(program.profile, program.encoding(node.input), y, count)
    return _rescale(total, factor, rescale.rounding_of(program.profile, node), y, node.low, node.high)


def _mul(program: Program, node: op.Mul, a: Codes, b: Codes) -> Codes:
    y = program.encoding(node.name)
    product = _centred(program, node.first, a) * _centred(program, node.second, b)
    factor = rescale.product(program.profile, program.encoding(node.first), program.encoding(node.second), y)
    if isinstance(factor, Fixed):
        return _rescale(product, factor, rescale.rounding_of(program.profile, node), y, node.low, node.high)
    v = product.astype(f32) * factor + y.zero_point.astype(f32)
    return _saturate(v, 0, node.low, node.high, y)  # the zero point is added before rounding


def _quotient(program: Program, node: op.Quotient, a: Codes, b: Codes) -> Codes:
    y, divisor = program.encoding(node.name), program.encoding(node.second).decode(b)
    divisor = np.where(divisor == 0, f32(constants.NO_DIVISOR), divisor)
    with np.errstate(over="ignore"):  # infinite quotients saturate
        v = program.encoding(node.first).decode(a) / divisor / y.scale
    return _saturate(v, int(y.zero_point), node.low, node.high, y)


def _larger(program: Program, node: op.Larger, a: Codes, b: Codes) -> Codes:
    first, second = _requantize(program, a, node.first, node), _requantize(program, b, node.second, node)
    return np.minimum(first, second) if node.least else np.maximum(first, second)


def _matmul(program: Program, node: op.MatMul, a: Codes, b: Codes) -> Codes:
    y = program.encoding(node.name)
    acc = np.einsum("...ik,...kj->...ij", _centred(program, node.first, a), _centred(program, node.second, b))
    factor = rescale.matrix_product(program.profile, program.encoding(node.first), program.encoding(node.second), y)
    return _rescale(acc, factor, rescale.rounding_of(program.profile, node), y, node.low, node.high)


def _table(program: Program, node: op.Table, x: Codes) -> Codes:
    entry = x.astype(np.int64) - program.encoding(node.input).format.low
    if len(node.table) == 1:
        return node.table[0][entry]
    rows = np.arange(len(node.table)).reshape(-1, *[1] * (x.ndim - 2))
    return node.table[rows, entry]


def _threshold(program: Program, node: op.Threshold, x: np.ndarray) -> Codes:
    def along(per_row: np.ndarray) -> np.ndarray:
        shape = [1] * x.ndim
        shape[node.axis] = per_row.size
        return per_row.reshape(shape)

    directed = x.astype(np.int64 if x.dtype == np.int32 else f32) * along(node.direction)
    reached = np.zeros(x.shape, np.int64)
    for place in range(node.thresholds.shape[1]):
        reached += directed >= along(node.thresholds[:, place])
    return node.levels[reached]


def _softmax(program: Program, node: op.Softmax, x: Codes) -> Codes:
    y, table = program.encoding(node.name), constants.exponentials(program.encoding(node.input), node.factor)
    q = x.astype(np.int64) - program.encoding(node.input).format.low
    if node.mask is None:
        steps = q.max(-1, keepdims=True) - q
    else:
        seen = np.broadcast_to(node.mask, q.shape) != 0
        steps = np.where(seen, np.where(seen, q, -1).max(-1, keepdims=True) - q, 256)
    powers = table[steps].astype(np.int64)
    share = powers.astype(f32) / powers.sum(-1, keepdims=True).astype(f32)
    return _saturate(share / y.scale, int(y.zero_point), node.low, node.high, y)


def _log_softmax(program: Program, node: op.LogSoftmax, x: Codes) -> Codes:
    x_encoding, y = program.encoding(node.input), program.encoding(node.name)
    below = x.max(-1, keepdims=True).astype(np.int64) - x
    total = constants.exponentials(x_encoding, 1.0)[below].astype(np.int64).sum(-1, keepdims=True)
    unit = 2**constants.SOFTMAX_BITS
    whole, part = constants.logarithms()
    high = total // unit
    logarithm = whole[high] + part[(total // high - unit) // 2**10]
    fine = -(constants.steps_below(x_encoding)[below] + logarithm)
    v = fine.astype(f32) * f32(2.0**-constants.LOG_BITS) / y.scale
    return _saturate(v, int(y.zero_point), node.low, node.high, y)


def _layer_norm(program: Program, node: op.LayerNorm, x: Codes) -> Codes:
    y, q, axes = program.encoding(node.name), x.astype(np.int64), tuple(range(-node.axes, 0))
    length = program.count(node.input, axes)
    total, squares = q.sum(axes, keepdims=True), (q * q).sum(axes, keepdims=True)
    variance = (length * squares - total * total).astype(f32)
    deviation = np.sqrt(variance + constants.integer_epsilon(program.encoding(node.input), node.epsilon, length))
    normal = (length * q - total).astype(f32) / deviation
    return _saturate((normal * node.gain + node.shift) / y.scale, int(y.zero_point), node.low, node.high, y)


def lookup(program: Program, node: op.Embedding, numbers: np.ndarray) -> Codes:
    rows = len(node.table.codes)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < rows):
        raise ProgramError(f"input {node.input!r} numbers rows {numbers.min()} to {numbers.max()}, but "
                           f"{node.name!r} has rows 0 to {rows - 1}")
    return node.table.codes[numbers]


def _pick(program: Program, node: op.Pick, x: Codes) -> Codes:
    return x.take(node.indices, node.axis)


def _concat(program: Program, node: op.Concat, *inputs: Codes) -> Codes:
    batch = max(len(codes) for codes in inputs)
    inputs = tuple(np.broadcast_to(codes, (batch, *codes.shape[1:])) for codes in inputs)
    return np.concatenate([_requantize(program, codes, name, node)
                           for name, codes in zip(node.inputs, inputs, strict=True)], node.axis)


def _reshape(program: Program, node: op.Reshape, x: Codes) -> Codes:
    return x.reshape(node.shape)


def _transpose(program: Program, node: op.Transpose, x: Codes) -> Codes:
    return x.transpose(node.permutation)


def _slice(program: Program, node: op.Slice, x: Codes) -> Codes:
    return x[(slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)]


def _pad(program: Program, node: op.Pad, x: Codes) -> Codes:
    zero = 0 if program.is_float(node.input) else int(program.encoding(node.input).zero_point)
    return np.pad(x, node.margins, constant_values=zero)


def _dequantize(program: Program, node: op.Dequantize, x: Codes) -> np.ndarray:
    return program.encoding(node.input).decode(x)


def _float_constant(program: Program, node: op.FloatConstant) -> np.ndarray:
    return node.data


def _dynamic_conv(program: Program, node: op.DynamicConv, x: np.ndarray, w: Codes, *bias: np.ndarray) -> np.ndarray:
    return _dynamic(program, node, x, lambda centred: _convolve(node, centred, w.astype(np.int64)), 1, *bias)


def _dynamic_linear(program: Program, node: op.DynamicLinear, x: np.ndarray, w: Codes, *bias: np.ndarray) -> np.ndarray:
    wide = w.astype(np.int64)
    return _dynamic(program, node, x, lambda centred: np.einsum("...k,ok->...o", centred, wide), -1, *bias)


def _dynamic(program: Program, node: op.DynamicConv | op.DynamicLinear, x: np.ndarray,
             sums: Callable[[np.ndarray], np.ndarray], channel_axis: int, *bias: np.ndarray) -> np.ndarray:
    """Codes by the range of x, exact sums, float32 (eq. 28 to 30)."""
    grid = dynamic.grid_of(x)
    acc = sums(dynamic.centred_codes(x, grid))
    shape = [1] * acc.ndim
    shape[channel_axis] = -1
    scale = dynamic.result_scale(grid, program.constant(node.weight))
    y = acc.astype(f32) * (scale.reshape(shape) if scale.ndim else scale)
    return y + bias[0].reshape(shape) if bias else y


def _float_call(program: Program, node: op.FloatCall, *values: np.ndarray) -> np.ndarray:
    return rounded_once(node, *values)


_KERNELS: dict[type[Node], Callable[..., Any]] = {
    op.Quantize: _quantize, op.Constant: _constant, op.Conv: _conv, op.Linear: _linear, op.Add: add_codes,
    op.Mul: _mul, op.Quotient: _quotient, op.Larger: _larger, op.LogSoftmax: _log_softmax,
    op.MatMul: _matmul, op.Table: _table, op.Threshold: _threshold,
    op.Softmax: _softmax, op.LayerNorm: _layer_norm, op.Embedding: lookup, op.Pick: _pick,
    op.Requantize: _requantize_node, op.MaxPool: _max_pool, op.AveragePool: _average_pool, op.Mean: _mean,
    op.Concat: _concat, op.Reshape: _reshape, op.Transpose: _transpose, op.Slice: _slice, op.Pad: _pad,
    op.Dequantize: _dequantize, op.FloatConstant: _float_constant, op.FloatCall: _float_call,
    op.DynamicConv: _dynamic_conv, op.DynamicLinear: _dynamic_linear,
}
