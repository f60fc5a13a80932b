"""Tables: thresholds and ties exactly, the named ones against their definitions, and what is refused."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import EncodingError
from fewbits.numerics.formats import parse
from fewbits.numerics.levels import additive_powers, codebook, inq_levels, powers, ternary
from fewbits.numerics.rounding import half_away
from fewbits.numerics.tables import Levels


@pytest.mark.parametrize(("ties", "codes"), [("even", [0, 2, 2]), ("up", [1, 2, 3]), ("down", [0, 1, 2]),
                                             ("toward-zero", [1, 1, 2]), ("away", [0, 2, 3])])
def test_ties(ties, codes):
    table = Levels((-1.0, 0.0, 1.0, 2.0), ties=ties)
    x = np.array([-0.5, 0.5, 1.5])
    for kind in (np.float32, np.float64):
        assert table.encode(x.astype(kind)).tolist() == codes
        assert table.nearest(torch.from_numpy(x.astype(kind))).tolist() == table.decode(np.array(codes)).tolist()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20, unique=True),
       st.lists(st.floats(-2e6, 2e6, width=32), min_size=1, max_size=50))
def test_nearest_by_brute_force(numbers, xs):
    numbers = sorted({v + 0.0 for v in numbers})
    if len(numbers) < 2:
        return
    table = Levels(tuple(numbers))
    x = np.array(xs, np.float32)
    got = table.decode(table.encode(x)).astype(np.float64)
    best = abs(x.astype(np.float64)[:, None] - np.array(numbers)).min(1)
    assert (abs(x - got) <= best * (1 + 1e-12)).all()
    order = np.argsort(x)
    assert (np.diff(table.encode(x)[order].astype(int)) >= 0).all()


def test_a_threshold_that_no_float32_hits():
    table = Levels((0.0, 1.0), (0.1,), "up")
    below, above = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(0))
    assert float(below) > 0.1 > float(above)
    assert table.encode(np.float32([below, above])).tolist() == [1, 0]
    assert table.encode(np.array([0.1, np.nextafter(0.1, 0)])).tolist() == [1, 0]


def test_hwgq_follows_its_thresholds(golden):
    expected = golden("low_bit_methods")["hwgq_2bit_uniform"]
    table = parse("hwgq2")
    assert list(table.numbers) == expected["levels"]
    assert list(table.thresholds) == expected["thresholds"]
    np.testing.assert_allclose(table.decode(table.encode(np.array(expected["x"]))), expected["q"], rtol=1e-6)


def test_ternary_and_two_scales(golden):
    for name in ("W_A", "W_B"):
        section = golden("low_bit_methods")[name]
        x = np.array(section["input"])
        for key in ("twn_0.7", "twn_0.75"):
            row = section[key]
            codes = ternary(row["Delta"] / row["alpha"]).encode(x / row["alpha"])
            assert (codes.astype(int) - 1).tolist() == row["T"]
        row = section["ttq_t0.05"]
        two = ternary(row["Delta"], row["Wn"], row["Wp"])
        np.testing.assert_allclose(two.decode(two.encode(x)), row["W_t"], rtol=1e-6)


def test_binary_sends_zero_up(golden):
    for name in ("W_A", "W_B"):
        section = golden("low_bit_methods")[name]
        got = parse("binary").nearest(np.array(section["input"]))
        assert got.tolist() == section["binaryconnect_det"]["Wb"]
    assert parse("binary").nearest(np.array([0.0, -0.0])).tolist() == [1, 1]


def test_nf4_is_made_of_quantiles():
    """QLoRA, appendix E: 8 quantiles below 0 and 9 above, from offset 0.9677083, over the largest."""
    inverse = NormalDist().inv_cdf
    positive = [inverse(p) for p in np.linspace(0.9677083, 0.5, 9)[:-1]]
    negative = [-inverse(p) for p in np.linspace(0.9677083, 0.5, 8)[:-1]]
    expected = np.array(sorted([*positive, 0.0, *negative])) / max(positive)
    np.testing.assert_allclose(parse("nf4").values(), expected, atol=2e-7)


def test_log_levels_round_the_exponent():
    table = parse("log2-4")
    x = np.array([1.0, 0.70, 0.71, 0.36, 0.35, 1e-9, -1e-9, 0.0, -3.0, 1.5])
    expected = np.sign(x) * 2.0 ** np.rint(np.log2(np.where(x == 0, 1, abs(x)))).clip(-6, 0)
    assert table.nearest(x).tolist() == np.where(x == 0, 0, expected).tolist()
    fine = parse("logsqrt2-5")
    y = np.abs(np.random.default_rng(0).standard_normal(1000)) + 1e-3
    exponent = np.rint(2 * np.log2(y)).clip(-14, 0)
    np.testing.assert_allclose(fine.nearest(y), 2.0 ** (exponent / 2), rtol=1e-6)


def test_powers_of_two_of_ristretto(golden):
    section = golden("power_of_two_ristretto")
    table = parse("pow2-4")
    assert table.decode(table.encode(np.array(section["x"]))).tolist() == section["q"]


@pytest.mark.parametrize("name", ["W_A", "W_B"])
def test_inq_levels(golden, name):
    section = golden("low_bit_methods")[name]
    x = np.array(section["input"])
    n1 = np.floor(np.log2(4 * abs(x).max() / 3))
    for bits in (3, 4, 5):
        row = section[f"inq_b{bits}"]
        assert n1 == row["n1"]
        got = inq_levels(bits).nearest(x / 2.0**n1) * 2.0**n1
        np.testing.assert_allclose(got, row["q"], rtol=1e-6)


def test_additive_powers_are_sums():
    values = additive_powers(5, signed=True).values() * 0.75
    assert {float(v) for v in values if v >= 0} == {a + b for a in (0, 1 / 2, 1 / 8, 1 / 32)
                                                    for b in (0, 1 / 4, 1 / 16, 1 / 64)}
    odd = additive_powers(4).values() * 0.625
    np.testing.assert_allclose(odd[odd >= 0], sorted(a + b for a in (0, 1 / 2, 1 / 4, 1 / 16) for b in (0, 1 / 8)))


def test_codebook_is_the_kmeans_example():
    table = codebook([2.0, 0.0, 1.5, -1.0, 0.0])
    assert table.numbers == (-1.0, 0.0, 1.5, 2.0)
    x = np.array([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12],
                  [-0.91, 1.92, 0.00, -1.03], [1.87, 0.00, 1.53, 1.49]])
    assert table.encode(x).tolist() == [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]


def test_what_it_cannot_hold():
    table = parse("ternary")
    assert table.encode(np.float32([np.nan, np.inf, -np.inf])).tolist() == [0, 2, 0]
    assert table.decode(np.array([3])).tolist() == [1.0]  # the unused code reads as the highest
    with pytest.raises(EncodingError, match="no other rounding"):
        table.encode(np.float32([0.1]), half_away)


@pytest.mark.parametrize(("numbers", "thresholds", "ties", "words"), [
    ((0,), None, "even", "2 to 65536"), ((1, 0), None, "even", "ascend"), ((0, 0), None, "even", "ascend"),
    ((0, np.inf), None, "even", "finite"), ((0, 1e39), None, "even", "finite"),
    ((1, 1 + 1e-12), None, "even", "ascend"), ((0, 1, 2), (1.5, 0.5), "even", "thresholds"),
    ((0, 1, 2), (0.5,), "even", "2 thresholds"), ((0, 1), (np.nan,), "even", "finite")])
def test_tables_that_cannot_be(numbers, thresholds, ties, words):
    with pytest.raises(EncodingError, match=words):
        Levels(numbers, thresholds, ties)


@pytest.mark.parametrize("text", ["table(a,b)", "table(1,2;3;4;5)", "table()", "pow2-9", "inq-1", "apot-99", "log2-1"])
def test_texts_that_name_no_table(text):
    with pytest.raises(EncodingError):
        parse(text)


def test_powers_need_exponents():
    with pytest.raises(EncodingError, match="ascend"):
        powers(0, -1, zero=True, between="log")
