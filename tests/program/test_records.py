"""Every operator has a record, and what its record says of it holds on its examples."""

from dataclasses import replace
from pathlib import Path

import pytest

from fewbits.documents.operators import document
from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.energy import costs_45nm
from fewbits.numerics.formats import parse
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.limits import limit_names
from fewbits.program.profile import PROFILES
from fewbits.program.widths import check_sums
from fewbits.testing import check_tables

EXAMPLES = [pytest.param(example, id=f"{kind.__name__}{number}") for kind, record in op.RECORDS.items()
            for number, example in enumerate(record.examples())]


def test_every_node_class_has_a_record() -> None:
    assert not check_tables()  # their classes among them


def test_every_operator_has_examples_of_its_own() -> None:
    for kind, record in op.RECORDS.items():
        kinds = {type(example.node) for example in record.examples()}
        assert kinds == {kind}, kind


def test_profiles_lack_what_records_name() -> None:
    for profile in PROFILES.values():
        assert set(profile.lacks) <= limit_names(), profile.name


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_its_sums_stay_in_their_bound(example) -> None:
    program, inputs = as_program(example)
    record = op.record_of(example.node)
    known = {**inputs, **reference.run(program, inputs, [node.name for node in program.nodes])}
    y = known[example.node.name]
    shape = example.writes.shape
    assert len(y.shape) == len(shape) and all(size in (None, real) for size, real in zip(shape, y.shape, strict=True))
    assert set(record.reads(example.node)) <= set(program.values)
    check_sums(program)
    if record.sums is not None and program.is_accumulator(example.node.name):
        bound = record.sums.bound(program, example.node)
        assert bound.low <= y.min() <= y.max() <= bound.high


MOVED = [example for kind, record in op.RECORDS.items() if record.writes == "moved" for example in record.examples()
         if example.writes.encoding is not None]


@pytest.mark.parametrize("example", MOVED, ids=lambda example: type(example.node).__name__)
def test_codes_that_are_moved_stand_for_what_they_stood_for(example) -> None:
    """A value that says otherwise has other numbers in every engine."""
    encoding = example.writes.encoding
    for other in (Encoding(encoding.format, 2 * encoding.scale, encoding.zero_point),
                  Encoding(encoding.format, encoding.scale, encoding.zero_point + 1),
                  Encoding(parse("int4"), encoding.scale)):
        with pytest.raises(ProgramError, match="its node writes the codes that it reads"):
            as_program(replace(example, writes=replace(example.writes, encoding=other)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_its_work_has_prices(example) -> None:
    program, _ = as_program(example)
    record = op.record_of(example.node)
    for counted in (record.work, record.float_work):
        if counted is not None:
            work = counted(program, example.node)
            assert work.keys() <= costs_45nm().operations.keys()
            assert all(count >= 0 for count in work.values())


def test_the_page_of_operators_is_not_stale() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/operators.md"
    assert page.read_text(encoding="utf-8") == document(), (
        "docs/operators.md is stale: python -m fewbits.documents.operators > docs/operators.md")
