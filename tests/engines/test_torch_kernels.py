"""The torch executor on every operator's examples: the reference's codes."""

import numpy as np
import pytest

from fewbits.engines.torch import KERNELS
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.numerics.encoding import Encoding
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
