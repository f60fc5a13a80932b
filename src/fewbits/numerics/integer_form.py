"""Float formats and those of listed levels as integers with a float scale, for integer dot products."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Float, Format, Int, Levels
from fewbits.numerics.rounding import Rounding, half_even

UNSIGNED = Int(8, signed=False)
"""Of activations: a format without the number 0 has it there too, as its zero point (binary ±1 is {0, 2} around 1)."""


@dataclass(frozen=True)
class IntegerForm:
    """numbers ≈ step · integers. exact: whether they are equal."""

    integers: Int
    step: float
    exact: bool


def integer_form(format: Format, wanted: Int | None) -> IntegerForm | None:
    """How the numbers of a format are represented by integers; None when they are not.

    An Int is its own form. A Float or Levels whose numbers are all multiples of one step, none above 127 of them
    (ternary, binary, short powers of two), has it exactly in int8; any other one only where `wanted` says which
    integers to round to, its largest number becoming the largest of them.
    """
    if isinstance(format, Int):
        return IntegerForm(format, 1.0, True)
    exact = _exact_step(format, 127)
    if exact is not None:
        return IntegerForm(Int(8), exact, True)
    if wanted is None:
        return None
    return IntegerForm(wanted, format.largest / wanted.high, False)


def in_steps(format: Float | Levels, form: IntegerForm, numbers: np.ndarray,
             rounding: Rounding = half_even) -> np.ndarray:
    """`numbers`, in units of the format's scale, as multiples of the integer step: whole float64, any shape.
    rounding: to the format; from there to the integers it is half_even, in float64: a number of the format may lie
    half way between two integers, and must go the same way wherever it is rounded."""
    return half_even(format.nearest(numbers, rounding).astype(np.float64) / form.step)


def levels(format: Float | Levels, form: IntegerForm) -> np.ndarray:
    """The integers that a format's numbers become, each once, ascending: int64.

    Raises EncodingError when they span more than 8 bits.
    """
    numbers = format.values()
    found = np.unique(in_steps(format, form, numbers[np.isfinite(numbers)].astype(np.float32))).astype(np.int64)
    if max(found[-1], 0) - min(found[0], 0) > UNSIGNED.high:
        raise EncodingError(f"the numbers of {format} span {found[0]} to {found[-1]} steps, more than 8 bits: "
                            "add `integers: int8` to round them")
    return found


@lru_cache(maxsize=64)
def _exact_step(format: Float | Levels, most: int) -> float | None:
    """The largest step of which every number is a multiple, if none is more than `most` of them."""
    if format.bits > 8:
        return None
    numbers = format.values()
    fractions = [abs(Fraction(float(number))) for number in numbers[np.isfinite(numbers)] if number]
    denominator = lcm(*(fraction.denominator for fraction in fractions))
    step = Fraction(gcd(*(int(fraction * denominator) for fraction in fractions)), denominator)
    return float(step) if max(fractions) / step <= most else None
