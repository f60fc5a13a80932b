"""CPUID through the native library and through instructions in memory: one processor, one answer."""

import platform
import sys

import pytest

from fewbits.kernels import cpuid as asked
from fewbits.kernels import library
from fewbits.kernels.cpuid import cpuid, saved_registers

pytestmark = pytest.mark.emulated
x86 = pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform == "win32", reason="no CPUID here")
LEAVES = [(0, 0), (7, 0), (7, 1), (0x80000000, 0), (0x80000002, 0)]


@x86
def test_the_vendor_is_text_and_the_features_are_those_of_x86_64():
    vendor, features = cpuid(0), cpuid(1)
    assert vendor is not None
    assert features is not None
    assert b"".join(vendor[place].to_bytes(4, "little") for place in (1, 3, 2)).isascii()
    assert features[3] >> 26 & 1, "SSE2 is part of x86-64"
    assert saved_registers() & 0x2 or not features[2] >> 27 & 1


@x86
def test_both_ways_agree():
    ways = [way for way in (asked._of_library(), asked._of_memory()) if way is not None]
    assert ways, "neither the library nor memory may be run here"
    if library.loaded() is not None:
        assert len(ways) == 2 or asked._of_memory() is None
    for leaf, subleaf in LEAVES:
        assert len({ask(leaf, subleaf) for ask, _ in ways}) == 1, hex(leaf)
    assert len({saved() for _, saved in ways}) == 1


@x86
def test_a_leaf_that_is_not_there_is_none():
    for ask, _ in filter(None, (asked._of_library(), asked._of_memory())):
        assert ask(0x0FFFFFFF, 0) is None
        assert ask(0x80FFFFFF, 0) is None
