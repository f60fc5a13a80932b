"""Block formats with low-bit scales: OCP MX and NVFP4. The scale of an Encoding is itself Quantized.

| name    | numbers                        | block | its scale                              | bits a number |
|---------|--------------------------------|-------|----------------------------------------|---------------|
| `mx`    | e4m3, e5m2, e3m2, e2m3, e2m1, int8 | 32 | e8m0, a power of two                   | 8.25 … 4.25   |
| `nvfp4` | e2m1                           | 16    | e4m3, over one float32 for the tensor  | 4.5           |

Sources: OCP Microscaling Formats (MX) 1.0, §6.3; NVIDIA, "Introducing NVFP4", 2025 (two scales).
"""

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.block import Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Float, Format, Int, Levels, parse

_E8M0 = parse("e8m0")
_E4M3 = parse("e4m3")
_E2M1 = parse("e2m1")


def mx(x: np.ndarray, format: Float | Int, block: Block | None = None) -> Encoding:
    """The MX encoding of x: a scale 2^(⌊log2 max⌋ − e) per block, e the exponent of the format's largest number.

    x: float32, any shape; block: 32 along the last axis when None. A maximum in the upper part of its binade
    saturates, as the specification says. A block of zeros has scale 1. int8 means int8 · 2^-6.
    Raises EncodingError for NaN and infinities, for lengths that are no multiple of the block, and for
    integers of other widths than 8.
    """
    block = block or _along_last(x, 32)
    return mx_of(_largest(x, block), format, block)


def mx_of(largest: np.ndarray, format: Format, block: Block) -> Encoding:
    """`mx` from the largest magnitude of each block, shape `block.scale_shape(...)`."""
    if isinstance(format, Int):
        if format.bits != 8 or not format.signed:
            raise EncodingError(f"MX has integers of 8 bits, signed, not {format}")
        top, unit = 0, 2.0**-6
    elif isinstance(format, Levels):
        raise EncodingError(f"MX has floats and 8-bit integers, not {format}")
    else:
        top, unit = format.highest_exponent, 1.0
    exponent = np.where(largest > 0, np.frexp(largest)[1] - 1 - top, 0)
    codes = (exponent + 127).clip(1, 254).astype(np.uint8)  # code 0, 2^-127, is below float32's normal numbers
    return Encoding(format, Quantized(codes, Encoding(_E8M0, unit)), 0, block)


def nvfp4(x: np.ndarray, block: Block | None = None) -> Encoding:
    """The NVFP4 encoding of x: e2m1 under a scale in e4m3 per block, under one float32 for the whole tensor.

    The tensor's scale is max/(448·6), so that the largest block scale is e4m3's largest number; a block's
    is its max/6 over that, rounded. A block whose scale would round to 0 takes e4m3's smallest number.
    block: 16 along the last axis when None. Raises EncodingError as `mx` does.
    """
    block = block or _along_last(x, 16)
    return nvfp4_of(_largest(x, block), _E2M1, block)


def nvfp4_of(largest: np.ndarray, format: Format, block: Block) -> Encoding:
    """`nvfp4` from the largest magnitude of each block, shape `block.scale_shape(...)`."""
    if format != _E2M1:
        raise EncodingError(f"NVFP4 has e2m1 numbers, not {format}")
    over_all = float(largest.max(initial=0.0)) / (_E4M3.largest * _E2M1.largest)
    over_all = over_all if over_all >= float(np.finfo(np.float32).tiny) else 1.0
    outer = Encoding(_E4M3, over_all)
    codes = np.maximum(outer.encode(largest / _E2M1.largest).codes, 1)
    return Encoding(_E2M1, Quantized(codes, outer), 0, block)


def _along_last(x: np.ndarray, size: int) -> Block:
    if x.ndim == 0:
        raise EncodingError("a tensor without axes has no blocks")
    return Block((1,) * (x.ndim - 1) + (size,))


def _largest(x: np.ndarray, block: Block) -> np.ndarray:
    """Largest magnitude of each block, float64."""
    if not np.isfinite(x).all():
        raise EncodingError("blocks are scaled by finite numbers: there is NaN or Inf among them")
    values, axes = block.split(np.asarray(x))
    return abs(values).max(axis=axes, initial=0.0).astype(np.float64) if axes else abs(values).astype(np.float64)
