"""Codes of few bits in as few bytes (docs/file-format.md, "Packed codes")."""

from collections.abc import Sequence
from math import prod

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.formats import Format


def packed_bytes(count: int, format: Format) -> int:
    """Bytes that `count` codes take: bits rounded up to whole bytes at the end of the tensor only."""
    return (count * format.bits + 7) // 8


def pack(codes: np.ndarray, format: Format) -> np.ndarray:
    """uint8 [packed_bytes]: each code's low `bits` bits, least significant first, row-major, no gaps."""
    flat = np.ascontiguousarray(codes).astype(format.dtype).reshape(-1)
    if format.bits in (8, 16, 32):
        return flat.astype(flat.dtype.newbyteorder("<")).view(np.uint8)
    shifts = np.arange(format.bits)
    bits = (flat.astype(np.int64)[:, None] >> shifts) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")


def unpack(data: np.ndarray, format: Format, shape: Sequence[int]) -> np.ndarray:
    """Inverse of `pack`. Raises EncodingError when the bytes do not hold exactly that shape."""
    count = prod(shape)
    if data.dtype != np.uint8 or data.ndim != 1 or data.size != packed_bytes(count, format):
        raise EncodingError(f"{count} codes of {format} take {packed_bytes(count, format)} bytes, "
                            f"not {data.size}")
    if format.bits in (8, 16, 32):
        codes = data.view(format.dtype.newbyteorder("<")).astype(format.dtype)
    else:
        bits = np.unpackbits(data, count=count * format.bits, bitorder="little")
        codes = bits.reshape(count, format.bits).astype(np.int64) @ (1 << np.arange(format.bits))
        if format.low < 0:
            codes = np.where(codes >= 1 << (format.bits - 1), codes - (1 << format.bits), codes)
        codes = codes.astype(format.dtype)
    return codes.reshape(tuple(shape))
