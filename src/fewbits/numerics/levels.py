"""Named tables: powers of two, NF4, ternary, binary and others, one function each.

A table is one line here, one in `_NAMED` or `_COUNTED`, and one in the catalogue (catalogue.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import sqrt
from types import MappingProxyType
from typing import Literal

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.tables import Levels
from fewbits.options import options_checked

Spacing = Literal["log", "linear"]


@options_checked
def powers(lowest: int, highest: int, *, base: float = 2.0, zero: bool, between: Spacing,
           signed: bool = True) -> Levels:
    """±base^e for lowest ≤ e ≤ highest, with 0 or without.

    between: `log` rounds the exponent, so that the threshold above base^e is base^(e+½), and 0 is reached
    by 0 alone (without a zero, 0 becomes the smallest positive number); `linear` is to the nearest number,
    ties away from zero.
    Raises EncodingError for an empty range of exponents.
    """
    if highest < lowest:
        raise EncodingError(f"the exponents must ascend, not run from {lowest} to {highest}")
    positive = [base**e for e in range(lowest, highest + 1)]
    negative = [-v for v in reversed(positive)] if signed else []
    numbers = (*negative, *([0.0] if zero else []), *positive)
    if between == "linear":
        return Levels(numbers, ties="away" if zero else "up")
    above = [base ** (e + 0.5) for e in range(lowest, highest)]
    below = [-t for t in reversed(above)] if signed else []
    middle = [0.0] * (signed + zero)
    return Levels(numbers, (*below, *middle, *above), "toward-zero" if zero else "up")


def ristretto_powers(bits: int) -> Levels:
    """A sign and bits - 1 of exponent: ±2^-(2^(b-1)) … ±2^-1, no zero. 4 bits: ±2^-8 … ±2^-1.

    The exponent is rounded; 0 becomes the smallest positive number. Source: Gysel et al., Ristretto.
    """
    return powers(-(2 ** (_between(bits, 2, 6) - 1)), -1, zero=False, between="log")


def log_levels(bits: int, base: float = 2.0) -> Levels:
    """0 and ±base^e for the 2^(b-1) - 1 exponents up to 0; 0 stays 0, all else is at least the smallest.

    Source: Miyashita et al. 2016, arXiv:1603.01025 (LogNet); the exponents are counted so that they fit.
    """
    return powers(2 - 2 ** (_between(bits, 2, 6) - 1), 0, base=base, zero=True, between="log")


def unsigned_log_levels(bits: int) -> Levels:
    """0 and 2^e for the 2^b - 1 exponents up to 0, for activations behind a ReLU; all above 0 is at least the smallest.

    Source: Miyashita et al. 2016, arXiv:1603.01025 (LogNet); the exponents are counted so that they fit.
    """
    return powers(2 - 2 ** _between(bits, 2, 5), 0, zero=True, between="log", signed=False)


def linear_levels(bits: int) -> Levels:
    """-1 to 1 - 2^(1-b) in steps of 2^(1-b), ties to the even number.

    Source: Hubara et al. 2016, arXiv:1609.07061 (QNN), LinearQuant, for activations behind a hard tanh.
    """
    half = 2 ** (_between(bits, 2, 7) - 1)
    return Levels(tuple(code / half for code in range(-half, half)))


def log_sqrt2_levels(bits: int) -> Levels:
    """`log_levels` of base √2: twice as fine, half the reach."""
    return log_levels(bits, sqrt(2.0))


def inq_levels(bits: int) -> Levels:
    """0 and ±2^e for the 2^(b-2) exponents up to 0, thresholds half way, ties away from zero.

    Source: Zhou et al. 2017, arXiv:1702.03044 (INQ): b counts one bit for the zero.
    """
    return powers(1 - 2 ** (_between(bits, 2, 7) - 2), 0, zero=True, between="linear")


def additive_powers(bits: int, signed: bool = True) -> Levels:
    """Sums of powers of two, the largest 1: each sum takes one of {0, three powers} from every list.

    The bits beside the sign are n pairs and perhaps one more; the powers 2^-1, 2^-2, … are dealt to the n
    lists in turn, twice; then one to a list of its own where there is a bit more; then a third time.
    Source: Li et al. 2020, arXiv:1909.13144 (APoT), §2.2 and the authors' table of levels.
    """
    pairs, odd = divmod(_between(bits, 3, 8) - signed, 2)
    lists: list[list[float]] = [[0.0] for _ in range(pairs + odd)]
    dealt = [*range(pairs), *range(pairs), *([pairs] if odd else []), *range(pairs)]
    for exponent, owner in enumerate(dealt, start=1):
        lists[owner].append(2.0**-exponent)
    sums = sorted({sum(terms) for terms in product(*lists)})
    magnitudes = [v / sums[-1] for v in sums]
    return Levels((*(-v for v in reversed(magnitudes[1:]) if signed), *magnitudes))


def unsigned_additive_powers(bits: int) -> Levels:
    """`additive_powers` without a sign, for activations after a ReLU."""
    return additive_powers(bits, signed=False)


def nf4() -> Levels:
    """NormalFloat: 16 quantiles of the normal distribution, from -1 to 1, with 0 among them.

    Source: Dettmers et al. 2023, arXiv:2305.14314 (QLoRA), appendix E; ties to the even code.
    """
    return Levels((-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                  -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                  0.7229568362236023, 1.0))


def binary() -> Levels:
    """-1 and 1; 0 becomes 1. Source: Courbariaux et al. 2015, arXiv:1511.00363 (BinaryConnect)."""
    return Levels((-1.0, 1.0), ties="up")


def ternary(threshold: float = 0.5, negative: float = 1.0, positive: float = 1.0) -> Levels:
    """-negative, 0 and positive; |x| must exceed the threshold to leave 0.

    One scale: Li et al. 2016, arXiv:1605.04711 (TWN), with threshold Δ/α in units of its scale α.
    Two scales: Zhu et al. 2016, arXiv:1612.01064 (TTQ), its W_n and W_p, with Δ and the scale 1.
    """
    return Levels((-negative, 0.0, positive), (-threshold, threshold), "toward-zero")


def hwgq() -> Levels:
    """Half-wave Gaussian levels of 2 bits, for activations of unit variance; any x > 0 is at least 0.538.

    Source: Cai et al. 2017, arXiv:1702.00953 and its released code, whose first threshold is 0, not 0.269.
    """
    return Levels((0.0, 0.538, 1.076, 1.614), (0.0, 0.807, 1.345), "down")


def codebook(centroids: Sequence[float] | np.ndarray) -> Levels:
    """Centroids in any order as a table; each number goes to the nearest. Repeated centroids count once."""
    return Levels(tuple(np.unique(np.asarray(centroids, np.float32)).tolist()))


_NAMED: Mapping[str, Callable[[], Levels]] = MappingProxyType(
    {"nf4": nf4, "binary": binary, "ternary": ternary, "hwgq2": hwgq})
_COUNTED: Mapping[str, Callable[[int], Levels]] = MappingProxyType(
    {"pow2": ristretto_powers, "log2": log_levels, "ulog2": unsigned_log_levels, "logsqrt2": log_sqrt2_levels,
     "inq": inq_levels, "linear": linear_levels,
     "apot": additive_powers, "uapot": unsigned_additive_powers})
_COUNTED_TEXT = re.compile(rf"({'|'.join(_COUNTED)})-([0-9]{{1,3}})")


def named_table(text: str) -> Levels | None:
    """The table a text names (`nf4`, `pow2-4`), None when it names none; its str is the text."""
    if text in _NAMED:
        table = _NAMED[text]()
    elif match := _COUNTED_TEXT.fullmatch(text):
        table = _COUNTED[match[1]](int(match[2]))
    else:
        return None
    return Levels(table.numbers, table.thresholds, table.ties, text)


def _between(bits: int, least: int, most: int) -> int:
    if not least <= bits <= most:
        raise EncodingError(f"this table has {least} to {most} bits, not {bits}")
    return bits
