"""The constants of requantisation, computed once, in float32 and in one order (docs/numerics.md, eq. 5-8)."""

import numpy as np

from fewbits.numerics.encoding import Encoding

f32 = np.float32


def accumulator_scale(x: Encoding, weight: Encoding) -> np.ndarray:
    """float32(x_scale · weight_scale): [] or [O], the scale of a dot product and of its bias (eq. 4)."""
    return np.multiply(x.scale, weight.scale.reshape(-1) if weight.scale.ndim else weight.scale, dtype=f32)


def dot_multiplier(x: Encoding, weight: Encoding, y: Encoding) -> np.ndarray:
    """float32(float32(x_scale · weight_scale) / y_scale): [] or [O] (eq. 5)."""
    return np.divide(accumulator_scale(x, weight), y.scale, dtype=f32)


def mean_multiplier(x: Encoding, y: Encoding, count: int) -> np.ndarray:
    """float32(x_scale / float32(y_scale · float32(count))) (eq. 8, whole axes)."""
    return np.divide(x.scale, np.multiply(y.scale, f32(count), dtype=f32), dtype=f32)


def product_multiplier(a: Encoding, b: Encoding, y: Encoding) -> np.ndarray:
    """float32(float32(a_scale · b_scale) / y_scale) (eq. 10, 11)."""
    return np.divide(np.multiply(a.scale, b.scale, dtype=f32), y.scale, dtype=f32)


NO_DIVISOR = 2.0**-64
"""What a divisor of 0 counts as (eq. 25): 0 stays 0, all else saturates by its sign."""

SOFTMAX_BITS = 20
"""Fraction bits of the exponentials of eq. 13: with at most 2047 of them their sum fits 31 bits."""

SOFTMAX_LENGTH = 2047


def exponentials(x: Encoding, factor: float) -> np.ndarray:
    """rint(exp(−i · x_scale · factor) · 2^20) for all i that two codes can be apart, at least 0 … 255, then one 0 for
    what is masked: int32 [257] for 8-bit codes (eq. 13)."""
    apart = np.arange(max(256, x.format.high - x.format.low + 1), dtype=np.float64)
    powers = np.exp(-apart * np.float64(x.scale) * factor)
    return np.append(np.rint(powers * 2.0**SOFTMAX_BITS), 0).astype(np.int32)


LOG_BITS = 14
"""Fraction bits of the logarithms of eq. 26."""


def steps_below(x: Encoding) -> np.ndarray:
    """rint(i · x_scale · 2^14) for i = 0 … 255: int32 [256] (eq. 26). Finite up to scales of 2^9."""
    return np.rint(np.arange(256) * np.float64(x.scale) * 2.0**LOG_BITS).astype(np.int32)


def logarithms() -> tuple[np.ndarray, np.ndarray]:
    """rint(ln(h) · 2^14) for h = 0 … 2047, the first of them unused, and rint(ln(1 + (j + 1/2) / 1024) · 2^14) for
    j = 0 … 1024, the last of them ln 2: int32 (eq. 26)."""
    whole = np.log(np.maximum(np.arange(2048), 1))
    part = np.log1p(np.append((np.arange(1024) + 0.5) / 1024, 1.0))
    whole, part = (np.rint(values * 2.0**LOG_BITS).astype(np.int32) for values in (whole, part))
    return whole, part


def integer_epsilon(x: Encoding, epsilon: float, length: int) -> np.float32:
    """float32(ε · K² / x_scale²): ε where the variance is taken of K · codes (eq. 14)."""
    return f32(epsilon * length**2 / np.float64(x.scale) ** 2)


def pool_multiplier(x: Encoding, y: Encoding, counts: np.ndarray) -> np.ndarray:
    """float32(float32(x_scale · float32(1/count)) / y_scale): shape of counts (eq. 8, windows)."""
    weight = np.divide(f32(1), counts.astype(f32), dtype=f32)
    return np.divide(np.multiply(x.scale, weight, dtype=f32), y.scale, dtype=f32)
