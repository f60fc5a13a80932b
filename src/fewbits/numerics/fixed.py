"""Fixed-point arithmetic: arrays of numbers raw · 2^-F, as `numeric::fixed<I, F>` of eteran's cpp-utilities.

The split counts the sign in the integer bits: I + F is 8, 16, 32 or 64. What a C++ type does by default is
`FIXED_H`; every choice has another answer by name:

| step                          | `FIXED_H`            | `NEAREST`          |
|-------------------------------|----------------------|--------------------|
| construction from a real      | toward zero          | half-even          |
| multiplication, (a·b) · 2^-F  | floor (a shift)      | half-even          |
| division, (a · 2^F) / b       | toward zero          | half-even          |
| overflow                      | wraps modulo 2^(I+F) | saturates          |
| division by zero              | EncodingError        | saturates, 0/0 = 0 |

Source: `fixed.h` as the lecture "Fixed<16,16>" uses it; a mixed floor and truncation, kept exactly.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from fewbits.errors import EncodingError
from fewbits.numerics.given import real_numbers
from fewbits.numerics.rounding import Rounding, divide, floor, half_even, toward_zero
from fewbits.options import arguments_checked, options_checked


@options_checked
@dataclass(frozen=True)
class Arithmetic:
    """The rule of each step; rules are those of rounding.py that need no generator."""

    construct: Rounding = toward_zero
    multiply: Rounding = floor
    divide: Rounding = toward_zero
    overflow: Literal["wrap", "saturate"] = "wrap"


FIXED_H = Arithmetic()
NEAREST = Arithmetic(half_even, half_even, half_even, "saturate")


@arguments_checked
@dataclass(frozen=True, eq=False)
class Fixed:
    """An array of fixed-point numbers: + - * / // are NumPy's, comparison gives arrays of bool.

    raw: the stored integers, int8 to int64 of I + F bits, any shape; integer_bits I ≥ 1 with the sign,
    fraction_bits F ≥ 0. Operators take another Fixed of the same split and arithmetic, or plain numbers,
    which are constructed first; `widen` brings a narrower one to a wider split. Results keep the split.
    Raises EncodingError for splits that do not add up to a word, for operands of different splits, and for
    reals that are NaN (or, where overflow wraps, infinite).
    """

    raw: np.ndarray
    integer_bits: int
    fraction_bits: int
    arithmetic: Arithmetic = FIXED_H

    __array_priority__ = 1000  # NumPy arrays on the left leave the operator to us
    __array_ufunc__ = None

    def __post_init__(self):
        if self.bits not in (8, 16, 32, 64) or self.integer_bits < 1 or self.fraction_bits < 0:
            raise EncodingError(f"Fixed<{self.integer_bits},{self.fraction_bits}> has {self.bits} bits: I and F "
                                "add up to 8, 16, 32 or 64, and I holds the sign")
        raw = np.asarray(self.raw)
        if raw.dtype != np.dtype(f"int{self.bits}"):
            raise EncodingError(f"{self.bits} bits are stored as int{self.bits}, not {raw.dtype}; "
                                "to construct from numbers use Fixed.of")
        object.__setattr__(self, "raw", raw)

    @classmethod
    @arguments_checked
    def of(cls, real: npt.ArrayLike, integer_bits: int, fraction_bits: int,
           arithmetic: Arithmetic = FIXED_H) -> "Fixed":
        """Numbers constructed by the arithmetic's rule, exactly: of float64 every bit counts, integers of any
        size are taken as they are."""
        word = cls(np.zeros((), f"int{_word(integer_bits, fraction_bits)}"), integer_bits, fraction_bits, arithmetic)
        return word._stored(word._scaled(real))

    @property
    def bits(self) -> int:
        """Bits of the word."""
        return self.integer_bits + self.fraction_bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.raw.shape

    def numpy(self) -> np.ndarray:
        """The numbers as float64 (of 64 bits: rounded to the nearest)."""
        return np.ldexp(self.raw.astype(np.float64), -self.fraction_bits)

    def to_int(self) -> np.ndarray:
        """Integer part as the C++ type converts: an arithmetic shift, so -10.5 becomes -11. int64."""
        return self.raw.astype(np.int64) >> self.fraction_bits

    def widen(self, integer_bits: int, fraction_bits: int) -> "Fixed":
        """The same numbers in a split that has no fewer bits on either side. Raises EncodingError otherwise."""
        if integer_bits < self.integer_bits or fraction_bits < self.fraction_bits:
            raise EncodingError(f"{self._split} widens to splits with no fewer bits on either side, not "
                                f"Fixed<{integer_bits},{fraction_bits}>: use convert to narrow")
        return self.convert(integer_bits, fraction_bits, floor)

    def convert(self, integer_bits: int, fraction_bits: int, rounding: Rounding) -> "Fixed":
        """The numbers in any other split, rounded by a rule; overflow as the arithmetic says."""
        other = Fixed(np.zeros((), f"int{_word(integer_bits, fraction_bits)}"), integer_bits, fraction_bits,
                      self.arithmetic)
        shift = fraction_bits - self.fraction_bits
        raw = self.raw.astype(object)
        return other._stored(raw * 2**shift if shift >= 0 else divide(raw, 2**-shift, rounding))

    def __getitem__(self, index) -> "Fixed":
        return replace(self, raw=np.asarray(self.raw[index]))

    def __len__(self) -> int:
        return len(self.raw)

    def __neg__(self) -> "Fixed":
        return self._stored(-self._wide())

    def __pos__(self) -> "Fixed":
        return self

    def __abs__(self) -> "Fixed":
        return self._stored(abs(self._wide()))

    def __add__(self, other) -> "Fixed":
        return self._stored(self._wide() + self._same(other)._wide())

    def __sub__(self, other) -> "Fixed":
        return self._stored(self._wide() - self._same(other)._wide())

    def __mul__(self, other) -> "Fixed":
        product = self._wide() * self._same(other)._wide()
        return self._stored(divide(product, 2**self.fraction_bits, self.arithmetic.multiply))

    def __truediv__(self, other) -> "Fixed":
        divisor = self._same(other)._wide()
        dividend = self._wide(spare=self.fraction_bits) * 2**self.fraction_bits
        if not (divisor == 0).any():
            return self._stored(divide(dividend, divisor, self.arithmetic.divide))
        if self.arithmetic.overflow == "wrap":
            raise EncodingError(f"division of {self._split} by zero: C++ leaves it undefined; saturating "
                                "arithmetic has an answer")
        quotient = divide(dividend, np.where(divisor == 0, 1, divisor), self.arithmetic.divide)
        return self._stored(np.where(divisor == 0, np.asarray(np.sign(dividend), object) * 2**self.bits, quotient))

    __radd__ = __add__

    def __rsub__(self, other) -> "Fixed":
        return self._same(other) - self

    __rmul__ = __mul__

    def __rtruediv__(self, other) -> "Fixed":
        return self._same(other) / self

    def __eq__(self, other):
        return self.raw == self._same(other).raw

    def __ne__(self, other):
        return self.raw != self._same(other).raw

    def __lt__(self, other):
        return self.raw < self._same(other).raw

    def __le__(self, other):
        return self.raw <= self._same(other).raw

    def __gt__(self, other):
        return self.raw > self._same(other).raw

    def __ge__(self, other):
        return self.raw >= self._same(other).raw

    __hash__ = None  # type: ignore[assignment]  # an array

    def __str__(self) -> str:
        return f"{self._split} {self.numpy()}"

    __repr__ = __str__

    @property
    def _split(self) -> str:
        return f"Fixed<{self.integer_bits},{self.fraction_bits}>"

    def _same(self, other) -> "Fixed":
        if not isinstance(other, Fixed):
            return Fixed.of(other, self.integer_bits, self.fraction_bits, self.arithmetic)
        if (other.integer_bits, other.fraction_bits, other.arithmetic) != (
                self.integer_bits, self.fraction_bits, self.arithmetic):
            raise EncodingError(f"{self._split} and {other._split} do not mix, nor do two arithmetics: "
                                "widen or convert one first")
        return other

    def _wide(self, spare: int = 0) -> np.ndarray:
        """Raw integers in a type that holds a product (2·bits) and `spare` more bits: int64, or Python's own."""
        return self.raw.astype(np.int64 if self.bits <= 16 or (self.bits == 32 and spare < 31) else object)

    def _scaled(self, real: npt.ArrayLike) -> np.ndarray:
        """real · 2^F rounded by the rule of construction, in Python's integers; infinities beyond every word."""
        numbers = real_numbers(real, whole=True)
        if numbers.dtype.kind in "biuO":
            return numbers.astype(object) * 2**self.fraction_bits
        numbers = numbers.astype(np.float64)
        if np.isnan(numbers).any() or (self.arithmetic.overflow == "wrap" and np.isinf(numbers).any()):
            raise EncodingError(f"{self._split} cannot hold NaN, nor an infinity where overflow wraps")
        beyond = np.clip(numbers, -(2.0**1000), 2.0**1000)
        mantissa, exponent = np.frexp(beyond)
        whole = np.ldexp(mantissa, 53).astype(np.int64).astype(object)  # beyond = whole · 2^(exponent - 53)
        shift = exponent.astype(object) - 53 + self.fraction_bits
        up = whole * _power(np.maximum(shift, 0))
        return divide(up, _power(np.maximum(-shift, 0)), self.arithmetic.construct)

    def _stored(self, raw: np.ndarray) -> "Fixed":
        """Raw integers wrapped or saturated to the word."""
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        shape = np.shape(raw)
        # NumPy turns an object array of no axes into its object, an int
        raw = np.atleast_1d(np.asarray(raw, object) if isinstance(raw, int) else raw)
        if self.arithmetic.overflow == "saturate":
            raw = np.minimum(np.maximum(raw, low), high)
        elif raw.dtype == object:
            raw = (raw - low) % 2**self.bits + low
        return replace(self, raw=raw.astype(np.dtype(f"int{self.bits}")).reshape(shape))


def _word(integer_bits: int, fraction_bits: int) -> int:
    """The narrowest storage width for so many bits, so that the check on creation can name the split."""
    bits = integer_bits + fraction_bits
    return bits if bits in (8, 16, 32, 64) else 64


def _power(exponents: np.ndarray) -> np.ndarray:
    """2^exponent in Python's integers."""
    return np.asarray(np.frompyfunc(lambda e: 1 << int(e), 1, 1)(exponents), dtype=object)
