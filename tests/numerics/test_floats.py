"""Floats against ml_dtypes and torch over every float32 neighbourhood that matters, and the golden vectors."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import EncodingError
from fewbits.numerics.floats import Float, encode_by_formula, sign_magnitude
from fewbits.numerics.formats import parse
from fewbits.numerics.rounding import half_away, half_even, toward_zero
from fewbits.testing.format import boundary_grid

ML_DTYPES = {
    "bf16": ml_dtypes.bfloat16, "fp16": np.float16, "e4m3-nosat": ml_dtypes.float8_e4m3fn,
    "e5m2-nosat": ml_dtypes.float8_e5m2, "e4m3-fnuz-nosat": ml_dtypes.float8_e4m3fnuz,
    "e5m2-fnuz-nosat": ml_dtypes.float8_e5m2fnuz, "e4m3-ieee-nosat": ml_dtypes.float8_e4m3,
    "e3m4-nosat": ml_dtypes.float8_e3m4, "e4m3-fnuz-b11-nosat": ml_dtypes.float8_e4m3b11fnuz,
    "e2m1": ml_dtypes.float4_e2m1fn, "e2m3": ml_dtypes.float6_e2m3fn, "e3m2": ml_dtypes.float6_e3m2fn,
    "ue8m0-none-nosat": ml_dtypes.float8_e8m0fnu}
TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "e5m2-nosat": torch.float8_e5m2,
         "e4m3": torch.float8_e4m3fn, "e4m3-fnuz-nosat": torch.float8_e4m3fnuz,
         "e5m2-fnuz-nosat": torch.float8_e5m2fnuz, "ue8m0-none-nosat": torch.float8_e8m0fnu}


def patterns(array, bits):
    return array.view(np.uint8 if array.itemsize == 1 else np.uint16) & (2**bits - 1)


def inputs(format):
    """Every boundary's neighbourhood, far out numbers, and 200 000 float32 of random bits."""
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    random = bits.view(np.float32)
    x = np.concatenate([boundary_grid(format), random[np.isfinite(random)],
                        np.float32([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1e30])])
    # Between E8M0's two smallest numbers float32 is subnormal and the oracles round up: named below.
    return x[(x >= 2.0**-126) | (x == 2.0**-127)] if format.underflow == "none" else x


@pytest.mark.parametrize("name", ML_DTYPES)
def test_every_code_reads_as_ml_dtypes_says(name):
    format, dtype = parse(name), np.dtype(ML_DTYPES[name])
    codes = np.arange(2**format.bits).astype(format.dtype)
    theirs = codes.view(dtype).astype(np.float32)
    ours = format.decode(codes)
    np.testing.assert_array_equal(ours, theirs)
    zero = ours == 0
    assert np.array_equal(np.signbit(ours[zero]), np.signbit(theirs[zero]))


@pytest.mark.parametrize("name", ML_DTYPES)
def test_encodes_as_ml_dtypes_casts(name):
    format, dtype = parse(name), np.dtype(ML_DTYPES[name])
    x = inputs(format)
    with np.errstate(over="ignore"):
        theirs = patterns(x.astype(dtype), format.bits)
    nan = np.isnan(theirs.astype(format.dtype).view(dtype).astype(np.float32)) if format.bits >= 8 else False
    ours = format.encode(x)
    np.testing.assert_array_equal(np.where(nan, 0, ours), np.where(nan, 0, theirs))
    assert np.isnan(format.decode(ours[nan])).all() if format.bits >= 8 else True
    np.testing.assert_array_equal(encode_by_formula(format, x.astype(np.float64), half_even), ours)


@pytest.mark.parametrize("name", TORCH)
def test_encodes_as_torch_casts(name):
    format = parse(name)
    x = inputs(format)
    cast = torch.from_numpy(x).to(TORCH[name]).view(torch.uint8 if format.bits == 8 else torch.uint16).numpy()
    theirs = format.decode(cast)
    same = np.isnan(theirs) | (cast == format.encode(x))
    assert same.all()
    np.testing.assert_array_equal(np.isnan(theirs), np.isnan(format.decode(format.encode(x))))


def test_where_the_oracles_differ():
    """Named: torch's E4M3 saturates where ml_dtypes gives NaN; each does one of OCP's two conversions. The
    signs and payloads of NaN are theirs; torch sends the negative numbers and 0 of E8M0 elsewhere."""
    big = np.float32([1000.0, np.inf])
    assert patterns(big.astype(ml_dtypes.float8_e4m3fn), 8).tolist() == [0x7F, 0x7F]
    assert torch.from_numpy(big).to(torch.float8_e4m3fn).view(torch.uint8).tolist() == [0x7E, 0x7E]
    assert parse("e4m3").encode(big).tolist() == [0x7E, 0x7E]
    assert parse("e4m3-nosat").encode(big).tolist() == [0x7F, 0x7F]
    nan = np.float32([np.nan, -np.nan])
    assert patterns(nan.astype(ml_dtypes.bfloat16), 16).tolist() == [0x7FC0, 0xFFC0]
    assert parse("bf16").encode(nan).tolist() == [0x7FC0, 0x7FC0]
    assert torch.tensor([np.nan]).to(torch.float8_e5m2).view(torch.uint8).item() == 0x7F
    assert patterns(nan.astype(ml_dtypes.float8_e5m2), 8).tolist() == [0x7E, 0xFE]
    assert parse("e5m2").encode(nan).tolist() == [0x7E, 0x7E]
    # E2M1 has no NaN: ml_dtypes makes it a zero, we the lowest number, so that it cannot pass unnoticed.
    assert patterns(nan.astype(ml_dtypes.float4_e2m1fn), 4).tolist() == [8, 0]
    assert parse("e2m1").decode(parse("e2m1").encode(nan)).tolist() == [-6, -6]
    # E8M0 has neither sign nor zero: ml_dtypes makes them NaN, we the smallest number, as any unsigned format.
    low = np.float32([0.0, -1.0])
    assert patterns(low.astype(ml_dtypes.float8_e8m0fnu), 8).tolist() == [255, 255]
    assert parse("e8m0").encode(low).tolist() == [0, 0]
    subnormal = np.float32([1.25 * 2.0**-127])
    assert patterns(subnormal.astype(ml_dtypes.float8_e8m0fnu), 8).tolist() == [1]
    assert torch.from_numpy(subnormal).to(torch.float8_e8m0fnu).view(torch.uint8).tolist() == [1]
    assert parse("e8m0").encode(subnormal).tolist() == [0]
    # OCP's saturating E5M2 makes infinity the largest number; ours keeps it, so that every code comes back.
    assert parse("e5m2").encode(np.float32([np.inf, 1e9])).tolist() == [0x7C, 0x7B]


def test_golden_formats(golden):
    names = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "tf32": "tf32", "fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2"}
    for key, row in golden("floating_point")["formats"].items():
        format = parse(names[key])
        assert format.exponent_bits == row["exponent_bits"]
        assert format.mantissa_bits == row["mantissa_bits"]
        assert format.bias == row["bias"]
        assert format.bits == row["total_bits"]
        assert format.lowest_exponent == row["emin"]
        assert format.highest_exponent == row["emax"]
        assert format.largest == row["max_finite"]
        assert format.smallest_normal == row["min_normal"]
        assert format.smallest == row["min_subnormal"]


def number(text):
    return float(text)  # "inf" and "nan" are strings in the data


def test_golden_decode(golden):
    section = golden("floating_point")
    for key, name in (("e4m3_decode", "e4m3"), ("e5m2_decode", "e5m2")):
        expected = np.array([number(v) for v in section[key]], np.float32)
        np.testing.assert_array_equal(parse(name).decode(np.arange(256, dtype=np.uint8)), expected)


def test_golden_encode(golden):
    for row in golden("floating_point")["fp8_encode"]:
        x = np.array([row["x"]])
        for name in ("e4m3", "e5m2"):
            saturating, other = parse(name), parse(f"{name}-nosat")
            assert saturating.encode(x)[0] == int(row[f"{name}_sat_hex"], 16)
            assert saturating.nearest(x)[0] == row[f"{name}_sat"]
            np.testing.assert_array_equal(other.nearest(x)[0], number(row[f"{name}_nosat"]))


def test_golden_rounding_of_wide_formats(golden):
    bf16, tf32, fp16 = parse("bf16"), parse("tf32"), parse("fp16")
    for row in golden("floating_point")["rounding"]:
        x = np.array([row["x"]], np.float32)
        assert bf16.encode(x)[0] == int(row["bf16_rne_hex"], 16)
        assert bf16.nearest(x)[0] == number(row["bf16_rne"])
        assert bf16.nearest(x, toward_zero)[0] == number(row["bf16_trunc"])
        assert tf32.nearest(x)[0] == number(row["tf32_rne"])
        assert tf32.nearest(x, half_away)[0] == number(row["tf32_rna"])
        assert tf32.nearest(x, toward_zero)[0] == number(row["tf32_trunc"])
        assert fp16.nearest(x)[0] == number(row["fp16_rne"])


def test_fp32_is_float32():
    format = parse("fp32")
    x = np.float32([0.265625, -1.5, 1e-40, 3.4e38, 0.0, -0.0, np.inf])
    assert np.array_equal(format.encode(x), x.view(np.uint32))
    assert format.encode(np.float32([0.265625]))[0] == 0x3E880000


def test_sign_magnitude_has_two_zeros(golden):
    sm4 = sign_magnitude(4)
    for row in golden("integers")["decode_4bit"]:
        assert sm4.decode(np.array([int(row["code"], 2)]))[0] == row["sign_magnitude"]
    zeros = sm4.decode(np.array([0, 8]))
    assert zeros.tolist() == [0, 0]
    assert np.signbit(zeros).tolist() == [False, True]
    assert sm4.encode(np.float32([-0.0, 0.0, -0.4])).tolist() == [8, 0, 8]
    for bits in (2, 4, 8):
        low, high = golden("integers")[str(bits)]["sign_magnitude"]
        values = sign_magnitude(bits).values()
        assert [values[0], values[-1], len(values)] == [low, high, 2 ** bits - 1]


def test_double_rounding_does_not_happen():
    """A float64 just above a tie of E4M3 that float32 would round onto the tie."""
    x = np.array([1.0625 + 2.0**-40])
    assert parse("e4m3").nearest(x)[0] == 1.125
    assert parse("e4m3").nearest(x.astype(np.float32))[0] == 1.0


@given(st.integers(0, 6), st.integers(0, 6), st.sampled_from(["ieee", "fn", "fnuz", "finite"]),
       st.sampled_from(["gradual", "flush", "zero", "none"]), st.booleans())
def test_any_float_conforms_or_is_refused(e, m, specials, underflow, signed):
    try:
        format = Float(e, m, None, signed, specials, underflow)
    except EncodingError:
        return
    assert parse(str(format)) == format
    codes = np.arange(2**format.bits).astype(format.dtype)
    assert np.array_equal(format.encode(format.decode(codes)), format.canonical(codes))


@pytest.mark.parametrize("text", ["e9m2", "e4m30", "e1m1-ieee", "e2m0-ieee", "ue4m3-fnuz", "e8m7-finite", "e4m3-b200",
                                  "e2m1-nosat", "sm1", "sm17", "e0m3-flush"])
def test_what_cannot_be_is_refused(text):
    with pytest.raises(EncodingError):
        parse(text)


def test_torch_on_meta_free_devices_agrees_with_numpy():
    x = torch.linspace(-10, 10, 1001)
    for name in ("e4m3", "bf16", "e2m1", "e3m0", "e8m0", "e4m3-finite-zero"):
        assert torch.equal(parse(name).nearest(x), torch.from_numpy(parse(name).nearest(x.numpy())))
        assert parse(name).nearest(x.double()).dtype == torch.float64


def test_listing_a_huge_format_is_refused():
    with pytest.raises(EncodingError, match="too many"):
        parse("fp32").values()
