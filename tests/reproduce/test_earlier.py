"""A run beside its record: equal on the same machine, within chance on another, and no code differs unmentioned."""

import pytest

from fewbits.reproduce.earlier import beside_earlier, fault_of
from fewbits.reproduce.row import RowResult

HERE, THERE = "AMD EPYC, 2 cores (avx2), 1 threads", "Intel Xeon, 2 cores (avx2), 1 threads"


def result(machine=HERE, **measured):
    return RowResult(0, 1.0, machine, {"test images": 500, "codes compared": 1000, "codes differing": 0} | measured)


def test_codes_that_differ_are_a_fault():
    assert fault_of(result()) == ""
    assert fault_of(RowResult(0, 1.0, HERE, {"float": 99.0})) == "", "a row without programs"
    told = fault_of(result(**{"codes differing": 7}))
    assert "7 of 1000 codes differ between engines on AMD EPYC" in told


def test_the_same_figures_need_no_word():
    assert list(beside_earlier(result(program=90.0), [result(program=90.0)])) == []
    assert list(beside_earlier(result(program=90.0), [])) == []


def test_another_figure_on_the_same_machine():
    told, = beside_earlier(result(program=90.0), [result(program=90.2)])
    assert told == ("program: 90, recorded as 90.2 with the same seed on the same machine: the row or its recipe has "
                    "changed since")


@pytest.mark.parametrize(("old", "word"), [(91.0, "within"), (95.0, "BEYOND")])
def test_another_machine_compares_by_interval(old, word):
    """By hand: 1.96 · 100 · √((0.9 · 0.1 + 0.91 · 0.09) / 500) = 3.63 points; 95 % is 5 away."""
    told, = beside_earlier(result(program=90.0), [result(THERE, program=old)])
    assert f"on another machine (Intel Xeon, 2 cores): {word} the 95 % interval" in told
    if word == "within":
        assert "±3.63 points of a difference on 500 images" in told
