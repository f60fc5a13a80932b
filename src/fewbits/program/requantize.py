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


SOFTMAX_BITS = 20
"""Fraction bits of the exponentials of eq. 13: with at most 2047 of them their sum fits 31 bits."""

SOFTMAX_LENGTH = 2047


def exponentials(x: Encoding, factor: float) -> np.ndarray:
    """rint(exp(−i · x_scale · factor) · 2^20) for i = 0 … 255, then one 0 for what is masked: int32 [257] (eq. 13)."""
    powers = np.exp(-np.arange(256, dtype=np.float64) * np.float64(x.scale) * factor)
    return np.append(np.rint(powers * 2.0**SOFTMAX_BITS), 0).astype(np.int32)


def integer_epsilon(x: Encoding, epsilon: float, length: int) -> np.float32:
    """float32(ε · K² / x_scale²): ε where the variance is taken of K · codes (eq. 14)."""
    return f32(epsilon * length**2 / np.float64(x.scale) ** 2)


def pool_multiplier(x: Encoding, y: Encoding, counts: np.ndarray) -> np.ndarray:
    """float32(float32(x_scale · float32(1/count)) / y_scale): shape of counts (eq. 8, windows)."""
    weight = np.divide(f32(1), counts.astype(f32), dtype=f32)
    return np.divide(np.multiply(x.scale, weight, dtype=f32), y.scale, dtype=f32)
