"""Floats and tables as integers with a float scale: how they get into sums of products."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

import numpy as np

from fewbits.numerics.formats import Float, Format, Int, Table


@dataclass(frozen=True)
class IntegerForm:
    """numbers ≈ step · integers. exact: whether it is an equality."""

    integers: Int
    step: float
    exact: bool


def integer_form(format: Format, wanted: Int | None) -> IntegerForm | None:
    """How the numbers of a format are taken as integers, or None when they have no such form.

    An Int is its own form. A Float or Table whose numbers are all multiples of one step, none above 127 of them
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


@lru_cache(maxsize=64)
def _exact_step(format: Float | Table, most: int) -> float | None:
    """The largest step of which every number is a multiple, if none is more than `most` of them."""
    if format.bits > 8:
        return None
    numbers = format.values()
    fractions = [abs(Fraction(float(number))) for number in numbers[np.isfinite(numbers)] if number]
    denominator = lcm(*(fraction.denominator for fraction in fractions))
    step = Fraction(gcd(*(int(fraction * denominator) for fraction in fractions)), denominator)
    return float(step) if max(fractions) / step <= most else None
