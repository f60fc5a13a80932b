"""ONNX Runtime's kernels that add pairs of products in saturating 16 bits, in NumPy; and layers made to saturate.

The oracle of engines/exactness.py: `pair_sums` computes what AVX2 and AVX-512 without VNNI compute; `probe` makes of
a layer a program of that layer alone, with the input on which its pairs come nearest to 16 bits, or leave them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fewbits.engines.exactness import adds_pairs, summed_weights
from fewbits.numerics.block import TENSOR, Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, Int
from fewbits.program import ops as op
from fewbits.program.code_ranges import code_ranges
from fewbits.program.program import Program
from fewbits.program.value import Value

_WHOLE = (-(2**31), 2**31 - 1)


def pair_sums(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """int64 [N, O]: sums of products of codes [N, K] and weights [O, K], neighbours along K added in 16 bits that
    saturate (`vpmaddubsw`), the pairs in 32 bits that do not overflow (`vpmaddwd`)."""
    odd = x.shape[1] % 2
    x, weights = (np.pad(array.astype(np.int64), ((0, 0), (0, odd))) for array in (x, weights))
    products = x[:, None, :] * weights[None]
    limits = np.iinfo(np.int16)
    return np.clip(products[..., ::2] + products[..., 1::2], limits.min, limits.max).sum(-1)


def sums(x: np.ndarray, weights: np.ndarray, x_zero: int, weight_zeros: np.ndarray, *, in_pairs: bool) -> np.ndarray:
    """int64 [N, O]: Σ (x − z_x)(w − z_w), the products of the codes themselves first, as kernels take them.

    weight_zeros: [O]; in_pairs: whether those products are added as `pair_sums` adds them.
    """
    products = pair_sums(x, weights) if in_pairs else x.astype(np.int64) @ weights.T.astype(np.int64)
    taken = x_zero * weights.sum(1, dtype=np.int64)[None] + x.sum(1, dtype=np.int64)[:, None] * weight_zeros[None]
    return products - taken + weights.shape[1] * x_zero * weight_zeros[None]


@dataclass(frozen=True)
class Probe:
    """A layer alone, and one input for it.

    program: quantizer, layer, and what shows its sums; inputs: float32; exact: what its output must be; in_pairs: what
    it is on a processor that adds pairs in 16 bits. Both float32.
    """

    program: Program
    inputs: dict[str, np.ndarray]
    exact: np.ndarray
    in_pairs: np.ndarray

    @property
    def differs(self) -> bool:
        """Whether such a processor gives other numbers."""
        return bool((self.exact != self.in_pairs).any())


def probe(program: Program, name: str) -> Probe:
    """The Conv, Linear or DynamicLinear of that name, fed the codes by which a pair of its products gets farthest.

    All scales are 1 and the bias makes all exact sums the same, so that the outputs show a difference of 1.
    """
    node = next(node for node in program.everything if node.name == name)
    match node:
        case op.Conv():
            return _conv(program, node)
        case op.Linear():
            return _linear(program, node)
        case op.DynamicLinear():
            return _dynamic(program, node)
    raise AssertionError(f"{name!r} has no products")


def _farthest(weights: np.ndarray, low: int, high: int) -> tuple[int, np.ndarray]:
    """The output [index] and the codes [K] whose pair of products is nearest to leaving 16 bits, or farthest beyond;
    all other codes are low."""
    padded = np.pad(weights.astype(np.int64), ((0, 0), (0, weights.shape[1] % 2)))
    most, least = np.maximum(padded * low, padded * high), np.minimum(padded * low, padded * high)
    above, below = most[:, ::2] + most[:, 1::2] - (2**15 - 1), -(2**15) - (least[:, ::2] + least[:, 1::2])
    output, pair = np.unravel_index(int(np.maximum(above, below).argmax()), above.shape)
    upwards = above[output, pair] >= below[output, pair]
    codes = np.full(padded.shape[1], low)
    for place in (2 * pair, 2 * pair + 1):
        codes[place] = high if (padded[output, place] > 0) == upwards else low
    return int(output), codes[:weights.shape[1]]


def _zeros(weight: Quantized) -> np.ndarray:
    return np.broadcast_to(weight.encoding.zero_point.reshape(-1), len(weight.codes)).astype(np.int64)


def _one(encoding: Encoding) -> Encoding:
    """The same codes at scale 1."""
    return Encoding(encoding.format, np.ones_like(encoding.scale), encoding.zero_point, encoding.block)


def _conv(program: Program, node: op.Conv) -> Probe:
    x, weight, groups = program.encoding(node.input), node.weight, node.groups
    low, high = code_ranges(program)[node.input]
    if any(map(sum, node.padding)):
        low, high = min(low, int(x.zero_point)), max(high, int(x.zero_point))
    weights, per_group = summed_weights(node), len(weight.codes) // groups
    output, codes = _farthest(weights, low, high)
    kernel, channels, group = weight.codes.shape[2:], weight.codes.shape[1], output // per_group
    window = np.full((1, groups * channels, *kernel), low)
    window[0, group * channels:(group + 1) * channels] = np.moveaxis(codes.reshape(*kernel, channels), -1, 0)
    zeros = _zeros(weight)

    def summed(in_pairs: bool) -> np.ndarray:
        parts = []
        for g in range(groups):
            outputs = slice(g * per_group, (g + 1) * per_group)
            row = np.moveaxis(window[:, g * channels:(g + 1) * channels], 1, -1).reshape(1, -1)
            parts.append(sums(row, weights[outputs], int(x.zero_point), zeros[outputs], in_pairs=in_pairs))
        return np.concatenate(parts, 1)

    spread = np.full((1, window.shape[1], *(d * (k - 1) + 1 for d, k in zip(node.dilation, kernel, strict=True))), low)
    spread[:, :, *(slice(None, None, d) for d in node.dilation)] = window
    axes = len(kernel)

    def layer(bias: np.ndarray, low: int, high: int) -> op.Conv:
        return op.Conv("y", "codes", Quantized(weight.codes, _one(weight.encoding)), bias, (1,) * axes,
                       ((0, 0),) * axes, node.dilation, groups, low, high)

    return _shown(program, node, layer, spread, summed, axes)


def _linear(program: Program, node: op.Linear) -> Probe:
    x, weight = program.encoding(node.input), node.weight
    _, codes = _farthest(weight.codes, *code_ranges(program)[node.input])

    def summed(in_pairs: bool) -> np.ndarray:
        return sums(codes[None], weight.codes, int(x.zero_point), _zeros(weight), in_pairs=in_pairs)

    def layer(bias: np.ndarray, low: int, high: int) -> op.Linear:
        return op.Linear("y", "codes", Quantized(weight.codes, _one(weight.encoding)), bias, low, high)

    return _shown(program, node, layer, codes[None], summed, 0)


def _shown(program: Program, node: op.Conv | op.Linear, layer: Callable[[np.ndarray, int, int], op.ProgramNode],
           codes: np.ndarray, summed: Callable[[bool], np.ndarray], axes: int) -> Probe:
    """The program around a layer. layer: of a bias and bounds; codes: of its input; summed: its sums [1, O];
    axes: that its output has behind the channels, each of size 1."""
    x, weight = program.encoding(node.input), node.weight
    exact = summed(False)
    in_pairs = summed(adds_pairs(program, node))
    shape = (1, len(weight.codes), *[1] * axes)
    raw = program.is_accumulator(node.name)
    y = Int(8, signed=x.format.low < 0)
    centre = 0 if raw else (y.low + y.high + 1) // 2
    bias = (centre - exact[0]).astype(np.int32)
    shown = [(centre + found - exact).clip(*(_WHOLE if raw else (y.low, y.high))).astype(np.float32).reshape(shape)
             for found in (exact, in_pairs)]
    single = weight.encoding.scale.ndim == 0
    grid = Encoding(y, 1.0, 0) if not raw else Encoding(
        ACCUMULATOR, np.ones(() if single else shape), 0, TENSOR if single else Block((-1, 1, *[-1] * axes)))
    nodes: list[op.ProgramNode] = [op.Quantize("codes", "x"), layer(bias, *(_WHOLE if raw else (y.low, y.high)))]
    values = {"x": Value((None, *codes.shape[1:]), None), "codes": Value((None, *codes.shape[1:]), _one(x)),
              "y": Value((None, *shape[1:]), grid)}
    if raw and node.name not in program.outputs:
        nodes.append(op.Dequantize("real", "y"))
        values["real"] = Value((None, *shape[1:]), None)
    made = Program(program.profile, ("x",), tuple(nodes), values, nodes[-1].name)
    return Probe(made, {"x": _one(x).decode(codes.astype(x.format.dtype))}, shown[0], shown[1])


def _dynamic(program: Program, node: op.DynamicLinear) -> Probe:
    weight = program.constant(node.weight)
    _, codes = _farthest(weight.codes, 0, 255)
    exact, in_pairs = (sums(codes[None], weight.codes, 0, _zeros(weight), in_pairs=in_pairs).astype(np.float32)
                       for in_pairs in (False, True))
    unscaled = Quantized(weight.codes, _one(weight.encoding))
    made = Program(program.profile, ("x",), (op.Constant("w", unscaled), op.DynamicLinear("y", "x", "w", None)),
                   {"x": Value((None, len(codes)), None), "w": Value(weight.codes.shape, unscaled.encoding),
                    "y": Value((None, len(weight.codes)), None)}, "y")
    inputs = {"x": codes[None].astype(np.float32)}  # numbers from 0 to 255 have scale 1 and zero point 0
    return Probe(made, inputs, exact, in_pairs)
