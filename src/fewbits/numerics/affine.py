"""Quantize and dequantize by scale and zero point, for NumPy arrays and torch tensors alike.

    code = clip(half_even(real / scale) + zero_point, low, high)        docs/numerics.md, eq. 1
    real = scale · (code − zero_point)                                  docs/numerics.md, eq. 2

The division is a true division in the type of `real` (a product with 1/scale gives other codes near
ties), and the zero point is added after rounding (before it, ties would go the other way for odd ones).
"""

from typing import Any

import numpy as np
import torch

from fewbits.numerics.rounding import Array, Rounding, half_even


def encode(real: Array, scale, zero_point, low, high, rounding: Rounding = half_even) -> Array:
    """Codes of `real`, still in its floating type (eq. 1). Infinities saturate; NaN gives `low`.

    real: any shape; scale, zero_point, low, high: broadcastable against it; rounding: another rule than
    half-even, by name (rounding.py).
    """
    library: Any = torch if isinstance(real, torch.Tensor) else np
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        code = (rounding(real / scale) + zero_point).clip(low, high)
    return library.where(library.isnan(code), low, code)


def decode(code: Array, scale, zero_point) -> Array:
    """Real numbers of codes (eq. 2).

    code: float32 holding the codes (an int32 code is rounded to the nearest float32 first, as engines do);
    scale, zero_point: broadcastable. Returns float32.
    """
    return (code - zero_point) * scale


def encode_into(codes: np.ndarray, real: np.ndarray, scale: np.ndarray, zero_point: np.ndarray,
                low: int, high: int, scratch: np.ndarray) -> None:
    """Eq. 1 in place, for a chunk that fits the cache: the same codes without temporaries, several times faster.

    codes: integers of at most 16 bits, shape of real; scale, zero_point: broadcastable, zero_point int32.
    Clipping may then come before the shift, as every number left is exact. scratch: of real's size at
    least, in the type of the arithmetic.
    """
    flat = scratch[:real.size]
    steps = flat.reshape(real.shape)
    np.divide(real, scale, out=steps)
    np.rint(flat, out=flat)
    if zero_point.any():
        shift = zero_point.astype(steps.dtype)
        np.clip(steps, low - shift, high - shift, out=steps)
        np.add(steps, shift, out=steps)
    else:
        np.clip(flat, low, high, out=flat)
    if np.isnan(flat @ flat):  # all but NaN is finite by now
        flat[np.isnan(flat)] = low
    codes[...] = steps
