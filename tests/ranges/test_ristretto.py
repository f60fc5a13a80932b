"""Ristretto's arithmetic with its slips, and how the mended formats differ from it."""

import numpy as np
import pytest

from fewbits.errors import EncodingError
from fewbits.numerics.formats import parse
from fewbits.numerics.rounding import half_away
from fewbits.ranges.ristretto import minifloat, minifloat_exponent_bits, power_of_two


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_golden_minifloat(golden, name):
    row = golden("minifloat_ristretto")[name]
    assert minifloat(np.array(row["x"]), row["exp_bits"], row["mant_bits"]).tolist() == row["q"]
    format = parse(f"{name}-finite-zero")
    assert format.largest == row["max"]
    assert format.bias == row["bias"]


def test_golden_exponent_rule(golden):
    for row in golden("minifloat_ristretto")["exp_bits_examples"]:
        assert minifloat_exponent_bits(row["max"]) == row["exp_bits"]
    assert [minifloat_exponent_bits(v) for v in (0, 1, 2, 2.0000001, 2**17, 2**17 * 1.01)] == [4, 4, 4, 4, 5, 6]
    for bad in (-1.0, np.inf, np.nan):
        with pytest.raises(EncodingError):
            minifloat_exponent_bits(bad)


@pytest.mark.parametrize(("name", "e", "m"), [("e4m3", 4, 3), ("e5m2", 5, 2)])
def test_the_mended_format_differs_in_three_named_places(name, e, m):
    """Its smallest number (the code of 0), the flush below it, and the overshoot in the highest binade."""
    format = parse(f"{name}-finite-zero")
    x = np.concatenate([format.values(), np.random.default_rng(0).standard_normal(10_000) * 100,
                        np.geomspace(1e-6, 1e6, 10_001)]).astype(np.float32)
    theirs, ours = minifloat(x, e, m), format.nearest(x, half_away)
    near_zero = abs(x) < format.smallest
    overshoot = abs(theirs) > format.largest
    assert np.array_equal(ours[~near_zero & ~overshoot], theirs[~near_zero & ~overshoot])
    assert (abs(ours[overshoot]) == format.largest).all()
    assert (abs(theirs[near_zero]) <= format.smallest).all()
    assert minifloat(np.array([496.0, 512.0, -496.0]), 4, 3).tolist() == [512.0, 480.0, -512.0]


def test_golden_power_of_two(golden):
    row = golden("power_of_two_ristretto")
    x = np.array(row["x"])
    assert power_of_two(x, row["exp_min"], row["exp_max"]).tolist() == row["q"]
    dense = np.concatenate([-np.geomspace(1e-5, 10, 100_001), np.geomspace(1e-5, 10, 100_001), [0.0]])
    table = parse("pow2-4")
    assert np.array_equal(table.decode(table.encode(dense)), power_of_two(dense))
