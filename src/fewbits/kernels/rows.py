"""Softmax and layer norm: the NumPy definitions of the native calls Softmax and Norm (native/fewbits.h;
docs/numerics.md, eq. 13, 14, 26)."""

from dataclasses import dataclass

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import address

f32 = np.float32


@dataclass(frozen=True, eq=False)
class Exponentials:
    """powers: int32 [codes + 1], the first 2^20, the last 0; for the logarithm as well below [256], whole [2048], part
    [1025]. scale, zero, low, high: of the output; first: the lowest code, where they are int16."""

    powers: np.ndarray
    scale: float
    zero: int
    low: int
    high: int
    below: np.ndarray | None = None
    whole: np.ndarray | None = None
    part: np.ndarray | None = None
    first: int = 0

    def struct(self, x: np.ndarray, mask: np.ndarray | None, y: np.ndarray) -> structs.Softmax:
        """x: uint8 or int16 [rows, length]; mask: uint8 [mask rows, length], taken in turns."""
        return structs.Softmax(op=structs.SOFTMAX, length=x.shape[1], x=address(x), y=address(y),
                               powers=address(self.powers),
                               mask=address(mask), below=address(self.below), whole=address(self.whole),
                               part=address(self.part), rows=len(x), mask_rows=0 if mask is None else len(mask),
                               scale=self.scale, zero=self.zero, low=self.low, high=self.high,
                               x_type=structs.CODES[x.dtype], x_low=self.first, codes=self.powers.size - 1)

    def reference(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Codes of x's shape; a row that is masked whole has the number 0."""
        q = (x.astype(np.int64) - self.first).clip(0, self.powers.size - 2)
        if self.whole is not None:
            assert self.part is not None and self.below is not None
            steps = q.max(-1, keepdims=True) - q
            total = self.powers[steps].astype(np.int64).sum(-1, keepdims=True)
            high = total // 2**20
            logarithm = self.whole[high] + self.part[(total // high - 2**20) // 2**10]
            v = (-(self.below[steps] + logarithm)).astype(f32) * f32(2.0**-14) / f32(self.scale)
        else:
            seen = np.ones_like(q) if mask is None else np.resize(mask != 0, q.shape)
            steps = np.where(seen, np.where(seen, q, -1).max(-1, keepdims=True) - q, self.powers.size - 1)
            powers = self.powers[steps].astype(np.int64)
            share = powers.astype(f32) / np.maximum(powers.sum(-1, keepdims=True), 1).astype(f32)
            v = share / f32(self.scale)
        return (np.rint(v).astype(np.float64) + self.zero).clip(self.low, self.high).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Normal:
    """gain, shift: float32 [rows, length], taken in turns; epsilon: of the integer variance; scale, zero, low, high:
    of the output."""

    gain: np.ndarray
    shift: np.ndarray
    epsilon: float
    scale: float
    zero: int
    low: int
    high: int
    about: int | None = None

    def struct(self, x: np.ndarray, y: np.ndarray) -> structs.Norm:
        """x: uint8 or int16 [rows, length]."""
        return structs.Norm(op=structs.NORM, length=x.shape[1], x=address(x), y=address(y), gain=address(self.gain),
                            shift=address(self.shift), rows=len(x), gain_rows=len(self.gain), epsilon=self.epsilon,
                            scale=self.scale, zero=self.zero, low=self.low, high=self.high,
                            about_zero=self.about is not None, x_zero=self.about or 0,
                            x_type=structs.CODES[x.dtype])

    def reference(self, x: np.ndarray) -> np.ndarray:
        """Codes of x's shape. Where all is equal and epsilon is 0, 0/0 is the lowest code."""
        q, length = x.astype(np.int64) - (self.about or 0), x.shape[1]
        total, squares = q.sum(-1, keepdims=True), (q * q).sum(-1, keepdims=True)
        total = total if self.about is None else np.zeros_like(total)
        deviation = np.sqrt((length * squares - total * total).astype(f32) + f32(self.epsilon))
        turn = np.arange(len(x)) % len(self.gain)
        with np.errstate(invalid="ignore", divide="ignore"):
            normal = (length * q - total).astype(f32) / deviation
            v = (normal * self.gain[turn] + self.shift[turn]) / f32(self.scale)
        v = np.where(np.isnan(v), -np.inf, v)
        return (np.rint(v).astype(np.float64) + self.zero).clip(self.low, self.high).astype(np.uint8)
