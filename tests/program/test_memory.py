"""The memory planner: nothing meets, nothing is wasted where it need not be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import ProgramError
from fewbits.program.memory import Buffer, arranged


def test_a_chain_needs_two_neighbours() -> None:
    chain = [Buffer(str(i), size, i, i + 1) for i, size in enumerate((64, 640, 128, 320))]
    arena = arranged(chain)
    assert arena.needed == 640 + 128 == arena.size
    assert arena.peak == 2
    assert arena.offsets["1"] == 0  # the largest lies at the begin


def test_what_lives_side_by_side_lies_side_by_side() -> None:
    arena = arranged([Buffer("a", 1, 0, 2), Buffer("b", 65, 1, 2), Buffer("c", 100, 3, 3), Buffer("d", 0, 0, 3)])
    assert arena.offsets == {"b": 0, "c": 0, "a": 128, "d": 0}
    assert arena.size == 192


def test_nothing_is_a_plan() -> None:
    assert arranged([]).size == 0


@pytest.mark.parametrize("buffers", [[Buffer("a", 1, 3, 2)], [Buffer("a", -1, 0, 1)],
                                     [Buffer("a", 1, 0, 1), Buffer("a", 1, 3, 4)]])
def test_what_cannot_be_is_refused(buffers: list[Buffer]) -> None:
    with pytest.raises(ProgramError, match="'a'"):
        arranged(buffers)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 12), st.integers(0, 6)), max_size=30))
def test_no_two_meet(drawn: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(str(i), size, first, first + length) for i, (size, first, length) in enumerate(drawn)]
    arena = arranged(buffers)
    for i, one in enumerate(buffers):
        begin, end = arena.offsets[one.name], arena.offsets[one.name] + one.size
        assert begin % 64 == 0
        assert end <= arena.size
        for other in buffers[:i]:
            if one.first <= other.last and other.first <= one.last and one.size and other.size:
                at = arena.offsets[other.name]
                assert end <= at or at + other.size <= begin
    at_once = [sum(-(-b.size // 64) * 64 for b in buffers if b.first <= step <= b.last) for step in range(20)]
    assert arena.needed == max(at_once)
    assert arena.needed <= arena.size
    if arena.needed:
        assert at_once[arena.peak] == arena.needed
