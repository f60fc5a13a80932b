"""Ranges of each run: codes, sums and results equal on every engine; recipes, files, refusals."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn

from fewbits.artifact.file import read, sizes
from fewbits.artifact.save import save_verified
from fewbits.artifact.verify import verify
from fewbits.capture.capture import capture
from fewbits.engines.executable import Executable
from fewbits.errors import LoweringError, ProgramError, RecipeError
from fewbits.export.verified import export_onnx
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.numerics.block import Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program import dynamic, reference
from fewbits.program import ops as op
from fewbits.program.profile import ONNXRUNTIME
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.engines import agreement
from fewbits.report.ledger import ledger
from fewbits.testing.random_networks import random_network

TOP = {"version": 1, "weights": {"format": "int8"}, "activations": {"format": "uint8", "symmetric": False,
                                                                    "range": "dynamic"}}


def recipe(*rules, **top) -> Recipe:
    return Recipe.model_validate(TOP | top | {"rules": list(rules)})


def simulated(net, x, wanted="dynamic-w8a8", norms="fold"):
    model = fold(capture(net.eval(), x), norms)
    return calibrate(model, plan(model, wanted), [x])


def assert_promises_kept(program, *batches):
    for row in agreement(program, batches, every_value=True):
        assert not (row.exact and row.differing), str(row)


def quantizer() -> ort.InferenceSession:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"])
    kinds = {"x": TensorProto.FLOAT, "codes": TensorProto.UINT8, "scale": TensorProto.FLOAT, "zero": TensorProto.UINT8}
    values = {name: helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()}
    graph = helper.make_graph([node], "one", [values["x"]], [values[name] for name in ("codes", "scale", "zero")])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 19)])
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


QUANTIZER = quantizer()
NUMBERS = st.one_of(st.floats(-2.0**100, 2.0**100, width=32), st.integers(-300, 300).map(lambda n: n / 2))


@settings(max_examples=300)
@given(st.lists(NUMBERS, min_size=1, max_size=40))
def test_codes_are_those_of_dynamic_quantize_linear(numbers):
    """ONNX Runtime's own operator, over any numbers and ties; but where the scale is below what float32 holds."""
    x = np.array(numbers, np.float32)
    grid = dynamic.grid_of(x)
    if grid.scale < 1e-37:
        return
    codes, scale, zero = QUANTIZER.run(None, {"x": x})
    assert (grid.scale, grid.zero_point) == (scale, zero)
    assert np.array_equal(dynamic.centred_codes(x, grid), codes.astype(np.int64) - int(zero))


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [3.0], [-3.0], [1e-44, 0.0], [255.0, 0.5, 1.5, 2.5], [-1.0, 1.0]])
def test_the_ends_of_the_grid(numbers):
    x = np.array(numbers, np.float32)
    grid = dynamic.grid_of(x)
    real = grid.scale * dynamic.centred_codes(x, grid).astype(np.float32)
    assert np.abs(real - x).max() <= 0.5 * grid.scale + 1e-40
    assert 0 <= grid.zero_point <= 255


def linear_program(codes, scale, bias=True) -> Program:
    outputs, inputs = codes.shape
    weight = Quantized(codes, Encoding(Int(8), scale, 0, Block((1,)) if np.ndim(scale) else Block()))
    nodes = (op.Constant("w", weight), op.FloatConstant("b", np.linspace(-1, 1, outputs).astype(np.float32)),
             op.DynamicLinear("y", "x", "w", "b" if bias else None))
    values = {"x": Value((None, inputs), None), "w": Value(codes.shape, weight.encoding),
              "b": Value((outputs,), None), "y": Value((None, outputs), None)}
    if not bias:
        nodes, values = nodes[::2], {name: value for name, value in values.items() if name != "b"}
    return Program(ONNXRUNTIME, ("x",), nodes, values, "y")


def test_a_product_by_hand():
    """One loop per product in Python's integers and float32 steps."""
    rng = np.random.default_rng(0)
    codes, scale = rng.integers(-127, 128, (3, 5)).astype(np.int8), rng.random((3, 1)).astype(np.float32)
    x = rng.normal(size=(2, 5)).astype(np.float32)
    program = linear_program(codes, scale)
    result = reference.run(program, {"x": x})["y"]
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    s = np.float32((high - low) / np.float32(255))
    z = int(np.rint(-low / s))
    for row in range(2):
        for out in range(3):
            total = sum(int(codes[out, k]) * (min(max(int(np.rint(x[row, k] / s)) + z, 0), 255) - z) for k in range(5))
            wanted = np.float32(np.float32(total) * np.float32(s * scale[out, 0])) + np.float32(out - 1)
            assert result[row, out] == np.float32(wanted)


@pytest.mark.parametrize("seed", range(6))
def test_products_are_equal_everywhere(seed):
    """Any size, one scale or many, ties, saturated sums: bit for bit, at every optimisation level."""
    rng = np.random.default_rng(seed)
    inputs, outputs = (int(n) for n in rng.integers(1, 300, 2))
    codes = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    scale = (rng.random((outputs, 1)) * 0.01 + 1e-4).astype(np.float32) if seed % 2 else np.float32(0.007)
    batches = [torch.from_numpy(x.astype(np.float32)) for x in (
        rng.normal(size=(7, inputs)), rng.integers(0, 511, (3, inputs)) / 2, np.abs(rng.normal(size=(2, inputs))) + 5)]
    for row in agreement(linear_program(codes, scale, bias=seed % 3 > 0), batches):
        assert row.differing == 0, str(row)


CASES = {
    "linear": (nn.Linear(7, 3), (4, 7)), "rows": (nn.Linear(7, 3), (4, 5, 7)),
    "conv1d": (nn.Conv1d(2, 4, 3, padding="same", groups=2, bias=False), (2, 2, 9)),
    "conv2d": (nn.Conv2d(3, 4, (3, 2), (1, 2), (1, 0)), (2, 3, 7, 6)), "conv3d": (nn.Conv3d(1, 2, 2), (2, 1, 3, 4, 5)),
    "norm": (nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU()), (2, 2, 4, 4)),
    "lstm": (nn.LSTM(5, 6, batch_first=True), (3, 4, 5)), "gru": (nn.GRU(5, 6, batch_first=True), (3, 4, 5)),
}


class First(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("norms", ["fold", "keep"])
@pytest.mark.parametrize("name", CASES)
def test_layers_without_data(name, norms, tmp_path):
    torch.manual_seed(0)
    net, shape = CASES[name]
    net = (First(net) if name in ("lstm", "gru") else net).eval()
    x = torch.randn(*shape)
    model = fold(capture(net, x), norms)
    simulation = calibrate(model, plan(model, "dynamic-w8a8"))
    program = lower(simulation)
    assert_promises_kept(program, x, 3 * x)
    assert (Executable(program)(x) - simulation(x)).abs().max() < 1e-5
    assert (Executable(program)(x) - net(x)).abs().max() < 0.05
    dots = [node for node in program.everything if isinstance(node, op.Dynamic)]
    told = ledger(program, simulation.plan, simulation.model.graph)
    assert told.counts["dynamic"] == len(dots) == len(told.accumulations)
    save_verified(program, tmp_path / "a.fewbits")
    assert all(not replay.differing for replay in verify(tmp_path / "a.fewbits"))
    assert torch.equal(Executable(read(tmp_path / "a.fewbits").program)(x), Executable(program)(x))
    assert export_onnx(program, tmp_path / "a.onnx", [x])
    if name == "lstm":
        stored = sum(item.bytes for item in sizes(tmp_path / "a.fewbits") if item.part == "constants")
        assert stored == 4 * 6 * (5 + 6), "the weights of all steps once"


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("first", range(0, 16, 8))
def test_random_networks(first):
    """Dynamic layers anywhere, among integers and islands."""
    for seed in range(first, first + 8):
        net, example = random_network(seed)
        static = {"format": "uint8", "symmetric": False, "range": "minmax"}
        mixed = recipe({"op": "conv", "inputs": static, "optional": True}) if seed % 2 else "dynamic-w8a8"
        program = lower(simulated(net, example, mixed, norms="keep" if seed % 4 == 0 else "fold"))
        for row in agreement(program, [example / 1.3], every_value=True):
            assert not (row.exact and row.differing), f"network {seed}: {row} (largest {row.largest})\n{program}"


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


def test_rules_choose_who_is_dynamic():
    net, x = Two(), torch.randn(4, 6)
    model = fold(capture(net, x))

    def treatments(wanted):
        steps = plan(model, wanted).steps
        return [steps[name].treatment for name in ("a", "b")]

    assert treatments("dynamic-w8a8") == ["dynamic", "dynamic"]
    assert treatments(recipe({"module": "b", "keep_float": True})) == ["dynamic", "float"]
    assert treatments(recipe({"module": "a", "activations": "float"})) == ["float", "dynamic"]
    assert treatments(recipe({"module": "a", "weights": "float"})) == ["float", "dynamic"]
    static = {"format": "uint8", "symmetric": False, "range": "minmax"}
    assert treatments(recipe({"module": "b", "inputs": static})) == ["dynamic", "integer"]
    taken = recipe({"module": "a", "inputs": {"range": "dynamic"}}, activations=static)
    assert treatments(taken) == ["dynamic", "integer"]
    assert "a.input (dynamic): uint8 per tensor, asymmetric, dynamic  [activations]" in str(plan(model, "dynamic-w8a8"))


@pytest.mark.parametrize(("spec", "told"), [
    ({"format": "int8", "symmetric": True, "range": "dynamic"}, "dynamically quantized inputs are uint8"),
    ({"format": "uint4", "range": "dynamic"}, "dynamically quantized inputs are uint8")])
def test_other_codes_have_no_range_of_their_own(spec, told):
    with pytest.raises(RecipeError, match=told):
        simulated(Two(), torch.randn(4, 6), recipe(activations={"symmetric": False} | spec))


def test_weights_have_no_dynamic_range():
    with pytest.raises(RecipeError, match=r"'a.weight' \(weight\) has range dynamic, which is for inputs of layers"):
        simulated(Two(), torch.randn(4, 6), recipe(weights={"format": "int8", "range": "dynamic"}))


@pytest.mark.parametrize(("weights", "told"), [
    ({"format": "e4m3"}, "'a.weight' has e4m3, but sums with dynamic ranges take signed integers"),
    ({"format": "int8", "symmetric": False}, "'a.weight' has a zero point"),
    ({"format": "int8", "block": [1, 2]}, "needs one per tensor or output channel")])
def test_weights_that_do_not_sum_are_refused(weights, told):
    with pytest.raises(LoweringError, match=told):
        lower(simulated(Two(), torch.randn(4, 6), recipe(weights=weights)))


def test_a_program_sums_with_signed_integers_only():
    good = linear_program(np.ones((2, 3), np.int8), np.float32(1))
    bad = Encoding(Int(8, signed=False), 1.0)
    nodes = (op.Constant("w", Quantized(np.ones((2, 3), np.uint8), bad)), *good.nodes[1:])
    with pytest.raises(ProgramError, match="cannot sum with 'w'"):
        Program(good.profile, good.inputs, nodes, {**good.values, "w": Value((2, 3), bad)}, "y")


def test_narrow_sums_are_refused():
    with pytest.raises(LoweringError, match="'a' needs sums of"):
        lower(simulated(Two(), torch.randn(4, 6)), "onnxruntime/sums16")


def test_it_trains():
    simulation = simulated(Two(), x := torch.randn(4, 6)).train()
    simulation(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in simulation.parameters())
