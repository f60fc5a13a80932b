"""Thresholds: the sums, or inputs, at which a number that a table or float encodes becomes the next one (eq. 16)."""

from collections.abc import Callable

import numpy as np

from fewbits.errors import LoweringError
from fewbits.numerics.formats import Float, Levels
from fewbits.numerics.integer_form import IntegerForm, in_steps, levels

Bounds = tuple[float, float]


def of_sums(name: str, format: Float | Levels, form: IntegerForm, scale: float, gain: np.ndarray, offset: np.ndarray,
            bounds: Bounds, limits: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds, direction) of sums: int32 [O, n], int8 [O].

    A sum t becomes the number nearest to clip(gain · t + offset, bounds) / scale, all of it float64; scale: of the
    format's numbers; gain, offset: float64 [O]; bounds: of a clamp in between; limits: that no sum leaves. Where a
    level is never reached its threshold lies beyond them. Raises LoweringError when that is beyond int32.
    """
    direction = np.where(gain < 0, -1, 1)
    steep, offset = np.abs(gain).reshape(-1, 1), offset.reshape(-1, 1)

    def steps(directed: np.ndarray) -> np.ndarray:
        return in_steps(format, form, np.clip(steep * directed + offset, *bounds) / scale)

    low = np.where(direction > 0, limits[0], -limits[1]).reshape(-1, 1)
    high = np.where(direction > 0, limits[1], -limits[0]).reshape(-1, 1) + 1
    found = _first(steps, levels(format, form), low, high)
    if found.size and max(found.max(), -found.min()) >= 2**31:
        raise LoweringError(f"{name!r} needs thresholds beyond 32 bits: use fewer bits, or split the layer")
    return found.astype(np.int32), direction.astype(np.int8)


def of_numbers(format: Float | Levels, form: IntegerForm, scale: np.ndarray) -> np.ndarray:
    """Thresholds of float32 numbers x that become the number nearest to x / scale, in float32: float32 [1, n];
    infinite where no number reaches the level."""
    def steps(places: np.ndarray) -> np.ndarray:
        return in_steps(format, form, _number(places) / np.float32(scale))

    ends = _place(np.array([[-np.inf], [np.inf]], np.float32))
    with np.errstate(over="ignore"):
        return _number(_first(steps, levels(format, form), ends[:1], ends[1:]))


def _first(steps: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray, low: np.ndarray,
           high: np.ndarray) -> np.ndarray:
    """Per row and per level after the lowest, the least whole number in [low, high) at which `steps`, which ascends,
    is at least that level; `high` where none is. low, high: [rows, 1]. Returns int64 [rows, levels − 1]."""
    goals = wanted[1:].astype(np.float64)
    low = np.repeat(low.astype(np.int64), len(goals), 1)
    high = np.repeat(high.astype(np.int64), len(goals), 1)
    while (low < high).any():
        middle = (low + high) // 2
        reached = (steps(middle) >= goals) & (low < high)
        low, high = np.where(reached | (low >= high), low, middle + 1), np.where(reached, middle, high)
    return low


def _place(numbers: np.ndarray) -> np.ndarray:
    """float32 in their order, as int64: neighbours differ by 1, and both zeros are 0."""
    bits = numbers.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _number(places: np.ndarray) -> np.ndarray:
    """Inverse of `_place`."""
    bits = np.where(places < 0, (-places) | 0x80000000, places).astype(np.uint32)
    return bits.view(np.float32)
