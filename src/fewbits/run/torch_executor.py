"""A Program in torch, fast enough for a test set, with the reference's codes.

Why it is exact: sums of products are taken in float32 where `accumulator_bound` proves every partial sum
below 2^24, and in float64 (2^53) otherwise, so that each addition, in whatever order a kernel makes it, has
an exact result. The convolution algorithms torch picks for these types on the CPU are direct sums;
NNPACK's transforms are switched off. Everything else is the reference's float32 steps in the same order, and an
addition with fused products is a table over both codes, filled by the reference itself. Float islands alone are not
exact: they are torch's float32.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fewbits.numerics import affine
from fewbits.numerics.rounding import half_away, half_even
from fewbits.program import dynamic, reference, rescale
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program.fixed_point import Fixed
from fewbits.program.float_calls import called
from fewbits.program.ops import Node, accumulator_bound, reads
from fewbits.program.ops.pairs import add_codes
from fewbits.program.ops.rows import lookup
from fewbits.program.program import Program
from fewbits.run.torch_fixed_point import Rescale, rescaler

_TORCH = {np.dtype(np.uint8): torch.uint8, np.dtype(np.int8): torch.int8, np.dtype(np.int32): torch.int32,
          np.dtype(np.int16): torch.int16, np.dtype(np.uint16): torch.uint16}
Step = Callable[..., torch.Tensor]


class TorchExecutor:
    """Prepares a program's constants once; `run` takes inputs of any batch size."""

    def __init__(self, program: Program):
        self.program = program
        self._steps = [(node, _PREPARE[type(node)](program, node)) for node in program.nodes]
        self._last_use = {name: i for i, node in enumerate(program.nodes) for name in reads(node)}

    def run(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> dict[str, np.ndarray]:
        """Codes of the program's outputs and of the values named in `keep`, as `reference.run` gives them."""
        checked = reference.check_inputs(self.program, inputs)
        values = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in checked.items()}
        wanted = dict.fromkeys([*self.program.outputs, *keep])
        with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
            for i, (node, step) in enumerate(self._steps):
                values[node.name] = step(*(values[name] for name in reads(node)))
                for name in reads(node):
                    if self._last_use[name] == i and name not in wanted:
                        values.pop(name, None)
        return {name: values[name].numpy() for name in wanted}


# ------------------------------------------------------------------------------- shared steps


def _exact_type(program: Program, node: Node) -> torch.dtype:
    """The floating type in which every partial sum of the node is exact."""
    return torch.float32 if accumulator_bound(program, node).magnitude < 2**24 else torch.float64


def _rounding(program: Program, node: Node) -> str:
    rescaling = op.record_of(node).rescaling
    assert rescaling is not None, "only what has a factor is rounded by it"
    return rescale.rounding(program.profile, rescaling.role)


def _code_type(program: Program, name: str) -> torch.dtype:
    return _TORCH[program.encoding(name).format.dtype]


def _flat(margins: Sequence[tuple[int, int]]) -> list[int]:
    """Margins as F.pad takes them: last axis first."""
    return [size for pair in reversed(margins) for size in pair]


def _tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).to(dtype)


def _saturate(program: Program, node: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """clip(half_even(v) + zero_point, low, high), as reference._saturate."""
    zero, dtype = int(program.encoding(node.name).zero_point), _code_type(program, node.name)
    return lambda v: v.round_().add_(zero).clamp_(node.low, node.high).to(dtype)


def _rescaler(program: Program, node: Any, factor: rescale.Factor, rounding: str) -> Rescale:
    """Exact integers, of a floating or integer type, to codes, as reference._rescale."""
    if isinstance(factor, Fixed):
        zero, dtype = int(program.encoding(node.name).zero_point), _code_type(program, node.name)
        rounded = rescaler(factor, rounding)
        return lambda acc: rounded(acc).add_(zero).clamp_(node.low, node.high).to(dtype)
    scale, saturate = _tensor(factor), _saturate(program, node)
    return lambda acc: saturate(acc.float().mul_(scale))


def _finish(program: Program, node: op.Conv | op.Linear, shape: tuple[int, ...]) -> Step:
    """Accumulators with their bias to codes. shape: of a per-channel constant."""
    if program.is_accumulator(node.name):
        return lambda acc: acc.to(torch.int32)
    x, y = program.encoding(node.input), program.encoding(node.name)
    factor = rescale.dot(program.profile, x, node.weight.encoding, y)
    factor = factor.reshape(shape) if factor.ndim else factor
    return _rescaler(program, node, factor, _rounding(program, node))


# ------------------------------------------------------------------------------------ kernels


def _quantize(program: Program, node: op.Quantize) -> Step:
    y, dtype = program.encoding(node.name), _code_type(program, node.name)
    scale, rounding = _tensor(y.scale), half_even if program.profile.entering == "half_even" else half_away
    return lambda x: affine.encode(x, scale, int(y.zero_point), y.format.low, y.format.high, rounding).to(dtype)


def _constant(program: Program, node: op.Constant) -> Step:
    codes = _tensor(node.data.codes, _code_type(program, node.name))
    return lambda: codes


def _weight(node: op.Conv | op.Linear, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    encoding = node.weight.encoding
    w = node.weight.codes.astype(np.int64) - encoding.block.expand(encoding.zero_point, node.weight.codes.shape)
    return _tensor(w, dtype), None if node.bias is None else _tensor(node.bias, dtype)


def _conv(program: Program, node: op.Conv) -> Step:
    dtype, zero = _exact_type(program, node), int(program.encoding(node.input).zero_point)
    weight, bias = _weight(node, dtype)
    finish = _finish(program, node, (1, -1, *[1] * len(node.stride)))
    convolve: Callable[..., torch.Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(node.stride) - 1]
    even = all(before == after for before, after in node.padding)
    margins = tuple(before for before, _ in node.padding) if even else 0

    def step(x: torch.Tensor) -> torch.Tensor:
        x = x.to(dtype) - zero
        if not even:
            x = F.pad(x, _flat(node.padding))
        return finish(convolve(x, weight, bias, node.stride, margins, node.dilation, node.groups))

    return step


def _linear(program: Program, node: op.Linear) -> Step:
    dtype, zero = _exact_type(program, node), int(program.encoding(node.input).zero_point)
    weight, bias = _weight(node, dtype)
    finish = _finish(program, node, (-1,))
    return lambda x: finish(F.linear(x.to(dtype) - zero, weight, bias))


def _add(program: Program, node: op.Add) -> Step:
    if program.profile.addition == "integer":
        return _add_integers(program, node)
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    same_shape = program.values[node.first].shape == program.values[node.second].shape
    if program.profile.addition == "fma" and same_shape and not node.subtract:
        codes_a, codes_b = (np.arange(e.format.low, e.format.high + 1).astype(e.format.dtype)
                            for e in (first, second))
        grid = np.broadcast_arrays(codes_a[:, None], codes_b[None, :])
        table = _tensor(add_codes(program, node, *grid), _code_type(program, node.name)).reshape(-1)
        low_a, low_b, width = first.format.low, second.format.low, codes_b.size
        return lambda a, b: table[((a.int() - low_a) * width + (b.int() - low_b)).reshape(-1)].reshape(a.shape)
    scales = [(_tensor(e.scale), int(e.zero_point)) for e in (first, second)]
    (scale_a, zero_a), (scale_b, zero_b) = scales
    scale_y, saturate = _tensor(y.scale), _saturate(program, node)
    join = torch.sub if node.subtract else torch.add
    return lambda a, b: saturate(join((a.float() - zero_a) * scale_a, (b.float() - zero_b) * scale_b) / scale_y)


def _add_integers(program: Program, node: op.Add) -> Step:
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    rounding = _rounding(program, node)
    raised, onto_a, onto_b, from_sum = rescale.addition(program.profile, first, second, y)
    rescale_a, rescale_b = rescaler(onto_a, rounding), rescaler(onto_b, rounding)
    finish = _rescaler(program, node, from_sum, rounding)
    zero_a, zero_b, join = int(first.zero_point), int(second.zero_point), torch.sub if node.subtract else torch.add
    return lambda a, b: finish(join(rescale_a((a.long() - zero_a) << raised), rescale_b((b.long() - zero_b) << raised)))


def _mul(program: Program, node: op.Mul) -> Step:
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    zero_a, zero_b, zero_y = int(first.zero_point), int(second.zero_point), int(y.zero_point)
    factor = rescale.product(program.profile, first, second, y)
    if isinstance(factor, Fixed):
        finish = _rescaler(program, node, factor, _rounding(program, node))
        return lambda a, b: finish((a.long() - zero_a) * (b.long() - zero_b))
    multiplier, dtype = _tensor(factor), _code_type(program, node.name)

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        v = ((a.float() - zero_a) * (b.float() - zero_b)) * multiplier + zero_y  # products of 8-bit codes are exact
        return v.round_().clamp_(node.low, node.high).to(dtype)

    return step


def _quotient(program: Program, node: op.Quotient) -> Step:
    scale, saturate = _tensor(program.encoding(node.name).scale), _saturate(program, node)
    (scale_a, zero_a), (scale_b, zero_b) = [(_tensor(e.scale), int(e.zero_point)) for e in (
        program.encoding(node.first), program.encoding(node.second))]

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        divisor = (b.float() - zero_b) * scale_b
        divisor = torch.where(divisor == 0, constants.NO_DIVISOR, divisor)
        return saturate((a.float() - zero_a) * scale_a / divisor / scale)

    return step


def _larger(program: Program, node: op.Larger) -> Step:
    first, second = (_requantizer(program, name, node) for name in (node.first, node.second))
    choose = torch.minimum if node.least else torch.maximum
    return lambda a, b: choose(first(a), second(b))


def _matmul(program: Program, node: op.MatMul) -> Step:
    first, second, y = (program.encoding(name) for name in (node.first, node.second, node.name))
    zero_a, zero_b, dtype = int(first.zero_point), int(second.zero_point), _exact_type(program, node)
    finish = _rescaler(program, node, rescale.matrix_product(program.profile, first, second, y),
                       _rounding(program, node))
    return lambda a, b: finish((a.to(dtype) - zero_a) @ (b.to(dtype) - zero_b))


def _table(program: Program, node: op.Table) -> Step:
    table = _tensor(node.table, _code_type(program, node.name))
    flat, rows, lowest = table.reshape(-1), len(node.table), program.encoding(node.input).format.low

    def step(x: torch.Tensor) -> torch.Tensor:
        index = x.int() - lowest
        if rows > 1:
            index = index + table.shape[1] * torch.arange(rows, dtype=torch.int32).reshape(-1, *[1] * (x.ndim - 2))
        return flat[index.reshape(-1)].reshape(x.shape)

    return step


def _threshold(program: Program, node: op.Threshold) -> Step:
    sums = program.values[node.input].encoding is not None
    dtype = torch.int64 if sums else torch.float32
    shape = [1] * len(program.values[node.name].shape)
    shape[node.axis] = len(node.thresholds)
    direction, levels = _tensor(node.direction, dtype).reshape(shape), _tensor(node.levels, torch.uint8)
    rows = [_tensor(column, dtype).reshape(shape) for column in node.thresholds.T]

    def step(x: torch.Tensor) -> torch.Tensor:
        directed = x.to(dtype) * direction
        reached = torch.zeros(x.shape, dtype=torch.int32)
        for row in rows:
            reached += directed >= row
        return levels[reached.reshape(-1)].reshape(x.shape)

    return step


def _softmax(program: Program, node: op.Softmax) -> Step:
    y = program.encoding(node.name)
    table = _tensor(constants.exponentials(program.encoding(node.input), node.factor), torch.int64)
    scale, saturate = _tensor(y.scale), _saturate(program, node)
    mask = None if node.mask is None else torch.from_numpy(np.array(node.mask)) != 0
    lowest = program.encoding(node.input).format.low

    def step(x: torch.Tensor) -> torch.Tensor:
        q = x.long() - lowest
        seen = q if mask is None else torch.where(mask, q, -1)
        steps = seen.amax(-1, keepdim=True) - q
        powers = table[steps if mask is None else torch.where(mask, steps, 256)]
        return saturate(powers.float() / powers.sum(-1, keepdim=True).float() / scale)

    return step


def _log_softmax(program: Program, node: op.LogSoftmax) -> Step:
    x, y, unit = program.encoding(node.input), program.encoding(node.name), 2**constants.SOFTMAX_BITS
    powers, below = _tensor(constants.exponentials(x, 1.0), torch.int64), _tensor(constants.steps_below(x), torch.int64)
    whole, part = (_tensor(table, torch.int64) for table in constants.logarithms())
    fine, scale, saturate = 2.0**-constants.LOG_BITS, _tensor(y.scale), _saturate(program, node)

    def step(x: torch.Tensor) -> torch.Tensor:
        q = x.long()
        steps = q.amax(-1, keepdim=True) - q
        total = powers[steps].sum(-1, keepdim=True)
        high = total // unit
        logarithm = whole[high] + part[(total // high - unit) // 2**10]
        return saturate(-(below[steps] + logarithm).float() * fine / scale)

    return step


def _layer_norm(program: Program, node: op.LayerNorm) -> Step:
    axes = tuple(range(-node.axes, 0))
    y, length = program.encoding(node.name), program.count(node.input, axes)
    epsilon = float(constants.integer_epsilon(program.encoding(node.input), node.epsilon, length))
    gain, shift, scale, saturate = _tensor(node.gain), _tensor(node.shift), _tensor(y.scale), _saturate(program, node)

    def step(x: torch.Tensor) -> torch.Tensor:
        q = x.long()
        total, squares = q.sum(axes, keepdim=True), (q * q).sum(axes, keepdim=True)
        deviation = ((length * squares - total * total).float() + epsilon).sqrt_()
        return saturate(((length * q - total).float() / deviation * gain + shift) / scale)

    return step


def _embedding(program: Program, node: op.Embedding) -> Step:
    return lambda numbers: torch.from_numpy(lookup(program, node, numbers.numpy()))


def _pick(program: Program, node: op.Pick) -> Step:
    indices = torch.tensor(node.indices)
    return lambda x: x.index_select(node.axis, indices)


def _requantizer(program: Program, source: str, node: Any) -> Step:
    x, y = program.encoding(source), program.encoding(node.name)
    scale_x, zero_x, scale_y = _tensor(x.scale), int(x.zero_point), _tensor(y.scale)
    if program.profile.rescaling != "float":
        finish = _rescaler(program, node, rescale.regrid(x, y), _rounding(program, node))
        return lambda codes: finish(codes.long() - zero_x)
    saturate = _saturate(program, node)
    return lambda codes: saturate((codes.float() - zero_x) * scale_x / scale_y)


def _requantize(program: Program, node: op.Requantize) -> Step:
    return _requantizer(program, node.input, node)


_POOLS: dict[int, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    2: (F.max_pool2d, F.avg_pool2d), 3: (F.max_pool3d, F.avg_pool3d)}
"""The largest and the sum, by the number of axes."""


def _max_pool(program: Program, node: op.MaxPool) -> Step:
    pool = _POOLS[len(node.kernel)][0]
    dtype = torch.float32 if program.is_float(node.name) else _code_type(program, node.name)

    def step(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x.float(), _flat(node.padding), value=-torch.inf)
        return pool(x, node.kernel, node.stride, 0, node.dilation).to(dtype)

    return step


def _average_pool(program: Program, node: op.AveragePool) -> Step:
    x, sums = program.encoding(node.input), _window_sums(program, node)
    if program.profile.rescaling != "float":
        return _average_in_place(program, node, sums)
    multiplier = _tensor(constants.pool_multiplier(x, program.encoding(node.name), node.counts))
    saturate = _saturate(program, node)
    return lambda x: saturate(sums(x).float().mul_(multiplier))


def _window_sums(program: Program, node: op.AveragePool) -> Step:
    """Exact sums of the numbers in each window."""
    dtype, zero = _exact_type(program, node), int(program.encoding(node.input).zero_point)
    pool = _POOLS[len(node.kernel)][1]
    return lambda x: pool(F.pad(x.to(dtype) - zero, _flat(node.padding)), node.kernel, node.stride, divisor_override=1)


def _average_in_place(program: Program, node: op.AveragePool, sums: Step) -> Step:
    finish, counts = _requantizer(program, node.input, node), _tensor(node.counts, torch.int64)
    half, zeros = counts // 2, counts * int(program.encoding(node.input).zero_point)

    def step(x: torch.Tensor) -> torch.Tensor:
        total = sums(x).long() + zeros  # of codes, not of numbers
        return finish(torch.where(total > 0, total + half, total - half).div(counts, rounding_mode="trunc"))

    return step


def _mean(program: Program, node: op.Mean) -> Step:
    x = program.encoding(node.input)
    count = program.count(node.input, node.axes)
    factor = rescale.mean(program.profile, x, program.encoding(node.name), count)
    dtype, zero = _exact_type(program, node), int(x.zero_point)
    finish = _rescaler(program, node, factor, _rounding(program, node))
    return lambda x: finish((x.to(dtype) - zero).sum(node.axes, node.keep))


def _concat(program: Program, node: op.Concat) -> Step:
    steps = [_requantizer(program, name, node) for name in node.inputs]

    def joined(*inputs: torch.Tensor) -> torch.Tensor:
        batch = max(len(x) for x in inputs)
        return torch.cat([step(x.expand(batch, *x.shape[1:])) for step, x in zip(steps, inputs, strict=True)],
                         node.axis)

    return joined


def _reshape(program: Program, node: op.Reshape) -> Step:
    return lambda x: x.reshape(node.shape)


def _transpose(program: Program, node: op.Transpose) -> Step:
    return lambda x: x.permute(node.permutation)


def _slice(program: Program, node: op.Slice) -> Step:
    return lambda x: x[(slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)]


def _pad(program: Program, node: op.Pad) -> Step:
    zero = 0 if program.is_float(node.input) else int(program.encoding(node.input).zero_point)
    return lambda x: F.pad(x, _flat(node.margins), value=zero)


def _dequantize(program: Program, node: op.Dequantize) -> Step:
    encoding = program.encoding(node.input)
    return lambda x: torch.from_numpy(encoding.decode(x.numpy()))


def _float_constant(program: Program, node: op.FloatConstant) -> Step:
    data = _tensor(node.data)
    return lambda: data


def _dynamic_linear(program: Program, node: op.DynamicLinear) -> Step:
    return _dynamic(program, node, F.linear, (-1,))


def _dynamic_conv(program: Program, node: op.DynamicConv) -> Step:
    rank, margins = len(node.stride), _flat(node.padding)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]

    def sums(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return convolve(F.pad(x, margins), w, None, node.stride, 0, node.dilation, node.groups)

    return _dynamic(program, node, sums, (-1, *[1] * rank))


def _dynamic(program: Program, node: op.DynamicConv | op.DynamicLinear,
             sums: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> Step:
    """As reference._dynamic; sums of integers are exact in the type that eq. 9 allows."""
    weight, dtype = program.constant(node.weight), _exact_type(program, node)

    def step(x: torch.Tensor, w: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        grid = dynamic.grid_of(x.numpy())
        if grid.scale:
            steps = (x / _tensor(np.array(grid.scale))).round_().add_(grid.zero_point)
            centred = steps.clamp_(dynamic.CODES.low, dynamic.CODES.high).sub_(grid.zero_point)
        else:
            centred = torch.zeros_like(x)
        acc = sums(centred.to(dtype), w.to(dtype)).float() + 0.0  # an integer has no -0
        y = acc * _tensor(dynamic.result_scale(grid, weight)).reshape(shape)
        return y + bias[0].reshape(shape) if bias else y

    return step


def _float_call(program: Program, node: op.FloatCall) -> Step:
    return lambda *values: called(node.name, node.call, node.arguments, values)


_PREPARE: dict[type[Node], Callable[[Program, Any], Step]] = {
    op.Quantize: _quantize, op.Constant: _constant, op.Conv: _conv, op.Linear: _linear, op.Add: _add, op.Mul: _mul,
    op.Quotient: _quotient, op.Larger: _larger, op.LogSoftmax: _log_softmax,
    op.MatMul: _matmul, op.Table: _table, op.Threshold: _threshold,
    op.Softmax: _softmax, op.LayerNorm: _layer_norm, op.Embedding: _embedding,
    op.Pick: _pick,
    op.Requantize: _requantize, op.MaxPool: _max_pool, op.AveragePool: _average_pool, op.Mean: _mean,
    op.Concat: _concat, op.Reshape: _reshape, op.Transpose: _transpose, op.Slice: _slice, op.Pad: _pad,
    op.Dequantize: _dequantize, op.FloatConstant: _float_constant, op.FloatCall: _float_call,
    op.DynamicConv: _dynamic_conv, op.DynamicLinear: _dynamic_linear,
}
