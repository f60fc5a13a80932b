"""Other tools' rules against the tools themselves where they can be had, and the golden vectors elsewhere."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Int
from fewbits.numerics.rounding import half_away
from fewbits.ranges.compatibility import SHOWN, TOOLS, encode_as, tool, truth_table
from fewbits.ranges.scale import encoding_for

TENSORS = {"shown": SHOWN.astype(np.float32),
           "normal": np.random.default_rng(0).standard_normal(50_000).astype(np.float32),
           "positive": np.random.default_rng(1).uniform(0.1, 3, 50_000).astype(np.float32)}


@pytest.fixture(params=TENSORS)
def x(request):
    return TENSORS[request.param]


def test_torch_fake_quantize_rounds_then_shifts(x):
    ours = encode_as(tool("torch fake_quantize"), x)
    theirs = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), ours.scale, int(ours.zero_point), 0, 255)
    np.testing.assert_array_equal(np.float32(ours.scale) * (ours.codes - np.float32(ours.zero_point)), theirs.numpy())


@pytest.mark.filterwarnings("ignore")
def test_torch_quantize_shifts_then_rounds(x):
    ours = encode_as(tool("torch quantize_per_tensor"), x)
    theirs = torch.quantize_per_tensor(torch.from_numpy(x), ours.scale, int(ours.zero_point), torch.quint8)
    np.testing.assert_array_equal(ours.codes, theirs.int_repr().numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "dtype", "scheme", "limits"), [
    ("torch quantize_per_tensor", torch.quint8, torch.per_tensor_affine, (0, 255)),
    ("torch observer, symmetric", torch.qint8, torch.per_tensor_symmetric, (-128, 127)),
    ("torchao PT2E, activations", torch.int8, torch.per_tensor_affine, (-128, 127)),
    ("torchao PT2E, weights", torch.int8, torch.per_tensor_symmetric, (-127, 127))])
def test_torch_observers_find_the_same_scale(x, name, dtype, scheme, limits):
    observer = torch.ao.quantization.MinMaxObserver(dtype, scheme, quant_min=limits[0], quant_max=limits[1])
    observer(torch.from_numpy(x))
    scale, zero_point = observer.calculate_qparams()
    ours = encode_as(tool(name), x)
    np.testing.assert_allclose(ours.scale, scale.item(), rtol=2e-7)
    assert ours.zero_point == zero_point.item()


@pytest.mark.parametrize("name", ["ONNX Runtime, activations", "ONNX Runtime, weights", "fewbits, activations",
                                  "fewbits, weights"])
def test_onnxruntime_quantizes_the_same(x, name):
    row = tool(name)
    ours = encode_as(row, x)
    kind, dtype = ((TensorProto.INT8, np.int8) if row.format.signed else (TensorProto.UINT8, np.uint8))
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", kind, list(x.shape))],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [ours.scale]),
         helper.make_tensor("zero", kind, [], [int(ours.zero_point)])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    theirs = session.run(None, {"x": x})[0]
    assert theirs.dtype == dtype
    np.testing.assert_array_equal(ours.codes, theirs)


def test_ours_is_what_the_scale_rule_gives(x):
    for name, symmetric in (("fewbits, activations", False), ("fewbits, weights", True)):
        row = tool(name)
        encoding = encoding_for(x.min(), x.max(), row.format, symmetric)
        ours = encode_as(row, x)
        assert ours.scale == encoding.scale
        assert ours.zero_point == encoding.zero_point
        np.testing.assert_array_equal(ours.codes, encoding.encode(x).codes)


def test_golden_ties(golden):
    """Adding the zero point before rounding or after: they differ by one code on ties under an odd one."""
    for key, zero in (("S0.5_Z1", 1), ("S0.5_Z0", 0)):
        row = golden("tie_cases")[key]
        x = torch.tensor(row["x"])
        rounded = torch.fake_quantize_per_tensor_affine(x, 0.5, zero, -128, 127) / 0.5 + zero
        assert rounded.tolist() == row["round_then_shift"]
        for order, expected in (("after", row["round_then_shift"]), ("before", row["shift_then_round"])):
            # a range of scale 1/2 whose zero point is `zero`
            low, high = (-128 - zero) * 0.5, (127 - zero) * 0.5
            got = encode_as(replace(tool("torchao PT2E, activations"), zero_point=order), np.array(row["x"]), low, high)
            assert got.zero_point == zero
            assert got.codes.tolist() == expected
    row = golden("tie_cases")
    steps = np.array(row["x_over_S"])
    assert (half_away(steps) + 1).tolist() == row["rha(x/S)+Z"]


def test_golden_tensorflow(golden):
    section = golden("tf_minmax_8bit")
    row = tool("TensorFlow min/max")
    x = np.array([case["x"] for case in section["encode"]])
    away = encode_as(row, x, section["min"], section["max"])
    np.testing.assert_allclose(away.scale, section["step"], rtol=1e-12)
    assert away.codes.tolist() == [case["code_rha"] for case in section["encode"]]
    even = encode_as(replace(row, rounding="half_even"), x, section["min"], section["max"])
    assert even.codes.tolist() == [case["code_rne"] for case in section["encode"]]
    for code, number in section["decode"].items():
        got = encode_as(row, np.array([number]), section["min"], section["max"])
        assert got.codes[0] == int(code)
        np.testing.assert_allclose(got.numbers[0], number, rtol=1e-6, atol=1e-12)


def test_golden_aimet(golden):
    section = golden("aimet_lab")
    lab = section["aimet_1_26_default_config"]
    four = replace(tool("AIMET, activations"), format=Int(4, signed=False))
    expected = lab["input_encoding_asymmetric"]
    x = np.array([0.25, 0.17, -0.31, 0.55])
    got = encode_as(four, x)
    np.testing.assert_allclose(got.scale, expected["delta"], rtol=1e-6)
    assert got.zero_point == expected["offset"]
    assert got.codes.tolist() == lab["input_ints_unsigned"]
    np.testing.assert_allclose(got.numbers, lab["input_dequant"], rtol=1e-6, atol=1e-12)
    weights = encode_as(replace(tool("AIMET, weights"), format=Int(4)), np.array(golden("dynamic_fixed_point")["W_A"]))
    np.testing.assert_allclose(weights.scale, lab["weight_encoding_symmetric"]["delta"], rtol=1e-6)
    assert weights.codes.tolist() == lab["weight_ints_signed"]


def test_gemmlowp_nudges_and_rounds_away():
    got = encode_as(tool("gemmlowp"), np.array([-101, -2.5, 0.5, 154]) / 128)
    assert got.zero_point == 101
    assert got.codes.tolist() == [0, 99, 102, 255]


def test_the_truth_table_shows_every_tool():
    table = truth_table()
    for each in TOOLS:
        assert f"| {each.name} |" in table
    rows = {line.split("|")[1].strip(): line.split("|")[5:-1] for line in table.splitlines()[2:]}
    assert rows["fewbits, activations"] == rows["ONNX Runtime, activations"] == rows["torch fake_quantize"]
    assert rows["fewbits, activations"] != rows["torch quantize_per_tensor"] != rows["gemmlowp"]


def test_ranges_that_are_refused():
    for low, high in ((1.0, 1.0), (0.0, np.inf), (np.nan, 1.0), (2.0, 1.0)):
        with pytest.raises(EncodingError):
            encode_as(TOOLS[0], SHOWN, low, high)
    with pytest.raises(EncodingError, match="no tool"):
        tool("abacus")
