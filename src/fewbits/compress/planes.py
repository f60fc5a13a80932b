"""Any array as its bytes, those of equal place in their elements together; without loss."""

from collections.abc import Sequence

import numpy as np

from fewbits.compress.stream import Coded, decode, encode
from fewbits.kernels.huffman import StreamError


def encode_planes(data: np.ndarray, width: int) -> tuple[Coded, ...]:
    """One stream for each byte of the elements, the least significant first.

    data: uint8 [n · width]; width: bytes of an element. In floats the byte of sign and exponent has few values.
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
