"""The torch executor on every operator's examples: the reference's codes."""

import numpy as np
import pytest

from fewbits.engines.torch import KERNELS
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.float_calls import TOLERANCE

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
