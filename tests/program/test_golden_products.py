"""The source documents' integer products, through the reference: sums, codes, and their reals."""

import numpy as np
import pytest

from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, Int
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.profile import ONNXRUNTIME
from fewbits.program.program import Program
from fewbits.program.requantize import dot_multiplier
from fewbits.program.value import Value
from fewbits.ranges.scale import encoding_for

CLOSE = {"rtol": 1e-6, "atol": 0}


def run(x_codes: np.ndarray, x: Encoding, node: op.Conv | op.Linear, y: Encoding) -> np.ndarray:
    """Codes of one node fed the given codes, by a program that holds them as a constant."""
    shape = (*x_codes.shape[:-1], len(node.weight.codes))
    if isinstance(node, op.Conv):
        kernel = node.weight.codes.shape[2:]
        padded = np.add(x_codes.shape[2:], np.sum(node.padding, 1))
        shape = (len(x_codes), len(node.weight.codes), *((padded - kernel) // node.stride + 1).tolist())
    program = Program(ONNXRUNTIME, (), (op.Constant("x", Quantized(x_codes, x)), node),
                      {"x": Value(x_codes.shape, x), node.name: Value(shape, y)}, node.name)
    return reference.run(program, {})[node.name]


def linear(weight: Quantized, bias, y: Encoding) -> op.Linear:
    bias = None if bias is None else np.array(bias, np.int32)
    return op.Linear("y", "x", weight, bias, y.format.low, y.format.high)


def test_integer_dot(golden):
    section = golden("integer_dot")
    w, x = np.array(section["w"], np.float32), np.array(section["x"], np.float32)
    w_encoding = encoding_for(w.min(), w.max(), Int(8), symmetric=False)
    x_encoding = encoding_for(x.min(), x.max(), Int(8), symmetric=False)  # widened to contain 0
    for encoding, scale, zero in ((w_encoding, "S_W", "Z_W"), (x_encoding, "S_X", "Z_X")):
        np.testing.assert_allclose(encoding.scale, section[scale], **CLOSE)
        assert encoding.zero_point == section[zero]
    w_codes, x_codes = w_encoding.encode(w), x_encoding.encode(x)
    assert w_codes.codes.tolist() == section["q_W"]
    assert x_codes.codes.tolist() == section["q_X"]
    y = Encoding(Int(8), section["S_Y"], section["Z_Y"])
    weight = Quantized(w_codes.codes[None, :], w_encoding)
    sums = run(x_codes.codes[None, :], x_encoding, linear(weight, None, Encoding(ACCUMULATOR, 1.0)),
               Encoding(ACCUMULATOR, 1.0))
    assert sums.tolist() == [[section["accumulator_int32"]]]
    codes = run(x_codes.codes[None, :], x_encoding, linear(weight, None, y), y)
    assert codes.tolist() == [[section["q_Y"]]]
    np.testing.assert_allclose(y.decode(codes), [[section["y_dequant"]]], **CLOSE)


def test_integer_dot_needs_zero_in_the_range(golden):
    expected = golden("integer_dot")["x_range_without_zero"]
    scale = np.float64(expected["S"])
    assert round(Int(8).low - 0.1 / scale, 2) == expected["Z_before_round"]
    assert encoding_for(np.float64(0.1), np.float64(1.3), Int(8), False).zero_point == Int(8).low


def test_quantized_linear(golden):
    g = golden("quantized_linear_mit_lab")
    format = Int(g["bits"])
    weight, x = np.array(g["weight"], np.float32), np.array(g["input"], np.float32)
    w_encoding = encoding_for(weight.min(1, keepdims=True), weight.max(1, keepdims=True), format, True,
                              block=CHANNEL)
    np.testing.assert_allclose(w_encoding.scale.ravel(), g["weight_scale"], **CLOSE)
    w = w_encoding.encode(weight)
    assert w.codes.tolist() == g["q_weight"]
    # The lab takes the input's range as it is, [0.0178, 0.8626], without widening it to contain 0.
    np.testing.assert_allclose((x.max() - x.min()) / 3, g["input_scale"], **CLOSE)
    x_encoding = Encoding(format, g["input_scale"], g["input_zero_point"])
    x_codes = x_encoding.encode(x).codes
    assert x_codes.tolist() == g["q_input"]
    sum_scale = w_encoding.scale.ravel() * x_encoding.scale
    bias = Encoding(ACCUMULATOR, sum_scale, 0, CHANNEL).encode(np.array(g["bias"])).codes
    assert bias.tolist() == g["q_b"]
    shifted = bias - int(x_encoding.zero_point) * w.codes.astype(int).sum(1)
    assert shifted.tolist() == g["q_bias_shifted"]
    accumulators = Encoding(ACCUMULATOR, 1.0)
    assert run(x_codes, x_encoding, linear(w, bias, accumulators), accumulators).tolist() == g["acc_int32"]
    y = Encoding(format, g["output_scale"], g["output_zero_point"])
    np.testing.assert_allclose(dot_multiplier(x_encoding, w_encoding, y), g["multiplier_M"], **CLOSE)
    assert run(x_codes, x_encoding, linear(w, bias, y), y).tolist() == g["q_output"]


def convolution(case: dict, y: Encoding) -> np.ndarray:
    """Codes (or sums) of the golden convolution, from its own codes and encodings."""
    x_codes, w_codes = np.array(case["q_X"]), np.array(case["q_W"])
    x_codes = x_codes.reshape(1, *(() if x_codes.ndim == 3 else (1,)), *x_codes.shape)
    w_codes = w_codes.reshape(*(() if w_codes.ndim == 4 else (1, 1)), *w_codes.shape)
    s_w = np.array(case["S_W"], np.float32)
    block = CHANNEL if s_w.ndim else TENSOR
    weight = Quantized(w_codes, Encoding(Int(8), s_w.reshape(-1, 1, 1, 1) if s_w.ndim else s_w, 0, block))
    bias = np.atleast_1d(np.array(case["q_b"], np.int32))
    margin = (case["padding"], case["padding"])
    node = op.Conv("y", "x", weight, bias, (1, 1), (margin, margin), (1, 1), 1, y.format.low, y.format.high)
    return run(x_codes, Encoding(Int(8), case["S_X"], case["Z_X"]), node, y)[0]


@pytest.mark.parametrize("which", ["single", "multichannel"])
def test_quantized_conv(golden, which):
    g = golden("quantized_conv")
    case = g if which == "single" else g["multichannel"]
    assert convolution(case, Encoding(ACCUMULATOR, 1.0)).squeeze().tolist() == case["acc_pad_ZX"]
    y = Encoding(Int(8), case["S_Y"], case["Z_Y"])
    codes = convolution(case, y).squeeze()
    assert codes.tolist() == case["q_Y_pad_ZX"]
    assert codes.tolist() != case["q_Y_pad_0_WRONG"]
    np.testing.assert_allclose(y.decode(codes), case["y_dequant"], **CLOSE)


def test_quantizer_of_the_multichannel_case(golden):
    case = golden("quantized_conv")["multichannel"]
    x, w = np.array(case["x"], np.float32), np.array(case["w"], np.float32)
    x_encoding = encoding_for(x.min(), x.max(), Int(8), symmetric=False)
    np.testing.assert_allclose(x_encoding.scale, case["S_X"], **CLOSE)
    assert x_encoding.encode(x).codes.tolist() == case["q_X"]
    low, high = (f((1, 2, 3), keepdims=True) for f in (w.min, w.max))
    w_encoding = encoding_for(low, high, Int(8), True, block=CHANNEL)
    np.testing.assert_allclose(w_encoding.scale.ravel(), case["S_W"], **CLOSE)
    assert w_encoding.encode(w).codes.tolist() == case["q_W"]
