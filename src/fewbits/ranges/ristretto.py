"""Ristretto's own arithmetic, with its mistakes, for comparison with its published figures.

What is sound of it is a format or a convention elsewhere: dynamic fixed point (`dynamic-weights`,
`dynamic-activations` in scale.py, with `half_away`), `pow2-4`, and `e4m3-finite-zero`, the nearest that
8 bits can hold to its e4m3: this page's has 256 numbers other than 0, then 0, and two more by a slip.

Source: Gysel et al. 2018, "Ristretto"; pmgysel/caffe, quantization.cpp and base_ristretto_layer.cpp.
"""

from math import ceil, log2

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.rounding import half_away


def minifloat_exponent_bits(largest: float) -> int:
    """Exponent bits for activations up to `largest`: max(4, ⌈log2(log2(largest) − 1) + 1⌉).

    4 where that is not defined (largest ≤ 2). Raises EncodingError unless largest is finite and not negative.
    """
    if not 0 <= largest < float("inf"):
        raise EncodingError(f"the largest magnitude is finite and not negative, not {largest}")
    return 4 if largest <= 2 else max(4, ceil(log2(log2(largest) - 1) + 1))


def minifloat(x: np.ndarray, exponent_bits: int, mantissa_bits: int) -> np.ndarray:
    """x in a sign, E exponent and M mantissa bits as Ristretto simulates it: float64, shape of x.

    Every exponent field is a binade, from 2^-bias; below it numbers become 0 (not the nearest). Ties go away
    from zero. Exponents above the highest give the largest number, but a mantissa that rounds up in the
    highest binade passes it: in e4m3 496 becomes 512 and 512 becomes 480. NaN gives the largest too.
    """
    x32 = np.asarray(x, np.float32)
    bias, top = 2 ** (exponent_bits - 1) - 1, 2**exponent_bits - 1
    pattern = x32.view(np.uint32).astype(np.int64)
    field, mantissa = (pattern >> 23) & 0xFF, pattern & 0x7FFFFF
    exponent = field - 127 + bias
    kept = half_away(mantissa / 2.0 ** (23 - mantissa_bits))
    kept = np.where(exponent > top, 2**mantissa_bits - 1, kept)
    numbers = np.ldexp(1 + kept / 2**mantissa_bits, np.minimum(exponent, top) - bias)
    return np.where((field == 0) | (exponent < 0), 0.0, np.copysign(numbers, x32))


def power_of_two(x: np.ndarray, lowest: int = -8, highest: int = -1) -> np.ndarray:
    """x with its exponent rounded, ties away from zero: ±2^e, e in [lowest, highest]; float64, shape of x.

    0 becomes +2^lowest, as in the code. The table `pow2-4` gives the same numbers.
    """
    x = np.asarray(x, np.float64)
    with np.errstate(divide="ignore"):
        exponent = half_away(np.log2(abs(x))).clip(lowest, highest)
    return np.where(x < 0, -1.0, 1.0) * 2.0**exponent
