"""Every rounding rule: golden values, NumPy and torch alike, exact integer division, stochastic statistics."""

from fractions import Fraction
from functools import partial
from math import ceil as math_ceil
from math import floor as math_floor
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.numerics import rounding
from fewbits.numerics.rounding import RULES, divide, half_away, half_down, stochastic, stochastic_from, to_step

GOLDEN_NAMES = {"floor": "floor", "ceil": "ceil", "half_even": "rne",
                "half_away": "half_away (C round, Ristretto code)",
                "half_up": "half_up (floor(x+0.5), AIMET on shifted ints)",
                "half_down": "half_down (Ristretto paper formula as it must be read: tie -> floor)"}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_golden(golden, name, kind):
    section = golden("rounding")
    x = np.array(section["x"], kind)
    expected = section[GOLDEN_NAMES[name]]
    assert RULES[name](x).tolist() == expected
    assert RULES[name](torch.from_numpy(x)).tolist() == expected
    assert RULES[name](x).dtype == kind


@pytest.mark.parametrize("name", RULES)
def test_not_numbers_pass_and_large_numbers_stay(name):
    x = np.float32([np.nan, np.inf, -np.inf, 2.0**23 + 1, -(2.0**30), -0.0])
    for got in (RULES[name](x), RULES[name](torch.from_numpy(x)).numpy()):
        np.testing.assert_array_equal(got, x)


def test_half_up_does_not_add_a_half():
    below = np.float32([0.49999997, -0.49999997])
    for rule in (half_away, rounding.half_up, half_down, rounding.half_even):
        assert abs(rule(below)).tolist() == [0, 0]


def test_steps_as_ristretto_means_them():
    x = np.array([0.1, 0.125, 0.13, 0.25, -0.125, -0.3])
    assert to_step(x, 0.25, half_down).tolist() == [0.0, 0.0, 0.25, 0.25, -0.25, -0.25]
    assert to_step(x, 0.25, half_away).tolist() == [0.0, 0.25, 0.25, 0.25, -0.25, -0.25]


def exact(q: Fraction, name: str) -> int:
    """The rule from its definition, in rational numbers."""
    low, rest = math_floor(q), q - math_floor(q)
    tie = {"half_even": low + low % 2, "half_away": low + (q > 0), "half_up": low + 1, "half_down": low}
    if name == "floor":
        return low
    if name == "ceil":
        return math_ceil(q)
    if name == "toward_zero":
        return int(q)
    return tie[name] if rest == Fraction(1, 2) else low + (rest > Fraction(1, 2))


@pytest.mark.parametrize("name", RULES)
@given(a=st.integers(-(2**70), 2**70), b=st.integers(-(2**20), 2**20).filter(bool), small=st.integers(-50, 50),
       tiny=st.integers(-6, 6).filter(bool))
def test_integer_division_is_exact(name, a, b, small, tiny):
    assert divide(np.array(a, object), b, RULES[name]).item() == exact(Fraction(a, b), name)
    assert divide(np.array([small]), tiny, RULES[name])[0] == exact(Fraction(small, tiny), name)


def test_stochastic_is_unbiased_and_of_the_right_variance(golden):
    """10^6 draws per number. Under the definition each mean is normal; |z| < 5.5 fails by chance with
    probability 11 · 3.8e-8 < 4.2e-7, and the seed is fixed."""
    section = golden("rounding")
    n = 1_000_000
    for library in ("numpy", "torch"):
        for x, up in zip(section["x"], section["stochastic"]["p_up"], strict=True):
            if library == "numpy":
                drawn = stochastic(np.full(n, x), np.random.default_rng(1))
            else:
                drawn = stochastic(torch.full((n,), x, dtype=torch.float64), torch.Generator().manual_seed(1)).numpy()
            low = np.floor(x)
            assert set(np.unique(drawn)) <= {low, low + 1}
            share = (drawn == low + 1).mean()
            assert abs(share - up) < 5.5 * sqrt(up * (1 - up) / n)


def test_stochastic_is_reproducible_and_leaves_whole_numbers():
    x = np.linspace(-3, 3, 1001)
    assert np.array_equal(stochastic_from(3)(x), stochastic_from(3)(x))
    assert not np.array_equal(stochastic_from(3)(x), stochastic_from(4)(x))
    t = torch.from_numpy(x)
    first, second = (stochastic(t, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    whole = np.float32([-2, 0, 7, 1e9])
    assert np.array_equal(partial(stochastic, generator=np.random.default_rng(0))(whole), whole)
    np.testing.assert_array_equal(stochastic_from(0)(np.array([np.inf, -np.inf, np.nan])), [np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("name", RULES)
@given(st.data())
def test_division_takes_integers_of_every_type(name, data):
    """Unsigned ones, whose differences NumPy would wrap, the ends of each type, and Python's own without an axis."""
    kind = data.draw(st.sampled_from([*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "int"]))
    low, high = (-(2**80), 2**80) if kind == "int" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    number = st.integers(low, high) | st.sampled_from([low, low + 1, high - 1, high])
    a, b = data.draw(number), data.draw(number.filter(bool))
    expected = exact(Fraction(a, b), name)
    given_a, given_b = (a, b) if kind == "int" else (np.array(a, kind), np.array(b, kind))
    assert divide(given_a, given_b, RULES[name]).item() == expected
    assert divide(given_a, b, RULES[name]).item() == expected
    assert divide(np.array([a], object), given_b, RULES[name]).item() == expected


@pytest.mark.parametrize("a", [2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
def test_division_where_numpy_changes_types(a):
    """A Python integer from 2^63 to 2^64 becomes uint64 there, and uint64 with int64 a float."""
    for b in (1, 2, 2**32, 2**62, 2**63, 2**64, -1, -3):
        assert divide(a, b, RULES["floor"]).item() == a // b
        assert divide(a, b, RULES["half_even"]).item() == round(Fraction(a, b))
