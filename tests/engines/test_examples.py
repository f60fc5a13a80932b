"""Every operator's examples on every engine: no code differs from the reference."""

import pytest

from fewbits.program import ops as op
from fewbits.program.examples import as_program
from fewbits.testing import differences

EXAMPLES = [pytest.param(example, id=f"{kind.__name__}{number}") for kind, record in op.RECORDS.items()
            for number, example in enumerate(record.examples())]


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_engine_differs(example) -> None:
    for seed in range(2):
        program, inputs = as_program(example, seed)
        found = differences(program, inputs)
        assert not found, f"seed {seed}: {'; '.join(map(str, found))}\n{program}"
