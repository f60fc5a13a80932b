"""Integer requantisation against gemmlowp's definition in Python integers, the golden multiplier, and torch."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fewbits.engines.torch.fixed_point import rescaler
from fewbits.program.fixed_point import ROUNDINGS, Fixed, double_rounding, fixed


def towards_zero(numerator: int, denominator: int) -> int:
    """As C divides."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient


def slow_multiplier(real: float) -> tuple[int, int]:
    fraction, shift = math.frexp(real)
    mantissa = math.floor(Fraction(fraction) * 2**31 + Fraction(1, 2))
    return (2**30, shift + 1) if mantissa == 2**31 else (mantissa, shift)


def slow_double(x: int, mantissa: int, shift: int) -> int:
    """SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT, as gemmlowp words them."""
    product = (x << max(shift, 0)) * mantissa
    high = towards_zero(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)
    exact = Fraction(high, 2 ** max(-shift, 0))
    return int(math.copysign(math.floor(abs(exact) + Fraction(1, 2)), exact))


def slow_single(x: int, mantissa: int, shift: int) -> int:
    return math.floor(Fraction(x * mantissa, 2 ** (31 - shift)) + Fraction(1, 2))


def slow_wide(x: int, mantissa: int, shift: int) -> int:
    reduced = 0x7FFF if mantissa >= 0x7FFF0000 else (mantissa + 2**15) // 2**16
    return math.floor(Fraction(x * reduced) / Fraction(2) ** (15 - shift) + Fraction(1, 2))


SLOW = {"double": slow_double, "single": slow_single, "wide": slow_wide}
sums = st.integers(-(2**31) + 1, 2**31 - 1)
factors = st.floats(2.0**-30, 1, exclude_max=True) | st.integers(1, 30).map(lambda bits: 2.0**-bits)


@pytest.mark.parametrize("name", SLOW)
@given(x=sums | st.integers(-300, 300), real=factors)
@example(x=3, real=2.0**-3)
@example(x=-4, real=2.0**-3)
@example(x=2**31 - 1, real=1 - 2.0**-33)
def test_equals_the_slow_definition(name, x, real):
    factor = fixed(real)
    mantissa, shift = slow_multiplier(real)
    assert (int(factor.mantissa), int(factor.shift)) == (mantissa, shift)
    if name == "wide" and shift > 7:
        return
    expected = SLOW[name](x, mantissa, shift)
    assert int(ROUNDINGS[name](np.array(x), factor)) == expected
    assert int(rescaler(factor, name)(torch.tensor(x))) == expected


@pytest.mark.parametrize("name", SLOW)
@given(x=st.integers(-(2**20), 2**20), real=st.floats(1, 60))
def test_factors_above_one(name, x, real):
    factor, slow = fixed(real), slow_multiplier(real)
    assert int(ROUNDINGS[name](np.array(x), factor)) == SLOW[name](x, *slow)
    assert int(rescaler(factor, name)(torch.tensor(x))) == SLOW[name](x, *slow)


@pytest.mark.parametrize("name", ["single", "wide"])
@given(x=st.integers(-(2**47), 2**47 - 1), real=st.floats(2.0**-30, 2.0**-16))
@example(x=2**47 - 1, real=2.0**-17)
def test_sums_of_48_bits(name, x, real):
    factor, slow = fixed(real), slow_multiplier(real)
    assert int(ROUNDINGS[name](np.array(x), factor)) == SLOW[name](x, *slow)
    assert int(rescaler(factor, name)(torch.tensor(x))) == SLOW[name](x, *slow)


def test_golden_multiplier(golden):
    section = golden("quantized_conv")
    expected = section["jacob_multiplier"]
    factor = fixed(expected["M"])
    assert (int(factor.mantissa), -int(factor.shift)) == (expected["M0_int32"], expected["right_shift_n"])
    assert int(factor.mantissa) * 2.0 ** (int(factor.shift) - 31) == expected["M_recovered"]
    codes = double_rounding(np.array(section["acc_pad_ZX"]), factor) + section["Z_Y"]
    assert codes.clip(-128, 127).tolist() == expected["q_Y_integer_only"]


def test_too_small_is_zero():
    assert int(fixed(2.0**-40).mantissa) == 0
    assert double_rounding(np.array([10**9]), fixed(2.0**-40)).tolist() == [0]


def test_a_count_th_keeps_its_bits():
    third = fixed(0.9).over(3)
    assert isinstance(third, Fixed)
    assert abs(int(third.mantissa) * 2.0 ** (int(third.shift) - 31) - 0.3) < 2.0**-31
    assert int(third.shift) == fixed(0.9).shift - 1
