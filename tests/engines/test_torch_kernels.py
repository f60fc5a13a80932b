"""The torch executor on every operator's examples: the reference's codes."""

import numpy as np
import pytest
import torch

from fewbits.engines.torch import KERNELS
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.engines.torch.steps import exact_type
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.profile import ONNXRUNTIME
from fewbits.program.program import Program
from fewbits.program.value import Value

EXAMPLES = [pytest.param(example, id=f"{kind.__name__}{number}") for kind, record in op.RECORDS.items()
            for number, example in enumerate(record.examples())]


def test_every_operator_has_a_kernel() -> None:
    assert set(KERNELS) == set(op.RECORDS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_codes_are_the_references(example) -> None:
    program, inputs = as_program(example, seed=1)
    names = [node.name for node in program.nodes]
    known, made = reference.run(program, inputs, names), TorchExecutor(program).run(inputs, names)
    for name in names:
        assert known[name].dtype == made[name].dtype
        if isinstance(example.node, op.FloatCall):
            np.testing.assert_allclose(made[name], known[name], rtol=TOLERANCE)
        else:
            np.testing.assert_array_equal(made[name], known[name])


def test_the_root_in_a_layer_norm_is_the_nearest_float32():
    """Every pair of codes, normalised to nearly -1 and 1, where one unit in the last place decides the code."""
    x, y = Encoding(parse("uint8"), 0.05758872), Encoding(parse("uint8"), 0.0078431368, 127)
    node = op.LayerNorm("y", "x", np.ones(2, np.float32), np.zeros(2, np.float32), 1e-5, 0, 255, 1)
    program = Program(ONNXRUNTIME, ("x.real",), (op.Quantize("x", "x.real"), node),
                      {"x.real": Value((None, 2), None), "x": Value((None, 2), x), "y": Value((None, 2), y)}, "y")
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 2).astype(np.uint8)
    inputs = {"x.real": x.decode(pairs)}
    known = reference.run(program, inputs, ["x", "y"])
    assert np.array_equal(known["x"], pairs)
    assert np.array_equal(TorchExecutor(program).run(inputs, ["y"])["y"], known["y"])


@pytest.mark.parametrize(("terms", "beyond"), [(518, 0), (519, 1), (700, 1), (1036, 1)])
def test_sums_beyond_24_bits_are_taken_in_float64(terms, beyond):
    """Odd sums from 2^24 on, which float32 does not have: 518 products of 127 and 255 are the last below it."""
    assert (terms * 127 * 255 >= 2**24) == beyond
    x = Encoding(parse("uint8"), 1.0)
    weight = Quantized(np.full((3, terms), 127, np.int8), Encoding(parse("int8"), 1.0))
    node = op.Linear("y", "x", weight, None, -(2**31), 2**31 - 1)
    program = Program(ONNXRUNTIME, ("x.real",), (op.Quantize("x", "x.real"), node),
                      {"x.real": Value((None, terms), None), "x": Value((None, terms), x),
                       "y": Value((None, 3), Encoding(parse("int32"), 1.0))}, "y")
    assert exact_type(program, node) == (torch.float64 if beyond else torch.float32)
    rng = np.random.default_rng(0)
    real = np.minimum(rng.integers(200, 300, (64, terms)), 255).astype(np.float32)
    real[:4] = 255
    real[1:4, :3] -= np.eye(3, dtype=np.float32)  # by an odd number less
    sums = 127 * real.astype(np.int64).sum(1)
    got = TorchExecutor(program).run({"x.real": real}, ["y"])["y"]
    assert np.array_equal(got, np.repeat(sums[:, None], 3, 1))
    assert beyond == bool((sums.astype(np.float32) != sums).any()), "else float32 would do"


def test_what_decides_the_type_is_the_largest_sum_not_the_final_one():
    """Products that cancel: the sum is small, partial ones are not."""
    x, half = Encoding(parse("uint8"), 1.0), 600
    signs = np.repeat(np.array([127, -127], np.int8), half)[None]
    node = op.Linear("y", "x", Quantized(signs, Encoding(parse("int8"), 1.0)), None, -(2**31), 2**31 - 1)
    program = Program(ONNXRUNTIME, ("x.real",), (op.Quantize("x", "x.real"), node),
                      {"x.real": Value((None, 2 * half), None), "x": Value((None, 2 * half), x),
                       "y": Value((None, 1), Encoding(parse("int32"), 1.0))}, "y")
    assert exact_type(program, node) == torch.float64
    real = np.full((1, 2 * half), 255, np.float32)
    real[0, 0] = 254
    assert TorchExecutor(program).run({"x.real": real}, ["y"])["y"].item() == -127
