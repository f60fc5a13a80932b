"""Integers: two's complement, unsigned, and narrow. Their codes are their values."""

from dataclasses import dataclass

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics import affine
from fewbits.numerics.rounding import Array, Rounding, half_even


@dataclass(frozen=True)
class Int:
    """Integers of `bits` bits; the value of a code is the code itself.

    signed: two's complement [-2^(b-1), 2^(b-1)-1]; unsigned: [0, 2^b - 1].
    narrow: a signed range without its lowest code, so that it is symmetric: [-(2^(b-1)-1), 2^(b-1)-1].
    fraction: bits behind the point where the format fixes it (`q4.4`: 4); the scale is then 2^-fraction
    whatever the data. Negative and longer than the word are allowed. None: the data decide.
    Raises EncodingError for widths other than 1 to 16 and 32, for a narrow unsigned format, for a narrow
    format of one bit (it would hold only 0), and for a fraction outside -64 to 64.
    """

    bits: int
    signed: bool = True
    narrow: bool = False
    fraction: int | None = None

    def __post_init__(self):
        if not (self.bits in range(1, 17) or self.bits == 32):
            raise EncodingError(f"integers have 1 to 16 bits, or 32 for accumulators, not {self.bits}")
        if self.narrow and not self.signed:
            raise EncodingError(f"uint{self.bits} cannot be narrow: only signed ranges have a code to drop")
        if self.narrow and self.bits == 1:
            raise EncodingError("int1-narrow would hold only 0: use 2 bits, or the binary format")
        if self.fraction is not None and not -64 <= self.fraction <= 64:
            raise EncodingError(f"a fraction has -64 to 64 bits, not {self.fraction}")

    @property
    def low(self) -> int:
        """Lowest code."""
        return -(2 ** (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def high(self) -> int:
        """Highest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        """The smallest NumPy integer that holds every code."""
        width = next(w for w in (8, 16, 32) if self.bits <= w)
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")

    @property
    def largest(self) -> float:
        """The largest number."""
        return float(self.high)

    def values(self) -> np.ndarray:
        """All numbers of the format, ascending: int64 [high - low + 1]."""
        return np.arange(self.low, self.high + 1, dtype=np.int64)

    def canonical(self, codes: np.ndarray) -> np.ndarray:
        """Codes of the full width with the one that a narrow range leaves out replaced by the lowest it has."""
        return np.maximum(codes, self.low).astype(self.dtype)

    def encode(self, numbers: np.ndarray, rounding: Rounding = half_even) -> np.ndarray:
        """Codes of numbers in units of the scale: rounded, saturated; infinities saturate, NaN gives `low`."""
        wide = np.float64 if self.bits > 24 else numbers.dtype
        return affine.encode(numbers.astype(wide, copy=False), 1, 0, self.low, self.high, rounding).astype(self.dtype)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The numbers that codes stand for, float32."""
        return codes.astype(np.float32)

    def nearest(self, numbers: Array, rounding: Rounding = half_even) -> Array:
        """The numbers of the format that NumPy or torch `numbers` are rounded to; float type and shape kept."""
        return affine.encode(numbers, 1, 0, self.low, self.high, rounding)

    def __str__(self) -> str:
        if self.fraction is not None and not self.narrow:
            return f"{'' if self.signed else 'u'}q{self.bits - self.fraction}.{self.fraction}"
        return f"{'' if self.signed else 'u'}int{self.bits}{'-narrow' if self.narrow else ''}"
