"""On which processors ONNX Runtime computes a program's codes: decided from the program, before anything runs.

ONNX Runtime's kernels differ between x86-64 processors in two places that can change codes (docs/numerics.md, "What
equality relies on"):

Pairs. With AVX2 or AVX-512 and without VNNI, products of uint8 with int8 are added in pairs, in 16 bits that saturate
(`vpmaddubsw`). Neighbours along the sum make a pair: the first and second term, the third and fourth. A convolution
sums by position of its kernel first, by channel then. Depthwise convolutions (one input and one output channel in each
group) whose weights share one zero point, ConvInteger, and products of codes that are both unsigned or both signed are
added in 32 bits everywhere.

Sums of two tensors (QLinearAdd) are taken by fused multiply-adds only where there are any.

Whether a node is concerned follows from the codes that it can read. Such nodes can be written so that no processor
computes them otherwise, `portable`: weights as uint8 with zero point 128, sums as a table over both codes.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fewbits.engines.processor import Processor, Target
from fewbits.options import enumerated, options_checked
from fewbits.program import ops as op
from fewbits.program.code_ranges import Interval, code_ranges
from fewbits.program.ops.pairs import add_codes, add_codes_unfused, is_fused
from fewbits.program.program import Program

_AT_ONCE = 2**20  # codes


@dataclass(frozen=True)
class Reliance:
    """Nodes whose codes are right on some x86-64 processors only, where ONNX Runtime's fastest form of them is used.

    pairs: products that saturate in 16 bits without VNNI; fused: sums of two tensors that come out otherwise without
    fused multiply-adds. In running order.
    """

    pairs: tuple[str, ...]
    fused: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """All of them."""
        return self.pairs + self.fused

    def wrong_on(self, processor: Processor) -> tuple[str, ...]:
        """Those of them that this processor can compute wrong."""
        pairs = self.pairs if processor.adds_pairs_in_16_bits else ()
        fused = self.fused if processor.is_x86 and not processor.fuses_additions else ()
        return pairs + fused

    def without(self, portable: Collection[str]) -> "Reliance":
        """What is left where some nodes are written portably."""
        return Reliance(tuple(name for name in self.pairs if name not in portable),
                        tuple(name for name in self.fused if name not in portable))


def reliance(program: Program) -> Reliance:
    """What a program's codes rest on in ONNX Runtime; nothing where its profile is none of ONNX Runtime's."""
    if program.profile.engine != "onnxruntime":
        return Reliance((), ())
    ranges = code_ranges(program)
    pairs = tuple(node.name for node in program.everything
                  if isinstance(node, op.Conv | op.Linear | op.DynamicLinear) and _saturates(program, node, ranges))
    fused = tuple(node.name for node in program.everything
                  if isinstance(node, op.Add) and _needs_fusion(program, node, ranges))
    return Reliance(pairs, fused)


@options_checked
def portable_nodes(program: Program, target: Target, processor: Processor) -> frozenset[str]:
    """The nodes to write portably, and no others: all that need it for `any`; for `this` those that this processor
    would compute wrong; none for `vnni`."""
    match target:
        case "any":
            return frozenset(reliance(program).nodes)
        case "this":
            return frozenset(reliance(program).wrong_on(processor))
        case "vnni":
            return frozenset()


@options_checked
@dataclass(frozen=True)
class Exactness:
    """Where a file written from a program gives the program's codes in ONNX Runtime.

    target: what it is written for; unsigned: products with uint8 weights in it, tabulated: sums of two tensors that are
    tables, where the plain form would be wrong on some processors; left: what is written plainly though it would.
    """

    target: Target
    unsigned: tuple[str, ...]
    tabulated: tuple[str, ...]
    left: Reliance

    @property
    def portable(self) -> frozenset[str]:
        """All that is not written plainly."""
        return frozenset(self.unsigned + self.tabulated)

    @property
    def where(self) -> str:
        """The processors, in words for a reader of the file."""
        needs = []
        if self.left.pairs:
            needs.append(f"with VNNI, or without AVX2, for the products of {listed(self.left.pairs)}")
        if self.left.fused:
            needs.append(f"with AVX2 and FMA, for the sums of {listed(self.left.fused)}")
        x86 = " and ".join([f"x86-64 {needs[0]}", *needs[1:]]) if needs else "any x86-64"
        return f"{x86}; other processors: not checked"

    def __str__(self) -> str:
        """The same, and what it costs."""
        costs = []
        if self.unsigned:
            costs.append(f"uint8 weights in {listed(self.unsigned)}, whose sums would saturate without VNNI (for "
                         "processors that all have it, fewbits export --processor vnni writes int8, up to 4 times as "
                         "fast)")
        if self.tabulated:
            costs.append(f"tables for the sums of {listed(self.tabulated)}, which differ without FMA")
        return "; ".join([f"exact on {self.where}", *costs])


@options_checked
def exactness(program: Program, target: Target, processor: Processor) -> Exactness:
    """What becomes of a program's nodes for a target."""
    portable, rests = portable_nodes(program, target, processor), reliance(program)
    return Exactness(target, tuple(name for name in rests.pairs if name in portable),
                     tuple(name for name in rests.fused if name in portable), rests.without(portable))


def listed(names: Collection[str], most: int = 5) -> str:
    """'a', 'b' and 3 more."""
    first = [repr(name) for name in names][:most]
    rest = len(names) - len(first)
    if rest:
        return f"{', '.join(first)} and {rest} more"
    return enumerated(first, "and")


# ------------------------------------------------------------------------------------------------------- products


def summed_weights(node: op.Conv | op.Linear) -> np.ndarray:
    """Weight codes [O, K] in the order in which ONNX Runtime sums their products."""
    codes = node.weight.codes
    return np.moveaxis(codes, 1, -1).reshape(len(codes), -1) if isinstance(node, op.Conv) else codes


def adds_pairs(program: Program, node: op.Conv | op.Linear | op.DynamicLinear) -> bool:
    """Whether ONNX Runtime's kernel for the node adds pairs of products where the processor does."""
    if isinstance(node, op.DynamicLinear):
        return True
    if program.encoding(node.input).format.low < 0 or node.weight.codes.dtype != np.int8:
        return False  # both signed, or both unsigned
    if isinstance(node, op.Conv):
        return not _summed_by_channel(node) and not program.is_accumulator(node.name)  # those are ConvInteger's
    return True


def _summed_by_channel(node: op.Conv) -> bool:
    """Whether it takes the kernel for depthwise convolutions, which adds in 32 bits: with one output per group, and one
    weight zero point for all of them; with several it multiplies matrices, as every other convolution."""
    one_by_one = node.weight.codes.shape[1] == 1 and len(node.weight.codes) == node.groups
    return one_by_one and bool(np.ptp(node.weight.encoding.zero_point) == 0)


def saturating_pairs(weights: np.ndarray, low: int, high: int) -> np.ndarray:
    """Which pairs of products of weights [O, K] with input codes from low to high can leave 16 bits: bool [O, K/2]."""
    padded = np.pad(weights.astype(np.int64), ((0, 0), (0, weights.shape[1] % 2)))
    most, least = np.maximum(padded * low, padded * high), np.minimum(padded * low, padded * high)
    return ((most[:, ::2] + most[:, 1::2] > np.iinfo(np.int16).max)
            | (least[:, ::2] + least[:, 1::2] < np.iinfo(np.int16).min))


def _saturates(program: Program, node: op.Conv | op.Linear | op.DynamicLinear, ranges: dict[str, Interval]) -> bool:
    if not adds_pairs(program, node):
        return False
    if isinstance(node, op.DynamicLinear):
        return _any_saturating(program.constant(node.weight).codes, 0, 255)
    low, high = ranges[node.input]
    if isinstance(node, op.Conv) and any(map(sum, node.padding)):
        zero = int(program.encoding(node.input).zero_point)
        low, high = min(low, zero), max(high, zero)
    return _any_saturating(summed_weights(node), low, high)


def _any_saturating(weights: np.ndarray, low: int, high: int) -> bool:
    """Whether a pair can, looked for among some rows at a time: the products of a large weight take 40 bytes a code."""
    rows = max(1, _AT_ONCE // max(1, weights.shape[1]))
    return any(saturating_pairs(weights[first:first + rows], low, high).any() for first in range(0, len(weights), rows))


# ----------------------------------------------------------------------------------------------------------- sums


def _needs_fusion(program: Program, node: op.Add, ranges: dict[str, Interval]) -> bool:
    """Whether any two codes that can meet have another sum without fused multiply-adds."""
    if not is_fused(program, node):
        return False
    (low_a, high_a), (low_b, high_b) = ranges[node.first], ranges[node.second]
    a, b = (np.arange(low, high + 1).astype(program.encoding(name).format.dtype)
            for name, low, high in ((node.first, low_a, high_a), (node.second, low_b, high_b)))
    pairs = np.broadcast_arrays(a[:, None], b[None, :])
    return bool((add_codes(program, node, *pairs) != add_codes_unfused(program, node, *pairs)).any())
