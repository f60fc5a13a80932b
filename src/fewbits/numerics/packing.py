"""Bit packing of low-bit codes (docs/file-format.md, "Packed codes")."""

from collections.abc import Sequence
from math import prod

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Format

_AT_ONCE = 2**18  # codes, which on the way take 8 bytes a bit; a multiple of 8, so that parts end at whole bytes


def packed_bytes(count: int, format: Format) -> int:
    """Bytes that `count` codes take: bits rounded up to whole bytes at the end of the tensor only."""
    return (count * format.bits + 7) // 8


def pack(codes: np.ndarray, format: Format) -> np.ndarray:
    """uint8 [packed_bytes]: each code's low `bits` bits, least significant first, row-major, no gaps. Of whole bytes it
    is a view of the codes where it can be: of a large weight a copy is more than all else."""
    flat = np.ascontiguousarray(codes).astype(format.dtype, copy=False).reshape(-1)
    if format.bits in (8, 16, 32):
        return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    shifts, data = np.arange(format.bits), np.empty(packed_bytes(flat.size, format), np.uint8)
    for first in range(0, flat.size, _AT_ONCE):
        bits = (flat[first:first + _AT_ONCE].astype(np.int64)[:, None] >> shifts) & 1
        some = np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")
        begin = first * format.bits // 8
        data[begin:begin + some.size] = some
    return data


def unpack(data: np.ndarray, format: Format, shape: Sequence[int]) -> np.ndarray:
    """Inverse of `pack`. Raises EncodingError when the bytes do not hold exactly that shape."""
    count = prod(shape)
    if data.dtype != np.uint8 or data.ndim != 1 or data.size != packed_bytes(count, format):
        raise EncodingError(f"{count} codes of {format} take {packed_bytes(count, format)} bytes, "
                            f"not {data.size}")
    if format.bits in (8, 16, 32):
        codes = data.view(format.dtype.newbyteorder("<")).astype(format.dtype)
        return codes.reshape(tuple(shape))
    codes = np.empty(count, format.dtype)
    for first in range(0, count, _AT_ONCE):
        number = min(_AT_ONCE, count - first)
        bits = np.unpackbits(data[first * format.bits // 8:], count=number * format.bits, bitorder="little")
        some = bits.reshape(number, format.bits).astype(np.int64) @ (1 << np.arange(format.bits))
        if format.low < 0:
            some = np.where(some >= 1 << (format.bits - 1), some - (1 << format.bits), some)
        codes[first:first + number] = some
    return codes.reshape(tuple(shape))
