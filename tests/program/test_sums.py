"""Sums: the fused multiply-add with its one rounding, and how many bits a bound takes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.program.accumulator import Bound
from fewbits.program.ops.pairs import fma

F32 = st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)


def nearest(real: Fraction) -> np.float32:
    """The float32 nearest to a number, the even one of two: by looking at the neighbours of a guess."""
    guess = np.float32(float(real))
    near = [np.nextafter(guess, np.float32(end)) for end in (-np.inf, np.inf)]
    return min((guess, *near), key=lambda each: (abs(Fraction(float(each)) - real), int(each.view(np.int32)) & 1))


@pytest.mark.parametrize(("c", "right"), [(2.0**-60, 16777218), (-(2.0**-60), 16777216), (0.0, 16777216)])
def test_a_sum_beside_a_tie_is_rounded_once(c: float, right: int) -> None:
    """97 · 172961 = 2^24 + 1 lies between two float32; float64 forgets which side of it the sum is on."""
    for sign in (1, -1):
        made = fma(np.array([97], np.float32), np.float32(sign * 172961), np.float32(sign * c))
        assert made[0] == sign * right


@given(F32, F32, F32)
def test_the_multiply_add_is_the_nearest_float(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if 2.0**-100 < abs(exact) < 2.0**120:
        assert fma(np.array([a], np.float32), np.float32(b), np.float32(c))[0] == nearest(exact)


@pytest.mark.parametrize(("low", "high", "bits"), [
    (-128, 0, 8), (-128, 127, 8), (-129, 0, 9), (0, 127, 8), (0, 128, 9), (-1, 0, 1), (0, 0, 1),
    (-(2**31), 2**31 - 1, 32)])
def test_bits_of_a_bound(low: int, high: int, bits: int) -> None:
    assert Bound(low, high).bits == bits
