"""Byte-plane shuffle: groups the first bytes of all elements, then the second ones, and so on (lossless)."""

from collections.abc import Sequence

import numpy as np

from fewbits.compress.stream import Coded, decode, encode
from fewbits.kernels.huffman import StreamError


def encode_planes(data: np.ndarray, width: int) -> tuple[Coded, ...]:
    """One stream per byte plane, the least significant first.

    data: uint8 [n · width]; width: bytes of an element. The plane of signs and exponents has few different values.
    """
    return tuple(encode(np.ascontiguousarray(plane), 256) for plane in data.reshape(-1, width).T)


def decode_planes(planes: Sequence[Coded], count: int) -> np.ndarray:
    """uint8 [count · len(planes)]. Raises StreamError unless every plane holds `count` bytes."""
    if any(plane.count != count for plane in planes):
        raise StreamError("the planes differ in length")
    data = np.empty((count, len(planes)), np.uint8)
    for number, plane in enumerate(planes):
        data[:, number] = decode(plane)
    return data.reshape(-1)
