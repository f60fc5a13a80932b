"""KL divergence: the clipping threshold that changes the distribution least, as TensorRT chooses it.

Two definitions exist, and differ by about a bin:

| variant  | candidates      | bin 0            | of equal ones | threshold        |
|----------|-----------------|------------------|---------------|------------------|
| `slides` | levels … n − 1  | as it is         | the first     | (m + 0.5)·width  |
| `nvidia` | levels … n      | replaced by bin 1 | the last     | m·width          |

`guarded` is `nvidia` with the candidates left out whose squared error on the grid is more than twice that of min-max.
Both published definitions need it: wherever one value is much more frequent than its neighbours (the zeros behind a
ReLU, the background of an image) a threshold just beyond that value has the least divergence and cuts off all others.

For a candidate m: P is the first m bins, with everything beyond added to the last of them; Q is the first m bins
(without what lies beyond) merged into `levels` levels, each spread evenly over its non-empty bins. Both are
normalised; KL(P‖Q) = Σ p·ln(p/q), infinite where P > 0 and Q = 0.
Sources: S. Migacz, GTC 2017, s7310; NVIDIA pytorch-quantization, `_compute_amax_entropy`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.block import TENSOR, Block
from fewbits.options import options_checked
from fewbits.ranges.histogram import Counts, Histogram
from fewbits.ranges.mse import squared_error
from fewbits.ranges.observer import Observer
from fewbits.ranges.rule import Range, RangeRule, Target

Variant = Literal["slides", "nvidia"]
Named = Literal["guarded", "slides", "nvidia"]
_BINS = 2048  # of |x|, as both sources have it; more where there are more levels
_WORK = 2**22  # candidates times levels, at most about so many: beyond 10 bits every so-manieth candidate is tried
_AT_ONCE = 2**18  # candidates times levels in one step: a few MB
_CLOSE = 1e-11  # candidates nearer than this to the best are compared by the definition itself
_WORSE = 2.0  # times min-max's squared error, 3 dB: what `guarded` allows


@dataclass(frozen=True)
class Threshold:
    """bins: m, how many bins are kept; reach: the threshold in units of a bin; divergence: in nats."""

    bins: int
    reach: float
    divergence: float


@options_checked
def divergence(counts: np.ndarray, m: int, levels: int, variant: Variant = "slides") -> float:
    """KL of one candidate, straight from the definition. counts: [n] of |x|, from 0 up; O(m)."""
    bins = _prepared(counts, variant)
    p = bins[:m].copy()
    p[-1] += bins[m:].sum()
    q = spread(bins[:m], levels)
    if q.sum() == 0:
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    some = p > 0
    if (q[some] == 0).any():
        return np.inf
    return float((p[some] * np.log(p[some] / q[some])).sum())


def spread(bins: np.ndarray, levels: int) -> np.ndarray:
    """The bins merged into levels, level = ⌊j·levels/n⌋, and each level spread evenly over its non-empty bins."""
    level = np.arange(bins.size) * levels // bins.size
    filled = bins > 0
    number = np.bincount(level, filled, levels)
    each = np.bincount(level, bins, levels) / np.maximum(number, 1)
    return np.where(filled, each[level], 0.0)


@options_checked
def divergences(counts: np.ndarray, levels: int, variant: Variant = "slides", stride: int = 1) -> dict[int, float]:
    """KL of every candidate m, or of every `stride`-th and the last: within 1e-12 of `divergence`.

    O(levels) a candidate: Q is constant within a level, so a level's mass, its filled bins and Σ p·ln p, all
    from prefix sums, are enough.
    """
    bins = _prepared(counts, variant)
    filled = bins > 0
    logs = np.log(bins, out=np.zeros_like(bins), where=filled)
    sums = np.stack([np.concatenate([[0.0], np.cumsum(v)]) for v in (bins, filled, bins * logs)])
    last = bins.size if variant == "nvidia" else bins.size - 1
    candidates = list(range(levels, last + 1, stride))
    if candidates and candidates[-1] != last:
        candidates.append(last)
    at_once = max(1, _AT_ONCE // levels)
    found = [_from_prefixes(np.array(candidates[i:i + at_once]), levels, bins, sums)
             for i in range(0, len(candidates), at_once)]
    return dict(zip(candidates, np.concatenate(found).tolist() if found else [], strict=True))


def _from_prefixes(m: np.ndarray, levels: int, bins: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """KL of each m, float64 [k]. sums: prefix sums of mass, filled bins and Σ p·ln p.

    Level l holds bins ⌈l·m/levels⌉ to ⌈(l+1)·m/levels⌉ − 1: those with ⌊j·levels/m⌋ = l.
    """
    mass, number, entropy = sums
    kept, total, end = mass[m], mass[-1], bins[m - 1]
    beyond = total - kept
    edges = -(-np.arange(levels + 1) * m[:, None] // levels)
    level_mass, level_number = np.diff(mass[edges]), np.diff(number[edges])
    log_each = np.log(level_mass / np.maximum(level_number, 1), out=np.zeros_like(level_mass), where=level_mass > 0)
    p_log_p = entropy[m] - _x_log_x(end) + _x_log_x(end + beyond)
    # What lies beyond is added to the last bin; where that is filled, so is the last level.
    p_log_q = (level_mass * log_each).sum(1) + beyond * log_each[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        result = (p_log_p - p_log_q) / total - np.log(total / kept)
    return np.where((kept == 0) | ((beyond > 0) & (end == 0)), np.inf, result)  # P > 0 where Q = 0


def _prepared(counts: np.ndarray, variant: Variant) -> np.ndarray:
    bins = np.array(counts, np.float64)
    if variant == "nvidia" and bins.size > 1:
        bins[0] = bins[1]
    return bins


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return x * np.log(x, out=np.zeros_like(x), where=x > 0)


@options_checked
def threshold(counts: np.ndarray, levels: int, variant: Variant = "slides", stride: int = 1,
              fewest: int = 0) -> Threshold:
    """The candidate of least divergence, of those that keep `fewest` bins or more. Without one (fewer bins than levels)
    all bins are kept."""
    approximate = {m: value for m, value in divergences(counts, levels, variant, stride).items() if m >= fewest}
    least = min(approximate.values(), default=np.inf)
    if least == np.inf:
        return Threshold(len(counts), float(len(counts)), np.inf)
    # Ties are told by the definition's own arithmetic, not by that of the prefix sums.
    close = [m for m, value in approximate.items() if value <= least + _CLOSE]
    exact = {m: divergence(counts, m, levels, variant) for m in close}
    least = min(exact.values())
    ties = [m for m in close if exact[m] == least]
    m = ties[-1] if variant == "nvidia" else ties[0]
    return Threshold(m, float(m) if variant == "nvidia" else m + 0.5, least)


@dataclass(frozen=True)
class KlRule(RangeRule):
    """`kl`, which is `kl(guarded)`, `kl(slides)`, `kl(nvidia)`: for whole tensors of activations.

    A symmetric grid of b bits has 2^(b−1) magnitudes; so has an asymmetric one of data on both sides of 0. Data
    on one side of 0 has 2^b of them in an unsigned or asymmetric format. The range is what was seen, cut to ±threshold.
    """

    variant: str = "guarded"
    name = "kl"
    even_grids_only = True

    def __post_init__(self):
        if self.variant not in get_args(Named):
            raise EncodingError(f"no kl rule is called {self.variant!r}: write kl, kl(slides) or kl(nvidia)")

    def check(self, block: Block) -> None:
        if block != TENSOR:
            raise EncodingError(f"{self} per {block} has no meaning: a block has too few values for a distribution. "
                                "Use it per tensor, or minmax, percentile or mse per block")

    def observer(self, block: Block) -> Observer:
        return Histogram(block, bins=2**18)  # sparse; fine enough to be merged to any number of levels

    def range(self, observer: Observer, target: Target) -> Range:
        assert isinstance(observer, Histogram)
        low, high = observer.extremes()
        reach = self._reach(observer.blocks[0], target)
        return np.maximum(low, -reach), np.minimum(high, reach)

    def _reach(self, counts: Counts, target: Target) -> float:
        one_sided = counts.low >= 0 or counts.high <= 0
        all_codes = one_sided and not (target.symmetric and target.format.signed)
        levels = 2 ** (target.format.bits if all_codes else target.format.bits - 1)
        magnitudes, width = counts.magnitudes(max(_BINS, 4 * levels))
        stride = max(1, (len(magnitudes) - levels) * levels // _WORK)
        variant: Variant = "slides" if self.variant == "slides" else "nvidia"
        found = threshold(magnitudes, levels, variant, stride)
        if self.variant != "guarded":
            return found.reach * width

        def allowed(bins: int) -> bool:
            return _error(counts, bins * width, target) <= _WORSE * _error(counts, np.inf, target)

        while found.bins < len(magnitudes) and not allowed(found.bins):
            few, enough = found.bins, len(magnitudes)
            while enough - few > 1:
                middle = (few + enough) // 2
                few, enough = (few, middle) if allowed(middle) else (middle, enough)
            found = threshold(magnitudes, levels, variant, stride, enough)
        return found.reach * width


def _error(counts: Counts, reach: float, target: Target) -> float:
    """Mean squared error on the grid of what was seen, cut to ±reach."""
    low, high = max(counts.low, -reach), min(counts.high, reach)
    return float(squared_error(counts, np.array([low]), np.array([high]), target)[0])
