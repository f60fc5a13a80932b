"""Fixed-point arithmetic against its golden vectors and against Python's own integers and fractions."""

import operator
from fractions import Fraction
from math import floor as math_floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import EncodingError
from fewbits.numerics.fixed import NEAREST, Arithmetic, Fixed
from fewbits.numerics.rounding import half_even

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
SPLITS = st.sampled_from([(4, 4), (1, 7), (8, 8), (16, 16), (24, 8), (32, 32), (1, 63), (64, 0), (8, 0)])


def wrapped(raw: int, bits: int) -> int:
    return (raw + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def test_golden_construction(golden):
    for row in golden("fixed_h")["construct_16_16"]:
        number = Fixed.of(row["x"], 16, 16)
        assert number.raw == row["raw"]
        assert number.numpy() == row["value"]
        assert number.to_int() == row["to_int"]


def test_golden_operations(golden):
    for row in golden("fixed_h")["binary_16_16"]:
        a, b = Fixed.of(row["a"], 16, 16), Fixed.of(row["b"], 16, 16)
        assert (a.raw, b.raw) == (row["raw_a"], row["raw_b"])
        got = OPERATORS[row["op"]](a, b)
        assert got.raw == row["raw"]
        assert got.numpy() == row["value"]


def test_golden_overflow_and_widening(golden):
    section = golden("fixed_h")
    square, total = section["overflow"]
    a = Fixed.of(200, 16, 16)
    assert (a * a).raw == square["raw"]
    assert (a * a).numpy() == square["value"]
    b = Fixed.of(100, 8, 8)
    assert (b + b).raw == total["raw"]
    widen = section["widen_8_8_to_16_16"]
    narrow = Fixed.of(widen["x"], 8, 8)
    assert narrow.raw == widen["raw_8_8"]
    assert narrow.widen(16, 16).raw == widen["raw_16_16"]


@given(SPLITS, st.data())
def test_operators_are_exact_as_fixed_h(split, data):
    i, f = split
    bits = i + f
    words = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    left = data.draw(st.lists(words, min_size=3, max_size=3))
    right = data.draw(st.lists(words, min_size=3, max_size=3))
    a, b = (Fixed(np.array(v, f"int{bits}"), i, f) for v in (left, right))
    pairs = list(zip(left, right, strict=True))
    assert (a + b).raw.tolist() == [wrapped(x + y, bits) for x, y in pairs]
    assert (a - b).raw.tolist() == [wrapped(x - y, bits) for x, y in pairs]
    assert (a * b).raw.tolist() == [wrapped((x * y) >> f, bits) for x, y in pairs]
    assert (-a).raw.tolist() == [wrapped(-x, bits) for x in left]
    assert abs(a).raw.tolist() == [wrapped(abs(x), bits) for x in left]
    assert (a < b).tolist() == [x < y for x, y in pairs]
    assert (a == b).tolist() == [x == y for x, y in pairs]
    if all(right):
        assert (a / b).raw.tolist() == [wrapped(int(Fraction(x << f, y)), bits) for x, y in pairs]


@given(SPLITS, st.data())
def test_the_other_arithmetic_rounds_and_saturates(split, data):
    i, f = split
    bits = i + f
    words = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    x, y = data.draw(words), data.draw(words)
    a, b = (Fixed(np.array(v, f"int{bits}"), i, f, NEAREST) for v in (x, y))

    def kept(exact: Fraction) -> int:
        return min(max(round(exact), -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)  # round() is half-even

    assert (a + b).raw == kept(Fraction(x + y))
    assert (a * b).raw == kept(Fraction(x * y, 2**f))
    if y:
        assert (a / b).raw == kept(Fraction(x << f, y))


@given(st.floats(allow_nan=False, allow_infinity=False), SPLITS)
def test_construction_truncates_every_float64_exactly(x, split):
    i, f = split
    assert Fixed.of(x, i, f).raw == wrapped(int(Fraction(x) * 2**f), i + f)
    near = Fixed.of(x, i, f, Arithmetic(construct=half_even))
    assert near.raw == wrapped(round(Fraction(x) * 2**f), i + f)


@pytest.mark.parametrize("axes", [(), (1,)])
def test_products_and_constructions_between_2_to_the_63_and_64(axes):
    """Where an integer without axes used to become uint64, and its quotient a float of 53 bits."""
    a, b = (Fixed(np.full(axes, raw, np.int64), 32, 32) for raw in (60843, 242486811236119))
    assert (a * b).raw == 60843 * 242486811236119 >> 32 == 3435096018
    assert (a * b).raw.dtype == np.int64
    nearest = Fixed(np.full(axes, 60843, np.int64), 32, 32, NEAREST)
    assert (nearest * Fixed(b.raw, 32, 32, NEAREST)).raw == round(Fraction(60843 * 242486811236119, 2**32))
    large = 2.0**31 * 1.25 + 2.0**-20  # · 2^32 lies between 2^63 and 2^64
    assert Fixed.of(np.full(axes, large), 32, 32).raw == wrapped(int(Fraction(large) * 2**32), 64)
    assert Fixed.of(np.full(axes, large), 32, 32, NEAREST).raw == 2**63 - 1
    quotient = Fixed(np.full(axes, 2**31 + 1, np.int64), 32, 32) / Fixed(np.full(axes, 3, np.int64), 32, 32)
    assert quotient.raw == (2**31 + 1) * 2**32 // 3


def test_division_by_zero_has_an_answer():
    with pytest.raises(EncodingError, match="zero"):
        Fixed.of([1.0, 2.0], 16, 16) / 0
    answers = Fixed.of([1.0, -1.0, 0.0], 8, 8, NEAREST) / 0
    assert answers.raw.tolist() == [32767, -32768, 0]


def test_smallest_over_minus_one_wraps():
    least = Fixed(np.array(-(2**31), np.int32), 16, 16)
    assert (least / Fixed.of(-1, 16, 16)).raw == -(2**31)
    assert (-least).raw == -(2**31)


def test_plain_numbers_and_arrays_take_part():
    a = Fixed.of([1.5, -2.25], 16, 16)
    assert (a + 1).numpy().tolist() == [2.5, -1.25]
    assert (1 - a).numpy().tolist() == [-0.5, 3.25]
    assert (np.array([2.0, 4.0]) * a).numpy().tolist() == [3.0, -9.0]
    assert (3 / Fixed.of(2, 16, 16)).numpy() == 1.5
    assert (a > 0).tolist() == [True, False]
    assert a[0].numpy() == 1.5
    assert len(a) == 2
    assert a.shape == (2,)


def test_converting_narrows_by_name():
    a = Fixed.of([1.75, -1.75, 300.0], 16, 16)
    with pytest.raises(EncodingError, match="convert"):
        a.widen(8, 8)
    assert a.convert(16, 0, half_even).raw.tolist() == [2, -2, 300]
    saturating = Fixed.of([300.0, -300.0], 16, 16, NEAREST).convert(8, 8, half_even)
    assert saturating.raw.tolist() == [32767, -32768]


@pytest.mark.parametrize("split", [(8, 9), (0, 8), (9, -1), (64, 64), (3, 3)])
def test_splits_that_are_no_word(split):
    with pytest.raises(EncodingError):
        Fixed.of(1.0, *split)


def test_what_it_cannot_hold():
    for bad in (np.nan, np.inf):
        with pytest.raises(EncodingError, match="NaN"):
            Fixed.of(bad, 8, 8)
    assert Fixed.of([np.inf, -np.inf], 8, 8, NEAREST).raw.tolist() == [32767, -32768]
    with pytest.raises(EncodingError):
        Fixed.of(np.nan, 8, 8, NEAREST)
    with pytest.raises(EncodingError, match="mix"):
        Fixed.of(1, 8, 8) + Fixed.of(1, 4, 4)
    with pytest.raises(EncodingError, match="mix"):
        Fixed.of(1, 8, 8) + Fixed.of(1, 8, 8, NEAREST)
    with pytest.raises(EncodingError, match="int16"):
        Fixed(np.zeros(2, np.int32), 8, 8)
    empty = Fixed.of(np.zeros((0, 3)), 8, 8)
    assert (empty * empty).shape == (0, 3)


def test_sixty_four_bits_go_through_products_of_128():
    a = Fixed.of(2**62 - 1, 64, 0)
    assert (a * a).raw == wrapped((2**62 - 1) ** 2, 64)
    b = Fixed(np.array(2**63 - 1, np.int64), 1, 63)
    assert (b * b).raw == math_floor(Fraction((2**63 - 1) ** 2, 2**63))
