"""Where the profiles' arithmetic differs: for each one a node, another profile, and the codes on which they part."""

from dataclasses import replace

import numpy as np
import pytest

from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import LoweringError
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, Int
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.profile import PROFILES, Profile, profile
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.program.widths import check_sums

CODES = np.arange(-128, 128, dtype=np.int8)
ONE = Encoding(Int(8), 1.0)


def codes(chosen: Profile, node: op.ProgramNode, **constants: Quantized) -> np.ndarray:
    """Codes of one node named `y` on constants, alike in the reference and in torch."""
    values = {name: Value(data.codes.shape, data.encoding) for name, data in constants.items()}
    shape = np.broadcast_shapes(*(data.codes.shape for data in constants.values()))
    y = Encoding(Int(16 if chosen.activation_bits > 8 else 8), 8.0)
    program = Program(chosen, (), (*(op.Constant(name, data) for name, data in constants.items()), node),
                      values | {"y": Value(shape, y)}, "y")
    made = reference.run(program, {})["y"]
    np.testing.assert_array_equal(made, TorchExecutor(program).run({})["y"])
    return made


def eighths(name: str) -> np.ndarray:
    """Sums −128 … 127 of a linear layer, times 1/8."""
    weight = Quantized(np.ones((1, 1), np.int8), ONE)
    return codes(PROFILES[name], op.Linear("y", "x", weight, None, -128, 127),
                 x=Quantized(CODES.reshape(-1, 1), ONE)).reshape(-1)


def parts_at(a: np.ndarray, b: np.ndarray) -> list[int]:
    """Of the codes nearest to 0."""
    return [int(code) for code in CODES[a != b] if abs(code) <= 13]


def test_double_rounding_carries_what_it_rounded_before():
    """3/8 is 0, but 3/2 is 2 and 2/4 is 1."""
    assert parts_at(eighths("gemmlowp"), eighths("litert")) == [-12, -4, 3, 11]
    assert np.count_nonzero(eighths("gemmlowp") != eighths("litert")) == 32


def test_single_rounding_sends_ties_up_where_floats_send_them_to_even():
    assert parts_at(eighths("litert"), eighths("tensorrt")) == [-12, 4]
    assert parts_at(eighths("litert-single-rounding"), eighths("tensorrt")) == [-12, 4]


def test_litert_rounds_convolutions_twice_and_linear_layers_once():
    weight = Quantized(np.ones((1, 1, 1, 1), np.int8), ONE)
    node = op.Conv("y", "x", weight, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, -128, 127)
    image = Quantized(CODES.reshape(-1, 1, 1, 1), ONE)
    made = {name: codes(PROFILES[name], node, x=image).reshape(-1) for name in ("litert", "litert-single-rounding")}
    assert made["litert"].tolist() == eighths("gemmlowp").tolist() == eighths("cmsis-nn").tolist()
    assert made["litert-single-rounding"].tolist() == eighths("litert").tolist()


def test_cmsis_nn_differs_from_litert_in_linear_layers():
    assert parts_at(eighths("cmsis-nn"), eighths("litert")) == [-12, -4, 3, 11]


def test_sums_of_16_bit_activations_meet_15_bits_of_the_multiplier():
    third, wide = Encoding(Int(16), 1 / 3), PROFILES["litert-int16"]
    weight = Quantized(np.ones((1, 1, 1, 1), np.int8), ONE)
    node = op.Conv("y", "x", weight, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, -(2**15), 2**15 - 1)
    image = Quantized(np.arange(-(2**15), 2**15, dtype=np.int16).reshape(-1, 1, 1, 1), third)
    made, double = (codes(chosen, node, x=image) for chosen in (wide, replace(wide, rescaling="double")))
    assert np.count_nonzero(made != double) == 2730  # the multiplier is 1/24, rounded to 0x5555 / 2^19


def test_additions_of_three_kinds():
    """On grids without a common step, over all pairs of codes."""
    a = Quantized(CODES.reshape(-1, 1).repeat(256, 1), Encoding(Int(8), 3.1))
    b = Quantized(CODES.reshape(1, -1).repeat(256, 0), Encoding(Int(8), 4.7))
    node = op.Add("y", "a", "b", -128, 127)
    fma, plain, integer = (codes(chosen, node, a=a, b=b) for chosen in (
        replace(PROFILES["onnxruntime"], signed=True), PROFILES["tensorrt"], PROFILES["gemmlowp"]))
    assert 0 < np.count_nonzero(fma != plain) < 1000
    assert 0 < np.count_nonzero(integer != plain) < 1000
    assert np.abs(integer.astype(int) - plain).max() == 1


def test_portable_adds_with_floats():
    same = replace(PROFILES["onnxruntime-portable"], signed=True)
    assert same.addition == PROFILES["tensorrt"].addition != PROFILES["onnxruntime"].addition


def test_ties_of_inputs():
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5]], np.float32)
    found = {}
    for name in ("tensorrt", "litert"):
        program = Program(PROFILES[name], ("x",), (op.Quantize("y", "x"),),
                          {"x": Value((1, 6), None), "y": Value((1, 6), ONE)}, "y")
        found[name] = reference.run(program, {"x": x})["y"].tolist()
        assert TorchExecutor(program).run({"x": x})["y"].tolist() == found[name]
    assert found == {"tensorrt": [[0, 2, 2, 0, -2, -2]], "litert": [[1, 2, 3, -1, -2, -3]]}


def test_average_of_codes_and_of_numbers():
    """The mean of codes 0 and 1: away from 0 it is 1, to even 0."""
    x = Quantized(np.array([[[[0, 1]]]], np.int8), ONE)
    node = op.AveragePool("y", "x", (1, 2), (1, 1), ((0, 0), (0, 0)), np.int32([[2]]), -128, 127)
    made = {}
    for name in ("gemmlowp", "tensorrt"):
        values = {"x": Value(x.codes.shape, x.encoding), "y": Value((1, 1, 1, 1), x.encoding)}
        program = Program(PROFILES[name], (), (op.Constant("x", x), node), values, "y")
        made[name] = int(reference.run(program, {})["y"].item())
        assert int(TorchExecutor(program).run({})["y"].item()) == made[name]
    assert made == {"gemmlowp": 1, "tensorrt": 0}


@pytest.mark.parametrize(("padding", "corner"), [(True, 1), (False, 8)])
def test_average_of_padding(padding, corner):
    """Codes 8 around a zero point of −4, in the corner of a padded 3×3 window: 4 codes 8, and 5 codes −4 or none.
    (32 − 20) / 9 is 1.33."""
    x = Quantized(np.full((1, 1, 3, 3), 8, np.int8), Encoding(Int(8), 1.0, -4))
    counts = np.int32([[9]] if padding else np.outer([2, 3, 2], [2, 3, 2]))
    node = op.AveragePool("y", "x", (3, 3), (1, 1), ((1, 1), (1, 1)), counts, -128, 127)
    values = {"x": Value(x.codes.shape, x.encoding), "y": Value(x.codes.shape, x.encoding)}
    program = Program(PROFILES["gemmlowp"], (), (op.Constant("x", x), node), values, "y")
    made = reference.run(program, {})["y"]
    np.testing.assert_array_equal(made, TorchExecutor(program).run({})["y"])
    assert (made[0, 0, 0, 0], made[0, 0, 1, 1]) == (corner, 8)


# ------------------------------------------------------------------------------- narrow sums


def wide_layer(chosen: Profile, weight_codes: np.ndarray, bias=None) -> Program:
    x = Encoding(Int(8, signed=False), 0.1, 3)
    rng = np.random.default_rng(0)
    data = Quantized(rng.integers(0, 256, (50, weight_codes.shape[1])).astype(np.uint8), x)
    weight = Quantized(weight_codes.astype(np.int8), Encoding(Int(8), 0.01))
    sums = Encoding(ACCUMULATOR, 0.001)
    node = op.Linear("y", "x", weight, bias, ACCUMULATOR.low, ACCUMULATOR.high)
    return Program(chosen, (), (op.Constant("x", data), node),
                   {"x": Value(data.codes.shape, x), "y": Value((50, len(weight_codes)), sums)}, "y")


WEIGHTS = np.random.default_rng(1).integers(-127, 128, (7, 60))


def test_split_sums_equal_the_unsplit():
    bias = np.arange(7, dtype=np.int32) * 100_000
    whole, split = (wide_layer(profile(name), WEIGHTS, bias)
                    for name in ("onnxruntime", "onnxruntime/sums16-split"))
    check_sums(split)
    np.testing.assert_array_equal(reference.run(split, {})["y"], reference.run(whole, {})["y"])
    np.testing.assert_array_equal(TorchExecutor(split).run({})["y"], reference.run(whole, {})["y"])


def test_sums_that_do_not_fit_are_refused():
    for bits, weights in ((16, WEIGHTS), (24, np.full((1, 600), 127))):
        with pytest.raises(LoweringError, match=rf"'y' needs sums of \d+ bits, but profile onnxruntime/sums{bits} has "
                                                rf"{bits}: use fewer bits, or profile onnxruntime/sums{bits}-split"):
            check_sums(wide_layer(profile(f"onnxruntime/sums{bits}"), weights))
    check_sums(wide_layer(profile("onnxruntime/sums24"), WEIGHTS))


def test_one_product_too_wide_is_refused():
    with pytest.raises(LoweringError, match="one product of 'y' needs more than the 12 bits"):
        check_sums(wide_layer(profile("onnxruntime/sums12-split"), WEIGHTS))


@pytest.mark.parametrize(("name", "told"), [
    ("onnxrt", "no profile is called 'onnxrt': choose one of onnxruntime, "),
    ("litert/sums40", "would add in 40 bits: choose 9 to 31"),
    ("nothing/sums16", "no profile is called 'nothing'"),
])
def test_names_of_profiles(name, told):
    with pytest.raises(LoweringError, match=told):
        profile(name)


def test_a_name_says_the_width():
    chosen = profile("litert/sums24-split")
    assert (chosen.name, chosen.sum_bits, chosen.split) == ("litert/sums24-split", 24, True)
    assert replace(chosen, name="litert", sum_bits=32, split=False) == PROFILES["litert"]
