"""On which processors ONNX Runtime computes a program: decided from the program, and held against ONNX Runtime here,
whatever this processor is."""

import itertools
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fewbits as fb
from fewbits.capture.capture import capture
from fewbits.engines import processor as processors
from fewbits.engines.exactness import exactness, listed, portable_nodes, reliance, saturating_pairs
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.processor import Processor, this_processor
from fewbits.errors import ExportError, OptionError
from fewbits.export import verified
from fewbits.export.verified import export_onnx
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.code_ranges import code_ranges
from fewbits.program.profile import ONNXRUNTIME, PORTABLE, TENSORRT
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing.exactness import check_exactness
from fewbits.testing.random_networks import random_network
from fewbits.testing.random_programs import random_program
from fewbits.testing.saturation import pair_sums, probe
from fewbits.writers.onnx.program import onnx_bytes, output_name

WIDE = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
OLD = Processor("old", "x86_64", 1, ())
NO_VNNI = Processor("without VNNI", "x86_64", 1, ("avx2", "fma"))
VNNI = Processor("with VNNI", "x86_64", 1, ("avx2", "fma", *WIDE, "avx512_vnni"))
SESSIONS = (("integer", "off"), ("integer", "all"), ("qdq", "all"))


# ------------------------------------------------------------------------------------------------- the processor


@pytest.mark.parametrize(("features", "pairs", "fuses"), [
    ((), False, False), (("avx2",), False, False), (("avx2", "fma"), True, True),
    (("avx2", "fma", "avx_vnni"), False, True), (("avx2", "fma", *WIDE), True, True),
    (("avx2", "fma", *WIDE, "avx_vnni"), True, True), (("avx2", "fma", *WIDE, "avx512_vnni"), False, True),
    (("avx2", "fma", "avx512f", "avx_vnni"), False, True), (None, True, False),
])
def test_which_processors_add_pairs_in_16_bits(features, pairs, fuses):
    processor = Processor("one", "x86_64", 1, features)
    assert (processor.adds_pairs_in_16_bits, processor.fuses_additions) == (pairs, fuses)


def test_other_architectures_are_no_x86():
    arm = Processor("Neoverse", "aarch64", 4, ())
    assert (arm.is_x86, arm.adds_pairs_in_16_bits) == (False, False)
    program = layer(op.Linear, np.full((2, 8), 127))
    assert reliance(program).wrong_on(arm) == ()
    assert exactness(program, "any", arm).where == "any x86-64; other processors: not checked"


@pytest.mark.emulated
def test_this_processor_is_what_onnxruntime_makes_of_it():
    """The one fact that all else rests on, by a product that saturates: whether this processor adds pairs."""
    made = probe(layer(op.Linear, np.full((3, 9), 127)), "y")
    got = OnnxSession(onnx_bytes(made.program), "all", 1).run(made.inputs)[output_name("y")]
    assert np.array_equal(got, made.in_pairs if this_processor().adds_pairs_in_16_bits else made.exact)
    assert made.differs


def test_what_cpuid_does_not_tell_is_taken_for_the_worst(monkeypatch):
    monkeypatch.setattr(processors, "cpuid", lambda leaf, subleaf=0: None)
    monkeypatch.setattr(processors, "saved_registers", lambda: 0)
    assert processors._features() is None
    assert "features unknown" in str(Processor("", "x86_64", 1, None))


# --------------------------------------------------------------------------------------------------- the products


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=5), st.integers(0, 255), st.integers(0, 255))
def test_a_pair_leaves_16_bits_if_and_only_if_some_codes_saturate_it(weights, one, other):
    low, high = sorted((one, other))
    w = np.array([weights])
    inputs = np.array(list(itertools.product((low, high), repeat=len(weights))))
    saturates = (pair_sums(inputs, w) != inputs @ w.T).any()
    assert saturating_pairs(w, low, high).any() == saturates


@pytest.mark.parametrize(("weights", "high", "saturates"), [
    ([64, 64], 255, False), ([65, 64], 255, True), ([-64, -64], 255, False), ([-64, -65], 255, True),
    ([127, -127], 255, False), ([0, 127, 127, 0], 255, False), ([127, 1, 1, 127], 255, False),
    ([127, 2], 255, True), ([127], 255, False), ([127, 127], 129, False), ([127, 127], 130, True),
])
def test_neighbours_along_the_sum_make_a_pair(weights, high, saturates):
    assert saturating_pairs(np.array([weights]), 0, high).any() == saturates


def layer(kind, codes, profile=ONNXRUNTIME, x=None, format="int8", groups=1, low=0, high=255, zeros=0, **conv):
    """One product of that kind with those weight codes: quantizer, layer, codes out. zeros: weight zero points."""
    codes = np.asarray(codes)
    x = x or Encoding(parse("int8" if profile.signed else "uint8"), 0.1, 0 if profile.signed else 3)
    y = Encoding(x.format, 100.0, 0)
    low, high = max(low, y.format.low), min(high, y.format.high)
    shape = CHANNEL.scale_shape(codes.shape)
    weight_zeros = np.broadcast_to(np.asarray(zeros, np.int32), len(codes)).reshape(shape)
    w = Quantized(codes, Encoding(parse(format), np.full(shape, 0.01), weight_zeros, CHANNEL))
    axes = codes.ndim - 2
    if kind is op.Conv:
        sizes = {"stride": (1,) * axes, "padding": ((0, 0),) * axes, "dilation": (1,) * axes} | conv
        node = op.Conv("y", "codes", w, None, sizes["stride"], sizes["padding"], sizes["dilation"], groups, low, high)
        extent = [d * (k - 1) + 1 - sum(p) for d, k, p in zip(sizes["dilation"], codes.shape[2:], sizes["padding"],
                                                              strict=True)]
        inside, outside = (None, codes.shape[1] * groups, *extent), (None, len(codes), *[1] * axes)
    else:
        node = op.Linear("y", "codes", w, None, low, high)
        inside, outside = (None, codes.shape[1]), (None, len(codes))
    values = {"x": Value(inside, None), "codes": Value(inside, x), "y": Value(outside, y)}
    return Program(profile, ("x",), (op.Quantize("codes", "x"), node), values, "y")


def full(*shape):
    return np.full(shape, 127)


@pytest.mark.emulated
@pytest.mark.parametrize(("program", "saturates"), [
    (layer(op.Linear, full(3, 4)), True), (layer(op.Linear, full(3, 1)), False),
    (layer(op.Conv, full(3, 2, 3, 3)), True), (layer(op.Conv, full(3, 2, 3)), True),
    (layer(op.Conv, full(3, 2, 1, 2, 2)), True), (layer(op.Conv, full(4, 2, 1, 1), groups=2), True),
    (layer(op.Conv, full(4, 1, 3, 3), groups=4), False), (layer(op.Conv, full(8, 1, 3, 3), groups=4), True),
    # depthwise with one weight zero point has a kernel of its own; with several it is a product of matrices
    (layer(op.Conv, full(4, 1, 3, 3), groups=4, zeros=-9), False),
    (layer(op.Conv, full(4, 1, 3, 3), groups=4, zeros=(-9, -8, -9, -9)), True),
    (layer(op.Conv, full(4, 1, 1, 1), groups=4, zeros=(-9, -8, -9, -9)), False),
    (layer(op.Conv, full(3, 1, 5), groups=3, zeros=(1, 2, 3)), True),
    (layer(op.Conv, full(3, 1, 2, 2, 2), groups=3, zeros=(1, 2, 3)), True),
    (layer(op.Conv, full(4, 1, 5), groups=4), False), (layer(op.Conv, full(2, 1, 3, 3)), True),
    (layer(op.Conv, full(1, 1, 3, 3)), False), (layer(op.Conv, full(3, 3, 2, 2), dilation=(2, 3)), True),
    (layer(op.Linear, np.full((3, 4), 64)), False), (layer(op.Linear, np.full((3, 4), 64), PORTABLE), False),
    (layer(op.Linear, full(3, 4), TENSORRT), False), (layer(op.Conv, full(3, 2, 3, 3), TENSORRT), False),
    (layer(op.Linear, full(3, 4), x=Encoding(parse("uint4"), 0.1, 3)), False),
    (layer(op.Linear, full(3, 4), x=Encoding(parse("uint7"), 0.1, 3)), False),
    (layer(op.Linear, full(3, 4) - 120, format="int4"), False),
    (layer(op.Conv, [[[[127]], [[-127]], [[127]], [[-127]]]]), False),
    (layer(op.Conv, [[[[127, -127]], [[127, -127]]]]), True),  # by position first: 127 and 127 make a pair
    (layer(op.Conv, [[[[127, 127]], [[-127, -127]]]]), False),
], ids=str)
def test_what_is_said_of_a_layer_is_what_onnxruntime_computes(program, saturates):
    """Predicted from weights, code ranges and kernel; then run on the worst codes, plainly and portably."""
    assert (reliance(program).pairs == ("y",)) == saturates
    made = probe(program, "y")
    assert made.differs == saturates
    output = made.program.outputs[0]
    right = made.program.real(output, reference.run(made.program, made.inputs)[output])
    assert np.array_equal(right, made.exact)
    seen = made.in_pairs if this_processor().adds_pairs_in_16_bits else made.exact
    for form, level in SESSIONS:
        for portable, expected in ((frozenset(), seen), (portable_nodes(made.program, "any", NO_VNNI), made.exact)):
            got = OnnxSession(onnx_bytes(made.program, form, portable=portable), level, 1).run(made.inputs)
            assert np.array_equal(got[output_name(output)], expected), (form, level, sorted(portable))


@pytest.mark.emulated
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("seed", [2, 5, 8, 21])
@pytest.mark.parametrize(("recipe", "profile"), [("w8a8", "onnxruntime"), ("w8a8-symmetric", "tensorrt"),
                                                 ("dynamic-w8a8", "onnxruntime")])
def test_random_networks(recipe, profile, seed):
    """`python -m benchmarks.exactness` does the same on hundreds."""
    net, example = random_network(seed)
    model = fold(capture(net, example))
    program = lower(calibrate(model, plan(model, recipe), [example / 1.3]), profile)
    found = check_exactness(program, {program.inputs[0]: example.numpy()})
    assert (found.differing, found.disputed) == (0, ())
    assert found.compared
    here = this_processor().adds_pairs_in_16_bits
    assert found.wrong == (len(reliance(program).pairs) if here else 0)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("first", range(0, 24, 8))
def test_values_stay_in_their_code_ranges(first):
    for seed in range(first, first + 8):
        made = random_program(seed)
        ranges, names = code_ranges(made.program), [node.name for node in made.program.nodes]
        for name, values in reference.run(made.program, made.inputs, names).items():
            if name in ranges and values.size:
                low, high = ranges[name]
                assert low <= values.min() <= values.max() <= high, (seed, name)


def test_a_table_and_a_bound_narrow_the_codes_behind_them():
    x, y = Encoding(parse("uint8"), 0.1, 10), Encoding(parse("uint8"), 0.1, 3)
    table = np.arange(256, dtype=np.uint8)[None]
    nodes = (op.Quantize("codes", "x"), op.Requantize("relu", "codes", 3, 90), op.Table("table", "relu", table, "same"),
             op.Pad("pad", "table", ((0, 0), (1, 1))), op.Reshape("flat", "pad", (-1, 6)))
    values = {"x": Value((None, 4), None), "codes": Value((None, 4), x), "relu": Value((None, 4), y),
              "table": Value((None, 4), Encoding(parse("uint8"), 0.1, 120)),
              "pad": Value((None, 6), Encoding(parse("uint8"), 0.1, 120)),
              "flat": Value((None, 6), Encoding(parse("uint8"), 0.1, 120))}
    found = code_ranges(Program(ONNXRUNTIME, ("x",), nodes, values, "flat"))
    assert found == {"codes": (0, 255), "relu": (3, 90), "table": (3, 90), "pad": (3, 120), "flat": (3, 120)}


# ----------------------------------------------------------------------------------------- sums of two tensors


def addition(scales, zeros=(10, 200, 30), shape=(None, 65536)):
    encodings = [Encoding(parse("uint8"), scale, zero) for scale, zero in zip(scales, zeros, strict=True)]
    nodes = (op.Quantize("a.codes", "a"), op.Quantize("b.codes", "b"), op.Add("y", "a.codes", "b.codes", 0, 255))
    values = {"a": Value(shape, None), "b": Value(shape, None), "a.codes": Value(shape, encodings[0]),
              "b.codes": Value(shape, encodings[1]), "y": Value(shape, encodings[2])}
    return Program(ONNXRUNTIME, ("a", "b"), nodes, values, "y")


def differing_addition():
    """A sum of which some two codes come out otherwise without fused multiply-adds: one in a dozen is such."""
    random = np.random.default_rng(0)
    made = (addition(np.exp(random.normal(size=3)).astype(np.float32)) for _ in range(200))
    return next(program for program in made if reliance(program).fused)


@pytest.mark.emulated
@pytest.mark.parametrize("make", [differing_addition, lambda: addition((0.25, 0.25, 0.5))])
def test_every_two_codes_are_added_as_said(make):
    program = make()
    assert (reliance(program).fused == ("y",)) == (make is differing_addition)
    found = check_exactness(program, {name: np.zeros((1, 65536), np.float32) for name in "ab"})
    assert (found.layers, found.disputed, found.differing) == (1, (), 0)


def test_a_difference_in_sums_is_said_and_written_as_a_table():
    program = differing_addition()
    assert portable_nodes(program, "any", VNNI) == portable_nodes(program, "this", OLD) == {"y"}
    assert portable_nodes(program, "this", VNNI) == portable_nodes(program, "vnni", OLD) == frozenset()
    assert "with AVX2 and FMA, for the sums of 'y'" in exactness(program, "vnni", VNNI).where
    assert "tables for the sums of 'y'" in str(exactness(program, "any", VNNI))
    assert b"GatherElements" in onnx_bytes(program, "qdq", portable={"y"})


# --------------------------------------------------------------------------------------------------- the export


@pytest.fixture(scope="module")
def dim():
    """A network whose layers saturate on bright inputs only, and both kinds of batches."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)).eval()
    for layer_ in (net[0], net[3]):
        layer_.weight.data = layer_.weight.data.abs()
    bright = torch.rand(8, 3, 8, 8)
    return fb.quantize(net, bright, [bright]), bright, torch.rand(4, 3, 8, 8) * 0.2


@pytest.mark.emulated
@pytest.mark.parametrize("form", ["integer", "qdq"])
@pytest.mark.parametrize("target", ["any", "this"])
def test_what_was_verified_on_dim_inputs_is_right_on_bright_ones(dim, form, target, tmp_path):
    model, bright, batch = dim
    assert fb.export_onnx(model, tmp_path / "a.onnx", verify=[batch], form=form, processor=target)
    got = OnnxSession((tmp_path / "a.onnx").read_bytes()).run({"input": bright.numpy()})
    assert np.array_equal(*got.values(), model(bright).numpy())


def as_if_on(monkeypatch, processor):
    monkeypatch.setattr(verified, "this_processor", lambda: processor)


def test_int8_weights_are_refused_where_they_would_be_wrong(dim, monkeypatch, tmp_path):
    model, _, batch = dim
    as_if_on(monkeypatch, NO_VNNI)
    with pytest.raises(ExportError, match=r"a.onnx was not written: without VNNI adds products .*, and so computes '1' "
                                          r"and '3' wrong in a file for processor 'vnni': export it for `any`, or"):
        export_onnx(model.program, tmp_path / "a.onnx", [batch], processor="vnni")
    assert not list(tmp_path.iterdir())
    program = differing_addition()
    as_if_on(monkeypatch, OLD)
    with pytest.raises(ExportError, match="has no fused multiply-add, and so computes 'y' wrong"):
        export_onnx(program, tmp_path / "a.onnx", [torch.zeros(1, 65536)] * 2, processor="vnni")


@pytest.mark.parametrize(("processor", "target", "told"), [
    (NO_VNNI, "any", "any x86-64"), (NO_VNNI, "this", "any x86-64"), (VNNI, "any", "any x86-64"),
    (VNNI, "this", "x86-64 with VNNI, or without AVX2, for the products of '1' and '3'"),
    (VNNI, "vnni", "x86-64 with VNNI, or without AVX2, for the products of '1' and '3'"),
])
def test_a_file_says_where_it_is_exact(dim, monkeypatch, tmp_path, processor, target, told):
    if "with VNNI" in told and this_processor().adds_pairs_in_16_bits:
        pytest.skip("such a file cannot be verified on a processor without VNNI")
    as_if_on(monkeypatch, processor)
    model, _, batch = dim
    export_onnx(model.program, tmp_path / "a.onnx", [batch], processor=target)
    read = onnx.load(tmp_path / "a.onnx")
    said = {entry.key: entry.value for entry in read.metadata_props}
    assert said == {"fewbits.profile": "onnxruntime", "fewbits.exact_on": f"{told}; other processors: not checked",
                    "fewbits.exact_at": "every optimisation level of onnxruntime"}
    kinds = {tensor.data_type for tensor in read.graph.initializer if tensor.name.endswith(".weight")}
    assert kinds == ({onnx.TensorProto.UINT8} if told == "any x86-64" else {onnx.TensorProto.INT8})


def test_only_layers_that_can_saturate_are_treated(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6(), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(96, 3))
    x = torch.randn(4, 4, 6, 6)
    program = fb.quantize(net, x, [x]).program
    assert portable_nodes(program, "any", VNNI) == {"2", "4"}, "all but the depthwise convolution"
    by_four = fb.quantize(net, x, [x], recipe="w4a8").program
    assert portable_nodes(by_four, "any", VNNI) == frozenset()
    assert onnx_bytes(by_four, portable=portable_nodes(by_four, "any", VNNI)) == onnx_bytes(by_four)


def test_a_target_that_is_none_is_named(dim, tmp_path):
    with pytest.raises(OptionError, match="= 'arm' is not allowed: give one of 'any', 'vnni', 'this'"):
        export_onnx(dim[0].program, tmp_path / "a.onnx", [dim[2]], processor="arm")


@pytest.mark.emulated
def test_a_weight_shared_by_two_dynamic_layers_is_written_both_ways():
    """One of them may need uint8, and the other not: a convolution of int8 is added in 32 bits."""
    w = Quantized(full(4, 3), Encoding(parse("int8"), 0.01, 0))
    nodes = (op.Constant("w", w), op.DynamicLinear("a", "x", "w", None), op.DynamicLinear("b", "a", "w", None))
    square = Quantized(full(3, 3), Encoding(parse("int8"), 0.01, 0))
    nodes = (op.Constant("w", square), *nodes[1:])
    program = Program(ONNXRUNTIME, ("x",), nodes,
                      {"x": Value((None, 3), None), "w": Value((3, 3), square.encoding), "a": Value((None, 3), None),
                       "b": Value((None, 3), None)}, "b")
    x = np.float32([[0, 255, 255], [3, 1, 2]])
    right = reference.run(program, {"x": x})["b"]
    assert reliance(program).pairs == ("a", "b")
    for portable in (frozenset("ab"), *([frozenset("a")] if not this_processor().adds_pairs_in_16_bits else [])):
        for level in ("off", "all"):
            got = OnnxSession(onnx_bytes(program, portable=portable), level, 1).run({"x": x})["b.float"]
            assert np.array_equal(got, right)


def test_names_are_listed_in_words():
    assert listed(["a"]) == "'a'"
    assert listed(["a", "b", "c"]) == "'a', 'b' and 'c'"
    assert listed(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"


def test_profiles_of_other_engines_rely_on_nothing_of_onnxruntime():
    program = layer(op.Linear, full(3, 4))
    assert reliance(replace(program, profile=replace(ONNXRUNTIME, engine=""))).nodes == ()
