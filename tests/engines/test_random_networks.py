"""0 differing codes among the reference, torch and onnxruntime, over random networks of every operator.

`python -m benchmarks.fuzz_networks` runs more of them, and counts.
"""

import pytest

from fewbits.graph.operators import OPERATORS
from fewbits.program import ops as op
from fewbits.testing import (
    differences,
    random_inner_program,
    random_layers_program,
    random_masked_program,
    random_program,
)

NETWORKS, PER_TEST = 240, 20

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


@pytest.mark.parametrize("first", range(0, NETWORKS, PER_TEST))
def test_no_code_differs(first):
    for seed in range(first, first + PER_TEST):
        made = random_program(seed)
        found = differences(made.program, made.inputs)
        assert not found, f"network {seed}: {'; '.join(map(str, found))}\n{made.program}"


def test_no_code_differs_where_inner_values_have_12_bits():
    wide = 0
    for seed in range(40):
        made = random_inner_program(seed)
        found = differences(made.program, made.inputs)
        assert not found, f"network {seed}: {'; '.join(map(str, found))}\n{made.program}"
        wide += any(map(made.program.is_wide, made.program.values))
    assert wide >= 8, f"only {wide} of 40 networks have inner values"


def test_no_code_differs_in_networks_of_the_layers_that_records_name():
    offered = {kind for kind, record in op.RECORDS.items() if record.layer is not None}
    for seed in range(40):
        made = random_layers_program(seed)
        found = differences(made.program, made.inputs)
        assert not found, f"network {seed}: {'; '.join(map(str, found))}\n{made.program}"
        offered -= {type(node) for node in made.program.nodes}
    assert not offered, "records name layers that become none of their nodes"


def test_no_code_differs_in_networks_of_token_numbers_and_masks():
    for seed in range(24):
        made = random_masked_program(seed)
        found = differences(made.program, made.inputs)
        assert not found, f"network {seed}: {'; '.join(map(str, found))}\n{made.program}"


# What stands only inside the bodies of recurrences, which networks of sentences draw.
IN_BODIES = {"state", "step"}


def test_the_networks_cover_every_operator_and_every_node():
    operators, nodes = set(IN_BODIES), set()
    islands = {op.Dequantize, op.FloatConstant, op.FloatCall, op.DynamicConv, op.DynamicLinear}  # test_islands.py
    integers, rows = set(op.RECORDS) - islands, {row.name for row in OPERATORS}
    for seed in range(NETWORKS):
        for made in (random_masked_program(seed), random_program(seed)) if seed < 24 else (random_program(seed),):
            operators |= made.operators
            nodes |= {type(node) for node in made.program.nodes}
        if operators >= rows and nodes >= integers:
            break
    assert operators >= rows
    assert nodes >= integers
