"""The scale rule for formats beyond integers, and the fixed points, against golden vectors."""

import numpy as np
import pytest

from fewbits.errors import EncodingError, OptionError
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.formats import Int, parse
from fewbits.numerics.rounding import half_away
from fewbits.ranges.fixed_point import fixed_point, least_error_point
from fewbits.ranges.scale import CONVENTIONS, ceil_log2, encoding_for

NAMES = {"W_A": "dynamic-weights", "X_A": "dynamic-activations"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_golden_dynamic_fixed_point(golden, name, bits):
    section = golden("dynamic_fixed_point")
    x, expected = np.array(section[name]), section[f"{name}_bw{bits}"]
    encoding = encoding_for(x.min(), x.max(), Int(bits), True, NAMES[name])
    assert encoding.scale == 2.0 ** -expected["fl"]
    quantized = encoding.encode(x, half_away)
    assert quantized.codes.tolist() == expected["codes"]
    assert quantized.dequantize().tolist() == expected["q"]


def test_golden_edges_of_dynamic_fixed_point(golden):
    section = golden("dynamic_fixed_point")
    edge = section["edge_max_is_power_of_two"]
    encoding = encoding_for(-edge["max"], edge["max"], Int(edge["bw"]), True, "dynamic-weights")
    assert encoding.scale == 2.0 ** -edge["fl"]
    assert encoding.encode(np.array([edge["max"]])).dequantize() == edge["q_of_4.0"]
    limits = section["X_A_bw4_saturates"]
    small = encoding_for(-0.31, limits["x_max"], Int(4), True, "dynamic-activations")
    assert small.encode(np.array([limits["x_max"]])).dequantize() == limits["max_representable"]
    example = section["negative_fl_example"]
    coarse = fixed_point(example["bw"], example["fl"])
    assert coarse.scale == example["step"]
    assert coarse.decode(np.array([-128, 127])).tolist() == example["range"]


@pytest.mark.parametrize("name", ["Q4.4", "Q8.8", "Q9.7"])
def test_golden_static_fixed_point(golden, name):
    section = golden("dynamic_fixed_point")
    x = np.array(section["W_A"])
    i, f = map(int, name[1:].split("."))
    for encoding in (fixed_point(i + f, f), encoding_for(x.min(), x.max(), parse(name.lower()), False)):
        assert encoding.encode(x, half_away).dequantize().tolist() == section[f"static_{name}_of_W_A"]
        facts = golden("fixed_point")["Q_formats"][name]
        assert encoding.format == Int(facts["bits"])
        assert encoding.scale == facts["step"]
        ends = encoding.decode(np.array([encoding.format.low, encoding.format.high]))
        assert ends.tolist() == [facts["min"], facts["max"]]


def test_golden_fixed_point_example(golden):
    example = golden("fixed_point")["example_8bit_4frac"]
    assert int(example["code"], 2) == example["integer_code"]
    assert fixed_point(8, 4).decode(np.array([example["integer_code"]])) == example["value"]


@pytest.mark.parametrize(("bits", "fraction"), [(8, -1), (8, 12), (16, 20), (4, -6)])
def test_points_outside_the_word(bits, fraction):
    encoding = fixed_point(bits, fraction)
    assert encoding.scale == 2.0**-fraction
    assert parse(f"q{bits - fraction}.{fraction}").fraction == fraction
    x = encoding.scale * np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.float64)
    assert np.array_equal(encoding.encode(x).dequantize(), x)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_the_least_error_point_is_the_best_of_all(bits, signed):
    generator = np.random.default_rng(bits)
    for x in (generator.standard_normal(500), 1e-6 * generator.standard_cauchy(500), np.array([3.0]),
              1e5 * generator.uniform(0.1, 1, 50)):
        x = x if signed else abs(x)
        chosen = least_error_point(x, bits, signed)

        def error(encoding, x=x):
            return np.square(encoding.encode(x).dequantize().astype(np.float64) - x).sum()

        everything = [error(fixed_point(bits, f, signed)) for f in range(-40, 60)]
        assert error(chosen) == min(everything)


def test_the_least_error_point_beats_ristrettos_rule():
    x = np.random.default_rng(0).standard_t(3, 10_000)
    rule = encoding_for(x.min(), x.max(), Int(4), True, "dynamic-weights")

    def error(encoding):
        return np.square(encoding.encode(x).dequantize() - x).mean()

    assert error(least_error_point(x, 4)) < error(rule)


def test_points_refuse_what_is_no_data():
    for bad in (np.array([]), np.array([np.nan]), np.array([np.inf])):
        with pytest.raises(EncodingError):
            least_error_point(bad, 8)
    assert least_error_point(np.zeros(3), 8).scale == 1


def test_ceil_log2_is_exact():
    x = np.array([1.0, 2.0, 2.0000000000000004, 1.9999999999999998, 0.5, 3.0, 1e-300, 2.0**-1000])
    assert ceil_log2(x).tolist() == [0, 1, 2, 1, -1, 2, -996, -1000]


@pytest.mark.parametrize("name", ["e4m3", "e2m1", "nf4", "ternary", "pow2-4", "log2-4", "apot-4", "sm8", "e3m2"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_largest_number_takes_the_largest_magnitude(name, symmetric):
    format = parse(name)
    encoding = encoding_for(np.array([-3.0, 0.5]), np.array([1.0, 8.0]), format, symmetric, block=CHANNEL)
    np.testing.assert_allclose(encoding.scale, np.array([3.0, 8.0]) / format.largest, rtol=1e-7)
    assert not encoding.zero_point.any()


@pytest.mark.parametrize("name", ["bf16", "fp16", "tf32"])
def test_wide_floats_are_left_alone(name):
    assert encoding_for(-3.0, 4.0, parse(name), False).scale == 1


def test_powers_of_two_reach_the_maximum():
    for name in ("int8", "uint4", "e4m3", "nf4"):
        format = parse(name)
        for high in (0.001, 1.0, 3.7, 127.0, 128.0, 1e5):
            scale = float(encoding_for(0.0, high, format, False, "power-of-two").scale)
            assert np.frexp(scale)[0] == 0.5
            assert scale * format.largest >= high > scale / 2 * format.largest


def test_every_convention_has_an_answer_for_zeros():
    for convention in CONVENTIONS:
        if convention in ("mx", "nvfp4"):  # they have zeros of their own: test_microscaling.py
            continue
        encoding = encoding_for(np.zeros(2), np.array([0.0, 2.0]), Int(8), True, convention, CHANNEL)
        assert encoding.scale[0] == encoding.scale[1]
        assert encoding_for(0.0, 0.0, Int(8), True, convention).scale == 1


def test_what_the_rule_refuses():
    with pytest.raises(EncodingError, match="signed"):
        encoding_for(-1.0, 1.0, parse("uapot-4"), False)
    assert encoding_for(-1.0, 1.0, parse("hwgq2"), False, "unit").scale == 1  # its thresholds say where they go
    with pytest.raises(EncodingError, match="integers"):
        encoding_for(-1.0, 1.0, parse("e4m3"), True, "dynamic-weights")
    with pytest.raises(OptionError, match="convention = 'golden' is not allowed"):
        encoding_for(-1.0, 1.0, Int(8), True, "golden")  # type: ignore[arg-type]
    with pytest.raises(EncodingError, match="finite"):
        encoding_for(-1.0, np.inf, parse("nf4"), True)
