"""Ristretto's number formats on one tensor: dynamic fixed point and minifloats.

Source: Gysel et al. 2018, Ristretto, §4; pmgysel/caffe.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from fewbits.errors import EncodingError
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.numerics.given import finite_array
from fewbits.numerics.rounding import rule_of
from fewbits.options import arguments_checked
from fewbits.ranges import ristretto
from fewbits.ranges.scale import Convention, encoding_for

Role = Literal["weights", "activations"]


@arguments_checked
def dynamic_fixed_point(x: npt.ArrayLike | torch.Tensor, bits: int = 8, *, role: Role = "weights",
                        fraction: int | None = None, rounding: str = "half_away") -> Quantized:
    """Codes of `bits` bits whose point lies where the largest magnitude of x wants it: scale 2^-f, f = bits − il.

    role: `weights` have il = ⌈log2 max + 1⌉ bits before the point, `activations` il = ⌈log2 max⌉, one fewer, so that
    the largest may clip. fraction: f, where it is given (static fixed point). rounding: a tie rule by name.
    Returns a Quantized; −log2 of its scale is f. Raises EncodingError for NaN, Inf, no numbers, other names.

    >>> q = dynamic_fixed_point([0.25, -0.32, 1.58, 3.78], bits=8)
    >>> float(q.encoding.scale), q.codes.tolist()
    (0.03125, [8, -10, 51, 121])
    """
    rule, values = rule_of(rounding), finite_array(x)
    if fraction is not None:
        if not -64 <= fraction <= 64:
            raise EncodingError(f"a fraction has -64 to 64 bits, not {fraction}")
        encoding = Encoding(Int(bits), 2.0**-fraction)
    else:
        convention: Convention = "dynamic-weights" if role == "weights" else "dynamic-activations"
        reach = np.abs(values).max()
        encoding = encoding_for(-reach, reach, Int(bits), True, convention)
    return encoding.encode(values, rule)


@arguments_checked
def minifloat(x: npt.ArrayLike | torch.Tensor, exponent_bits: int = 4, mantissa_bits: int = 3) -> np.ndarray:
    """The numbers of Ristretto's minifloat nearest to x, float64, its overflow included (ranges/ristretto.py); for the
    standard ones, `fb.parse("e4m3").nearest(x)`.

    Exponents of 2 to 8 bits and mantissas of 1 to 23, as a float32 has at most. Raises EncodingError for others, and
    for NaN, Inf and no numbers.

    >>> minifloat([0.3, 1.0, 3.78]).tolist()
    [0.3125, 1.0, 3.75]
    """
    if exponent_bits not in range(2, 9) or mantissa_bits not in range(1, 24):
        raise EncodingError(f"a minifloat has 2 to 8 exponent bits and 1 to 23 mantissa bits, not {exponent_bits} and "
                            f"{mantissa_bits}")
    return ristretto.minifloat(finite_array(x), exponent_bits, mantissa_bits)
