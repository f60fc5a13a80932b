"""LiteRT's reference kernels (2.3.0) as the oracle: the same codes, operator by operator.

`litert.npz` was written by benchmarks/litert_vectors.py, which runs the interpreter and nothing of fewbits.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewbits.engines.torch.executor import TorchExecutor
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.profile import LITERT, LITERT_INT16, Profile
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.program.windows import positions

VECTORS = np.load(Path(__file__).with_name("litert.npz"))
PROFILES = {"int8": LITERT, "int16": LITERT_INT16}
CASES = sorted({tuple(name.split("/")[:2]) for name in VECTORS.files})


def case(act: str, kind: str) -> dict[str, np.ndarray]:
    prefix = f"{act}/{kind}/"
    return {name.removeprefix(prefix): VECTORS[name] for name in VECTORS.files if name.startswith(prefix)}


def program(act: str, kind: str, profile: Profile) -> tuple[Program, dict[str, np.ndarray]]:
    """The operator on constants; or, for `quantize`, on a float input."""
    given, format = case(act, kind), Int(8 if act == "int8" else 16)
    grids = {name: Encoding(format, given[f"{name}_scale"], int(given[f"{name}_zero"])) for name in "aby"
             if f"{name}_scale" in given}
    low, high = format.low, format.high
    y = Value(given["y"].shape, grids["y"])
    if kind == "quantize":
        return Program(profile, ("a",), (op.Quantize("y", "a"),), {"a": Value(y.shape, None), "y": y}, "y"), given
    constants = [op.Constant(name, Quantized(given[name], grids[name])) for name in "ab" if name in grids]
    weight = bias = None
    if "w" in given:
        scale = given["w_scale"].reshape(-1, *[1] * (given["w"].ndim - 1))
        weight = Quantized(given["w"], Encoding(Int(8), scale, 0, CHANNEL))
        bias = given["bias"].astype(np.int32)
    both, ones = ((1, 1), (1, 1)), (1, 1)
    node = {
        "conv": lambda: op.Conv("y", "a", weight, bias, ones, both, ones, 1, low, high),
        "linear": lambda: op.Linear("y", "a", weight, bias, low, high),
        "matmul": lambda: op.MatMul("y", "a", "b", low, high),
        "add": lambda: op.Add("y", "a", "b", low, high),
        "subtract": lambda: op.Sub("y", "a", "b", low, high),
        "multiply": lambda: op.Mul("y", "a", "b", low, high),
        "requantize": lambda: op.Requantize("y", "a", low, high),
        "average_pool": lambda: op.AveragePool("y", "a", (3, 3), (2, 2), both, positions(
            given["a"].shape[2:], (3, 3), (2, 2), both).astype(np.int32), low, high),
        "mean": lambda: op.Mean("y", "a", (2, 3), True, low, high),
    }[kind]()
    values = {item.name: Value(item.data.codes.shape, item.data.encoding) for item in constants} | {"y": y}
    return Program(profile, (), (*constants, node), values, "y"), given


@pytest.mark.parametrize(("act", "kind"), CASES)
def test_the_same_codes(act, kind):
    made, given = program(act, kind, PROFILES[act])
    inputs = {name: given[name] for name in made.inputs}
    assert given["y"].size >= 192 and len(np.unique(given["y"])) > 30  # enough codes to tell a rounding by
    np.testing.assert_array_equal(reference.run(made, inputs)["y"], given["y"])
    np.testing.assert_array_equal(TorchExecutor(made).run(inputs)["y"], given["y"])


@pytest.mark.parametrize(("act", "kind", "change"), [
    ("int8", "conv", {"rescaling": "single"}),
    ("int8", "linear", {"linear": "double"}),
    ("int8", "requantize", {"rescaling": "single"}),
    ("int8", "requantize", {"rescaling": "float"}),
    ("int8", "average_pool", {"rescaling": "float"}),
    ("int8", "quantize", {"entering": "half_even"}),
    ("int16", "conv", {"rescaling": "double"}),
])
def test_the_vectors_tell_another_arithmetic(act, kind, change):
    made, given = program(act, kind, replace(PROFILES[act], **change))
    codes = reference.run(made, {name: given[name] for name in made.inputs})["y"]
    differing = np.count_nonzero(codes != given["y"])
    assert differing and np.abs(codes.astype(int) - given["y"]).max() == 1
