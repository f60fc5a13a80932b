"""Every native call at every level and any number of threads, bit for bit beside its NumPy definition."""

import zlib

import numpy as np
import pytest

from fewbits.kernels import library, structs
from fewbits.testing.kernel_calls import FAMILIES

NATIVE = library.levels()[1:]
pytestmark = pytest.mark.skipif(not NATIVE, reason="no native library: python -m fewbits.kernels.build")


@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_its_definition(family: str, level: library.Level) -> None:
    rng = np.random.default_rng(zlib.crc32(family.encode()))
    for number in range(60 if family in ("conv", "binary") else 40):
        case = FAMILIES[family](rng)
        threads = 1 + number % 3
        with library.use(level):
            found = case.run(threads)
        np.testing.assert_array_equal(found, case.wanted, err_msg=f"{case.what}, {threads} threads, case {number}")


def test_every_call_has_a_family() -> None:
    assert {kind.__name__.lower() for kind in structs.OPERATIONS} == set(FAMILIES)
    assert sorted(structs.OPERATIONS.values()) == list(range(1, 19))
