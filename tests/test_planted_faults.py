"""The list of planted faults is one of today's source: `python -m benchmarks.planted_faults` runs it."""

import shutil

import pytest
from benchmarks.planted_faults import FAULTS, SOURCE, is_noticed, place, selected


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_each_stands_once_in_the_source(fault):
    assert fault.old != fault.new
    assert place(fault, SOURCE).is_file()
    assert selected(fault)


def test_there_are_enough():
    assert len(FAULTS) >= 30
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)


def test_a_fault_is_noticed_and_leaves_nothing_behind(tmp_path):
    """One of them, in a copy of the source."""
    shutil.copytree(SOURCE, tmp_path / "fewbits", ignore=shutil.ignore_patterns("__pycache__"))
    fault = next(fault for fault in FAULTS if "groups" in fault.what)
    before = place(fault, tmp_path / "fewbits").read_text()
    assert is_noticed(fault, tmp_path)
    assert place(fault, tmp_path / "fewbits").read_text() == before
