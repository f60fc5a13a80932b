"""Codes packed bit by bit: against a plain definition, back again, in parts, and within bounded memory."""

import tracemalloc

import numpy as np
import pytest

from fewbits.errors import EncodingError
from fewbits.numerics import packing
from fewbits.numerics.formats import Int
from fewbits.numerics.packing import pack, packed_bytes, unpack


def codes_of(format: Int, *shape: int) -> np.ndarray:
    return np.random.default_rng(format.bits).integers(format.low, format.high + 1, shape).astype(format.dtype)


def one_number(codes: np.ndarray, bits: int) -> bytes:
    """All codes as the digits of one integer to the base 2^bits."""
    whole = sum((int(code) % 2**bits) << (bits * place) for place, code in enumerate(codes.reshape(-1)))
    return whole.to_bytes(-(-codes.size * bits // 8), "little")


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("at_once", [8, 16, 2**18])
def test_codes_are_the_digits_of_one_number(bits: int, signed: bool, at_once: int,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_AT_ONCE", at_once)
    format = Int(bits, signed)
    for shape in ((7, 5), (0, 3), (), (16,)):
        codes = codes_of(format, *shape)
        packed = pack(codes, format)
        assert packed.tobytes() == one_number(codes, bits)
        found = unpack(packed, format, shape)
        assert found.dtype == codes.dtype
        np.testing.assert_array_equal(found, codes)


def test_memory_is_a_small_multiple_of_the_codes() -> None:
    format = Int(4, signed=False)
    codes = codes_of(format, 2**24)
    tracemalloc.start()
    found = unpack(pack(codes, format), format, codes.shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * codes.nbytes  # as integers of 8 bytes a bit they would be 32 times as large
    np.testing.assert_array_equal(found, codes)


def test_other_bytes_are_refused() -> None:
    format = Int(3)
    packed = pack(codes_of(format, 9), format)
    assert packed.size == packed_bytes(9, format) == 4
    for data, shape in ((packed[:-1], (9,)), (packed, (12,)), (packed.view(np.int8), (9,))):
        with pytest.raises(EncodingError):
            unpack(data, format, shape)
