"""Fixed-point encodings with a given fraction, or with the one of least squared error on data."""

import numpy as np

from fewbits.errors import EncodingError
from fewbits.numerics.block import TENSOR
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.numerics.rounding import Rounding, half_even


def fixed_point(bits: int, fraction: int, signed: bool = True) -> Encoding:
    """Fixed point of `bits` bits, `fraction` of them behind the point: scale 2^-fraction for a whole tensor.

    Q(i.f) is `fixed_point(i + f, f)`: the sign counts among the integer bits (Ristretto, Fixed.h).
    A fraction below 0 or above the bits is a point outside the word.
    """
    return Encoding(Int(bits, signed), 2.0**-fraction, 0, TENSOR)


def least_error_point(x: np.ndarray, bits: int, signed: bool = True, rounding: Rounding = half_even) -> Encoding:
    """The fixed point of `bits` bits whose squared error on x is least; of equal ones the coarsest.

    x: float, any shape; all zeros gives fraction 0. Raises EncodingError for NaN, infinities, no elements.
    Tries every fraction from one that clips nothing to one that clips all but the largest 2^-bits of the
    reach: between them the error falls, then rises.
    """
    x = np.asarray(x)
    if x.size == 0 or not np.isfinite(x).all():
        raise EncodingError("the point is put by finite numbers: there are none, or NaN or Inf among them")
    reach = float(abs(x).max())
    if reach == 0:
        return fixed_point(bits, 0, signed)
    safe = bits - int(np.frexp(reach)[1]) - 1  # reach < 2^(bits - 1 - safe), of the signed and the unsigned
    tried = [fixed_point(bits, fraction, signed) for fraction in range(safe - 1, safe + bits + 2)]
    errors = [float(np.square(each.encode(x, rounding).dequantize().astype(np.float64) - x).sum()) for each in tried]
    return tried[int(np.argmin(errors))]
