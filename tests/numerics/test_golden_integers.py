"""The source documents' worked examples of integer quantization: codes exactly, reals within 1e-6 relative."""

import numpy as np
import pytest

from fewbits.numerics import affine
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.numerics.rounding import half_even
from fewbits.ranges.scale import encoding_for, scale_and_zero_point

CLOSE = {"rtol": 1e-6, "atol": 0}


def errors(real, dequantized):
    difference = np.asarray(real) - dequantized
    return {"sse": (difference**2).sum(), "mse": (difference**2).mean(), "max_abs_err": np.abs(difference).max()}


def test_ranges_of_integers(golden):
    section = golden("integers")
    for bits in (2, 4, 8):
        expected = section[str(bits)]
        unsigned, signed = Int(bits, signed=False), Int(bits)
        assert [unsigned.low, unsigned.high] == expected["unsigned"]
        assert [signed.low, signed.high] == expected["twos_complement"]
        assert len(unsigned.values()) == expected["distinct_values"]["unsigned"]
        assert len(signed.values()) == expected["distinct_values"]["twos_complement"]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_affine(golden, bits):
    section = golden("affine_4x4")
    x, expected = np.array(section["input"]), section[f"exact_S_{bits}bit"]
    format = Int(bits)
    scale, zero = scale_and_zero_point(x.min(), x.max(), format, symmetric=False)
    np.testing.assert_allclose(scale, expected["S"], **CLOSE)
    assert zero == expected["Z"]
    codes = affine.encode(x, scale, zero, format.low, format.high)
    assert codes.tolist() == expected["q"]
    real = affine.decode(codes, scale, zero)
    np.testing.assert_allclose(real, expected["dequant"], **CLOSE)
    for name, value in errors(x, real).items():
        np.testing.assert_allclose(value, expected[name], **CLOSE)
    # The same through an Encoding, whose arithmetic is float32.
    quantized = encoding_for(x.min(), x.max(), format, symmetric=False).encode(x.astype(np.float32))
    assert quantized.codes.tolist() == expected["q"]
    np.testing.assert_allclose(quantized.dequantize(), expected["dequant"], **CLOSE)


def test_affine_with_the_printed_scale(golden):
    section = golden("affine_4x4")
    expected = section["printed_S_1.07_2bit"]
    encoding = Encoding(Int(2), expected["S"], expected["Z"])
    quantized = encoding.encode(np.array(section["input"], np.float32))
    assert quantized.codes.tolist() == expected["q"] == section["seed_q_table"]
    np.testing.assert_allclose(quantized.dequantize(), section["seed_recon_table"], **CLOSE)


def test_mit_lab(golden):
    expected = golden("mit_lab_linear_quantize")
    x = np.array(expected["tensor"], np.float32)
    encoding = encoding_for(x.min(), x.max(), Int(expected["bits"]), symmetric=False)
    np.testing.assert_allclose(encoding.scale, expected["S"], **CLOSE)
    assert encoding.zero_point == expected["Z"]
    assert encoding.encode(x).codes.tolist() == expected["q"]


@pytest.mark.parametrize("name", ["W_A", "W_B"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("key", "convention", "narrow"), [
    ("restricted", "restricted", True), ("restricted_scale_full_clamp", "restricted", False),
    ("full", "full", False), ("torch_ao", "torch", False)])
def test_symmetric(golden, name, bits, key, convention, narrow):
    section = golden("symmetric")
    x, expected = np.array(section[name]), section[f"{name}_{bits}bit"][key]
    format = Int(bits, narrow=narrow)
    assert (format.low, format.high) == (expected["qmin"], expected["qmax"])
    scale, zero = scale_and_zero_point(x.min(), x.max(), format, symmetric=True, convention=convention)
    np.testing.assert_allclose(scale, expected["S"], **CLOSE)
    codes = affine.encode(x, scale, zero, format.low, format.high)
    assert codes.tolist() == expected["q"]
    for measure, value in errors(x, affine.decode(codes, scale, zero)).items():
        if measure in expected:
            np.testing.assert_allclose(value, expected[measure], **CLOSE)


@pytest.mark.parametrize(("key", "bits"), [("lecture_symmetric_4bit", 4), ("lecture_symmetric_8bit", 8)])
def test_aimet_lab(golden, key, bits):
    section = golden("aimet_lab")
    w, x, expected = np.array(section["W"]), np.array(section["x"]), section[key]
    format = Int(bits)
    (s_w, _), (s_x, _) = (scale_and_zero_point(a.min(), a.max(), format, symmetric=True) for a in (w, x))
    np.testing.assert_allclose([s_w, s_x], [expected["s_W"], expected["s_x"]], **CLOSE)
    w_codes, x_codes = (affine.encode(a, s, 0, format.low, format.high) for a, s in ((w, s_w), (x, s_x)))
    assert w_codes.tolist() == expected["W_quant"]
    assert x_codes.tolist() == expected["x_quant"]
    y = w_codes.astype(int) @ x_codes.astype(int)
    assert y.tolist() == expected["y_quant_int"]
    np.testing.assert_allclose(y * s_w * s_x, expected["y_dequant"], **CLOSE)
    np.testing.assert_allclose(np.abs(y * s_w * s_x - w @ x).max(), expected["max_abs_err"], **CLOSE)


def test_aimet_lab_per_row(golden):
    section = golden("aimet_lab")
    w, expected = np.array(section["W"]), section["per_row_symmetric_4bit"]
    encoding = encoding_for(w.min(1, keepdims=True), w.max(1, keepdims=True), Int(4), True, block=CHANNEL)
    np.testing.assert_allclose(encoding.scale.ravel(), expected["s_W"], **CLOSE)
    codes = encoding.encode(w.astype(np.float32)).codes.astype(int)
    assert codes.tolist() == expected["W_quant"]
    y = codes @ np.array(expected["x_quant"])
    assert y.tolist() == expected["y_quant_int"]
    np.testing.assert_allclose(y * encoding.scale.ravel() * expected["s_x"], expected["y_dequant"], **CLOSE)


def test_ties(golden):
    section = golden("tie_cases")
    x, zero = np.array(section["x_over_S"]), section["Z"]
    assert (half_even(x) + zero).tolist() == section["rint(x/S)+Z"]
    for key, scale, zero in (("S0.5_Z1", 0.5, 1), ("S0.5_Z0", 0.5, 0)):
        case = section[key]
        encoding = Encoding(Int(8), scale, zero)
        codes = encoding.encode(np.array(case["x"], np.float32)).codes
        assert codes.tolist() == case["round_then_shift"]
        if zero:
            assert codes.tolist() != case["shift_then_round"], "the zero point is added after rounding"
