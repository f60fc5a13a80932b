"""Functions of one number: a row is enough, and what it says agrees with ATen, as integers, in float and in ONNX."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import fewbits as fb
from called import Call
from fewbits.capture.synonyms import in_place, out_of_place
from fewbits.graph.operators import OPERATORS
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.functions import RELATIONS, two_pieces
from fewbits.program.profile import ONNXRUNTIME
from fewbits.program.program import Program
from fewbits.program.unary import BY_WORD, UNARY
from fewbits.program.value import Value
from fewbits.quant.recipe import Recipe
from fewbits.report.engines import agreement
from fewbits.writers.onnx.builder import OnnxBuilder

SOURCE = Path(fb.__file__).parent
CASES = [pytest.param(row, given, id=" ".join([row.word, *(str(value) for value in given.values())]))
         for row in UNARY for given in row.examples]


def network(row, given) -> nn.Module:
    """The function as a user writes it: one that folding makes is its comparison and two lines."""
    if row.call is not two_pieces:
        return Call(lambda x: row.call(x, **given))
    one, other = ((lambda x, factor=given[slope]: x * factor) if given[slope] else (lambda x, to=given[offset]: to)
                  for slope, offset in (("slope", "offset"), ("other_slope", "other_offset")))
    return Call(lambda x: torch.where(RELATIONS[given["relation"]](x, given["bound"]), one(x), other(x)))


def numbers(row, count: int = 512) -> torch.Tensor:
    return torch.linspace(*row.domain, count).reshape(2, -1)


def assert_promises_kept(program, batch):
    for line in agreement(program, [batch], every_value=True):
        assert not (line.exact and line.differing), str(line)
        assert line.values != "float islands" or line.largest <= 2e-6, f"{line}: {line.largest}"


@pytest.mark.parametrize(("row", "given"), CASES)
def test_as_integers(row, given):
    """Within half a step of the function of the dequantized input, for every input code, and the same on all
    engines."""
    x = numbers(row)
    net = network(row, given)
    program = fb.quantize(net, x, [x], recipe="w8a8").program
    assert any(isinstance(node, op.Table) for node in program.nodes)
    codes = np.arange(256, dtype=np.uint8).reshape(1, 256)
    real = program.encoding("x.codes").decode(codes)
    expected = row.call(torch.from_numpy(real).double(), **given).numpy()
    expected = np.where(np.isnan(expected), 0, expected)
    y = program.encoding(program.outputs[0])
    low, high = (y.decode(np.array(code)) for code in (y.format.low, y.format.high))
    result = y.decode(reference.run(program, {"x": real})[program.outputs[0]])
    assert np.abs(result - expected.clip(low, high)).max() <= (0.5 + 1e-4) * y.scale
    assert_promises_kept(program, x)


@pytest.mark.parametrize(("row", "given"), CASES)
def test_in_float(row, given):
    x = numbers(row)
    kept = Recipe.model_validate({"version": 1, "weights": {"format": "int8"}, "activations": {"format": "uint8"},
                                  "inputs": "float", "rules": [{"module": "*", "keep_float": True}]})
    program = fb.quantize(network(row, given), x, [x], recipe=kept).program
    assert [type(node) for node in program.nodes] == [op.FloatCall]
    assert_promises_kept(program, x)


@pytest.mark.parametrize(("row", "given"), CASES)
def test_its_onnx_form_is_the_function(row, given):
    """In an ONNX file of nothing else, against ATen in float64: to float32's own precision."""
    x = numbers(row).reshape(-1)
    program = Program(ONNXRUNTIME, ("x",), (op.FloatCall("y", "aten.relu.default", {"self": op.Read("x")}),),
                      {"x": Value((None,), None), "y": Value((None,), None)}, "y")
    builder = OnnxBuilder(program)
    builder.unary(row.form(row.arguments(given)), "x", "y")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = b"".join(builder.model({"y": 1}, {}))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (got,) = session.run(["y"], {"x": x.numpy()})
    expected = row.call(x.double(), **given).numpy()
    assert np.isfinite(expected).all()
    assert np.abs(got - expected).max() <= 1e-6 * max(1, np.abs(expected).max())


def test_each_row_is_read_everywhere():
    (functions,) = (row for row in OPERATORS if row.name == "function")
    assert functions.targets == tuple(row.call for row in UNARY)
    assert len(BY_WORD) == len(UNARY), "no two are called alike"
    assert all(row.examples for row in UNARY)


def test_no_other_file_lists_them():
    """Three of them or more in one file are a second table."""
    words = [row.word for row in UNARY if not row.word.endswith("_like")]
    for path in SOURCE.rglob("*.py"):
        if path.name != "unary.py" and path.parts[-2] not in ("testing", "tasks"):
            text = path.read_text()
            named = [word for word in words if re.search(rf"aten\.{word}\b|\"{word}\"", text)]
            assert len(named) < 4, f"{path} names {', '.join(named)}"


def test_writing_into_the_operand_is_the_same_function():
    """Every in-place twin of ATen is known, of these functions and of the other operators that make numbers."""
    twins = {twin: target for row in OPERATORS if row.role in ("combine", "clamp") or row.name == "dropout"
             for target in row.targets if (twin := in_place(target)) is not None}
    assert all(out_of_place(twin) is target for twin, target in twins.items())
    known = {str(twin).removeprefix("aten.").split("_.")[0] for twin in twins}
    assert known >= {"relu", "relu6", "hardtanh", "clamp", "add", "dropout", "clamp_min", "hardswish", "hardsigmoid",
                     "silu", "elu", "leaky_relu", "sigmoid", "tanh", "mul", "div", "sub", "exp", "mish", "sqrt", "pow"}
    x = torch.randn(3, 4)
    for twin, target in twins.items():
        row = next((row for row in UNARY if row.call is target), None)
        if row is None:
            continue
        given, values = row.examples[0], numbers(row)
        assert torch.equal(twin(values.clone(), **given), target(values, **given))
    net = nn.Sequential(nn.Linear(4, 4), Call(lambda x: x.exp_().neg_() + 1))
    model = fb.capture(net.eval(), x)
    assert [node.op for node in model.graph.nodes] == ["linear", "function", "function", "add"]


def test_what_is_not_a_number_is_taken_as_0():
    """The root of codes below 0, which no data ever had."""
    net = nn.Sequential(nn.Linear(3, 3), Call(torch.sqrt))
    net[0].weight.data = torch.eye(3)
    net[0].bias.data = torch.full((3,), 2.0)
    x = torch.linspace(-2, 2, 12).reshape(4, 3)
    program = fb.quantize(net, x, [x], recipe="w8a8-symmetric", profile="tensorrt").program
    (table,) = (node for node in program.nodes if isinstance(node, op.Table))
    assert (table.table[0, :128] == 0).all(), "codes -128 to -1"
    assert table.table[0, 255] == 127


def test_one_row_is_enough(tmp_path):
    """A function that is nowhere else in the source: quantized, exported and kept in float, once it has a row."""
    copied = tmp_path / "fewbits"
    shutil.copytree(SOURCE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    assert not any("deg2rad" in path.read_text() for path in SOURCE.rglob("*.py")), "another function is needed here"
    unary = copied / "program" / "unary.py"
    row = '    Unary(aten.deg2rad.default, lambda given: _applied("Mul", X, torch.pi / 180)),\n'
    head, tail = unary.read_text().split("UNARY: tuple[Unary, ...] = (\n")
    unary.write_text(f"{head}UNARY: tuple[Unary, ...] = (\n{row}{tail}")
    script = """if True:
        import sys, torch, fewbits as fb
        from fewbits.quant.recipe import Recipe
        class Net(torch.nn.Module):
            def forward(self, x):
                return torch.deg2rad(x)
        x = torch.linspace(-90, 90, 64).reshape(4, 16)
        fb.export_onnx(fb.quantize(Net(), x, [x], recipe="w8a8"), sys.argv[1] + "/a.onnx", verify=[x])
        kept = Recipe.model_validate({"version": 1, "weights": {"format": "int8"}, "activations": {"format": "uint8"},
                                      "inputs": "float", "rules": [{"module": "*", "keep_float": True}]})
        fb.export_onnx(fb.quantize(Net(), x, [x], recipe=kept), sys.argv[1] + "/b.onnx", verify=[x])
        net = Net()
        net.forward = lambda x: torch.deg2rad_(x * 2)
        print(*(node.op for node in fb.capture(net, x).graph.nodes))
    """
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env={"PYTHONPATH": str(tmp_path)},
                          capture_output=True, text=True)
    assert done.stdout == "mul function\n", done.stderr
    assert (tmp_path / "a.onnx").exists() and (tmp_path / "b.onnx").exists()
