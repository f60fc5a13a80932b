"""Exact integers to what is written: codes by one of four roundings or by thresholds, float32, or as they are
(docs/numerics.md, eq. 6, 16, 18 to 20, 30)."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import address

_TYPES = {structs.U8: np.uint8, structs.S16: np.int16, structs.S32: np.int32, structs.F32: np.float32}


@dataclass(frozen=True, eq=False)
class Rescaling:
    """kind: of structs.py; type: of what is written; zero, low, high: of the codes as they are stored.

    factor, offset: float32; mantissa, shift: int32; each [channels], or [1] for one for all (offset: [channels] or
    None). thresholds: int32 [number, channels or 1], those of a channel ascending; direction: int32 [channels or 1], 1
    or -1; levels: uint8 [number + 1]: as many thresholds as direction · t reaches, so far along the levels it gets.
    Arrays are pointed to by `struct`, and must live as long: keep the Rescaling.
    """

    kind: int
    type: int
    zero: int = 0
    low: int = 0
    high: int = 255
    factor: np.ndarray | None = None
    offset: np.ndarray | None = None
    mantissa: np.ndarray | None = None
    shift: np.ndarray | None = None
    thresholds: np.ndarray | None = None
    direction: np.ndarray | None = None
    levels: np.ndarray | None = None

    @cached_property
    def _reached(self) -> np.ndarray | None:
        """The thresholds of t itself: those of channels that go down turned round, -2³¹ to the most that is less than
        2³¹ (t reaches both always)."""
        if self.thresholds is None or self.direction is None:
            return None
        turned = np.minimum(-self.thresholds.astype(np.int64), 2**31 - 1)
        return np.ascontiguousarray(np.where(self.direction > 0, self.thresholds, turned), np.int32)

    def repeated(self, times: int) -> "Rescaling":
        """Of so many times the channels, the same ones again and again."""
        arrays = {name: array for name in ("factor", "offset", "mantissa", "shift", "direction", "thresholds")
                  if (array := getattr(self, name)) is not None and array.shape[-1] > 1}
        return replace(self, **{name: np.concatenate([array] * times, axis=-1) for name, array in arrays.items()})

    @property
    def dtype(self) -> np.dtype:
        """Of the array that is written."""
        return np.dtype(_TYPES[self.type])

    def struct(self) -> structs.Rescale:
        """The same for the library."""
        constants = next((held for held in (self.factor, self.mantissa, self.direction) if held is not None), None)
        per_channel = constants is not None and constants.size > 1
        number, channels = (0, 0) if self.thresholds is None else self.thresholds.shape
        return structs.Rescale(address(self.factor), address(self.offset), address(self.mantissa), address(self.shift),
                               address(self._reached), address(self.direction), address(self.levels), number, channels,
                               self.kind, per_channel, self.zero, self.low, self.high, self.type)

    def reference(self, sums: np.ndarray) -> np.ndarray:
        """sums: int64 [..., channels]."""
        if self.kind == structs.SUMS:
            return sums.astype(np.int32)
        if self.kind == structs.LEVELS:
            assert self.thresholds is not None and self.direction is not None and self.levels is not None
            thresholds = self.thresholds.reshape(len(self.thresholds), *[1] * (sums.ndim - 1), -1)
            return self.levels[(self.direction * sums.astype(np.int64) >= thresholds).sum(0)]
        if self.kind in (structs.FLOAT, structs.REAL):
            assert self.factor is not None
            v = sums.astype(np.float32) * self.factor
            if self.kind == structs.REAL:
                return v if self.offset is None else v + self.offset
            return (np.rint(v).astype(np.float64) + self.zero).clip(self.low, self.high).astype(self.dtype)
        assert self.mantissa is not None and self.shift is not None
        rounded = _ROUNDINGS[self.kind](sums, self.mantissa.astype(np.int64), self.shift.astype(np.int64))
        return (rounded + self.zero).clip(self.low, self.high).astype(self.dtype)


def _double(t: np.ndarray, mantissa: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Eq. 18."""
    high = ((t << np.maximum(shift, 0)) * mantissa + 2**30) >> 31
    right = np.maximum(-shift, 0)
    half = (np.int64(1) << right) >> 1
    away = np.sign(high) * ((np.abs(high) + half) >> right)
    return np.where(right > 0, away, high)


def _single(t: np.ndarray, mantissa: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Eq. 19, the product of 48 bits with 31 in Python's integers."""
    right = 31 - shift
    exact = t.astype(object) * mantissa.astype(object)
    return np.asarray((exact + (1 << (right - 1).astype(object))) >> right.astype(object)).astype(np.int64)


def _wide(t: np.ndarray, mantissa: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Eq. 20."""
    right = 15 - shift
    return (t * np.minimum((mantissa + 2**15) >> 16, 2**15 - 1) + (np.int64(1) << (right - 1))) >> right


_ROUNDINGS = {structs.DOUBLE: _double, structs.SINGLE: _single, structs.WIDE: _wide}
