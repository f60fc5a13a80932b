"""Dynamic quantization: scale and zero point are those of the numbers of one run (docs/numerics.md, eq. 28 to 30)."""

from dataclasses import dataclass

import numpy as np

from fewbits.errors import DataError
from fewbits.numerics.encoding import Quantized
from fewbits.numerics.formats import Int
from fewbits.numerics.rounding import half_even

CODES = Int(8, signed=False)
"""What activations become: of other codes no engine takes the range itself."""

CENTRED = -CODES.high, CODES.high
"""Where a code less its zero point lies, whatever the grid."""

f32 = np.float32


@dataclass(frozen=True)
class Grid:
    """An encoding in 8 bits, found in a run. scale: float32, 0 where the numbers are all below 2^-142; zero_point: a
    code."""

    scale: np.float32
    zero_point: int


def grid_of(x: np.ndarray) -> Grid:
    """Scale and zero point of a whole tensor, float32, not empty (eq. 28). Raises DataError for NaN and Inf, for which
    there are none."""
    low, high = min(f32(x.min()), f32(0)), max(f32(x.max()), f32(0))
    if not np.isfinite(low) or not np.isfinite(high):
        raise DataError("the numbers of a layer with dynamic ranges hold NaN or Inf: clean the input of the model")
    scale = f32(1) if low == high else (high - low) / f32(CODES.high)
    zero = half_even(np.asarray(np.clip(-low / scale, f32(0), f32(CODES.high)))) if scale else 0
    return Grid(scale, int(zero))


def centred_codes(x: np.ndarray, grid: Grid) -> np.ndarray:
    """Codes less their zero point, int64 (eq. 1)."""
    if not grid.scale:
        return np.zeros(x.shape, np.int64)
    steps = half_even(x / grid.scale).astype(np.float64)
    return (steps + grid.zero_point).clip(CODES.low, CODES.high).astype(np.int64) - grid.zero_point


def result_scale(grid: Grid, weight: Quantized) -> np.ndarray:
    """float32(x_scale · weight_scale), [] or [O] (eq. 30)."""
    scale = weight.encoding.scale
    return np.multiply(grid.scale, scale.reshape(-1) if scale.ndim else scale, dtype=f32)
