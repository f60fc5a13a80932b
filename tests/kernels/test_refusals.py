"""Bad input at the boundary of the native library is an error code, whatever the call."""

import ctypes
import zlib

import numpy as np
import pytest

from fewbits.errors import KernelError
from fewbits.kernels import library, structs
from fewbits.kernels.calls import Calls
from fewbits.testing.kernel_calls import FAMILIES
from fewbits.testing.kernel_refusals import spoiled

pytestmark = pytest.mark.skipif(library.native() is None, reason="no native library: python -m fewbits.kernels.build")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spoiled_call_is_refused(family):
    rng = np.random.default_rng(zlib.crc32(family.encode()))
    seen = 0
    for _ in range(5):
        for what, answer in spoiled(FAMILIES[family](rng)):
            assert answer < 0, what
            seen += 1
    assert seen >= 25


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusal_is_a_clear_exception(family):
    case = FAMILIES[family](np.random.default_rng(0))
    call, keep = case.make(np.zeros(case.wanted.shape, case.wanted.dtype))
    call.op = 99
    with pytest.raises(KernelError, match=f"the native kernels refuse a {type(call).__name__}: a type, kind or layout"):
        Calls([call], [keep])


def test_no_call_at_all_is_refused():
    handle = library.loaded()
    assert handle is not None
    assert handle.fb_scratch(None, 1) < 0
    assert handle.fb_run(None) != 0
    pointers = (ctypes.c_void_p * 1)(None)
    for calls, count in ((None, 1), (ctypes.addressof(pointers), 1), (ctypes.addressof(pointers), -1)):
        batch = structs.Batch(calls=calls, count=count, threads=1)
        assert handle.fb_run(ctypes.addressof(batch)) != 0
    assert handle.fb_packed_bytes(None) <= 0
