"""The two equations that every integer tensor obeys, for NumPy arrays and torch tensors alike.

    code = clip(half_even(real / scale) + zero_point, low, high)        docs/numerics.md, eq. 1
    real = scale · (code − zero_point)                                  docs/numerics.md, eq. 2

The division is a true division in the type of `real` (a product with 1/scale gives other codes near
ties), and the zero point is added after rounding (before it, ties would go the other way for odd ones).
"""

from typing import Any

import numpy as np
import torch

from fewbits.numerics.rounding import Array, half_even


def encode(real: Array, scale, zero_point, low, high) -> Array:
    """Codes of `real`, still in its floating type (eq. 1). Infinities saturate; NaN gives `low`.

    real: any shape; scale, zero_point, low, high: broadcastable against it.
    """
    library: Any = torch if isinstance(real, torch.Tensor) else np
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        code = (half_even(real / scale) + zero_point).clip(low, high)
    return library.where(library.isnan(code), low, code)


def decode(code: Array, scale, zero_point) -> Array:
    """Numbers that codes stand for (eq. 2).

    code: float32 holding the codes (an int32 code is rounded to the nearest float32 first, as engines do);
    scale, zero_point: broadcastable. Returns float32.
    """
    return (code - zero_point) * scale
