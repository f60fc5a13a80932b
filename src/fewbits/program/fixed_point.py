"""Integer requantisation: a real factor as an integer multiplier and a shift (docs/numerics.md, eq. 17-20).

Source: Jacob et al. 2018, arXiv:1712.05877, §2.2; gemmlowp's fixed-point document; the 16×8 kernels of LiteRT.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Fixed:
    """mantissa · 2^(shift − 31), per tensor or channel. mantissa: int64 in [2^30, 2^31), or 0; shift: int64,
    positive to the left."""

    mantissa: np.ndarray
    shift: np.ndarray

    @property
    def ndim(self) -> int:
        """0 for one factor, 1 for one per channel."""
        return self.mantissa.ndim

    def reshape(self, shape: tuple[int, ...]) -> "Fixed":
        """The same factors along other axes."""
        return Fixed(self.mantissa.reshape(shape), self.shift.reshape(shape))

    def over(self, count: int) -> "Fixed":
        """A count-th of it, as LiteRT's mean takes it: the mantissa is divided, with the bits that this leaves."""
        bits = np.minimum(count.bit_length() - 1, 31 + self.shift)
        return Fixed((self.mantissa << bits) // count, self.shift - bits)

    @property
    def left(self) -> int:
        """Largest shift to the left, 0 for none."""
        return max(int(self.shift.max(initial=0)), 0)


def fixed(real: np.ndarray | np.floating) -> Fixed:
    """The nearest multiplier and shift to positive float64 factors; 0 below 2^-32 (eq. 17)."""
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    full = mantissa == 2**31
    mantissa, shift = np.where(full, 2**30, mantissa), shift.astype(np.int64) + full
    return Fixed(np.where(shift < -31, 0, mantissa), np.where(shift < -31, 0, shift))


def double_rounding(x: np.ndarray, factor: Fixed) -> np.ndarray:
    """Saturating rounding doubling high multiply, then a rounding shift to the right, half away from 0 (eq. 18)."""
    high = ((x << np.maximum(factor.shift, 0)) * factor.mantissa + 2**30) >> 31
    right = np.maximum(-factor.shift, 0)
    mask = (np.int64(1) << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def single_rounding(x: np.ndarray, factor: Fixed) -> np.ndarray:
    """One shift to the right of the whole product, half up (eq. 19).

    The product of a 48-bit sum outgrows 64 bits, so its two parts are shifted one after the other.
    """
    right = 31 - factor.shift
    lower = (x & (2**20 - 1)) * factor.mantissa + (np.int64(1) << (right - 1))
    return ((x >> 20) * factor.mantissa + (lower >> 20)) >> (right - 20)


def wide_rounding(x: np.ndarray, factor: Fixed) -> np.ndarray:
    """Sums of up to 48 bits by the upper 16 bits of the multiplier, half up (eq. 20)."""
    mantissa = np.minimum((factor.mantissa + 2**15) >> 16, 2**15 - 1)
    right = 15 - factor.shift
    return (x * mantissa + (np.int64(1) << (right - 1))) >> right


ROUNDINGS: Mapping[str, Callable[[np.ndarray, Fixed], np.ndarray]] = {
    "double": double_rounding, "single": single_rounding, "wide": wide_rounding}
