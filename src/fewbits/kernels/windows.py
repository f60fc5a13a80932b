"""Pools and means: the NumPy definitions of the native calls Pool and Mean (native/fewbits.h; docs/numerics.md, eq.
8)."""

from dataclasses import dataclass

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import address
from fewbits.kernels.rescaling import Rescaling

Pair = tuple[int, int]
f32 = np.float32


@dataclass(frozen=True, eq=False)
class Windows:
    """kernel, stride, dilation: (rows, columns); margins: (top, bottom, left, right). factors: float32 [out, out] or
    [1, 1] for means, None for the largest code; x_zero, zero, low, high: of means."""

    kernel: Pair
    stride: Pair
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    factors: np.ndarray | None = None
    x_zero: int = 0
    zero: int = 0
    low: int = 0
    high: int = 255

    def out_size(self, height: int, width: int) -> Pair:
        """Height and width of the output."""
        top, bottom, left, right = self.margins
        high, wide = (1 + (size - d * (k - 1) - 1) // s for size, k, s, d in zip(
            (height + top + bottom, width + left + right), self.kernel, self.stride, self.dilation, strict=True))
        return high, wide

    def struct(self, shape: tuple[int, int, int, int]) -> structs.Pool:
        """A call without x and y. shape: [batch, height, width, C]."""
        one = self.factors is not None and self.factors.size == 1
        return structs.Pool(op=structs.POOL, sums=self.factors is not None, factors=address(self.factors),
                            one_factor=one,
                            x_zero=self.x_zero, zero=self.zero, low=self.low, high=self.high, batch=shape[0],
                            height=shape[1], width=shape[2], channels=shape[3], kernel_h=self.kernel[0],
                            kernel_w=self.kernel[1], stride_h=self.stride[0], stride_w=self.stride[1],
                            dilation_h=self.dilation[0], dilation_w=self.dilation[1], top=self.margins[0],
                            bottom=self.margins[1], left=self.margins[2], right=self.margins[3])

    def reference(self, x: np.ndarray) -> np.ndarray:
        """uint8 [batch, height, width, C]. A window that lies in the margin alone has the lowest code."""
        top, bottom, left, right = self.margins
        high, wide = self.out_size(*x.shape[1:3])
        sums = self.factors is not None
        filled = np.pad(x.astype(np.int64) - (self.x_zero if sums else 0), ((0, 0), (top, bottom), (left, right), (0,
                                                                                                                   0)))
        taps = np.stack([filled[:, y:y + (high - 1) * self.stride[0] + 1:self.stride[0],
                                x:x + (wide - 1) * self.stride[1] + 1:self.stride[1]]
                         for y in np.arange(self.kernel[0]) * self.dilation[0]
                         for x in np.arange(self.kernel[1]) * self.dilation[1]])
        if self.factors is None:
            return taps.max(0).astype(np.uint8)
        v = taps.sum(0).astype(f32) * self.factors[:, :, None]
        return (np.rint(v).astype(np.float64) + self.zero).clip(self.low, self.high).astype(np.uint8)


def mean_struct(x: np.ndarray, x_zero: int, rescaling: Rescaling, y: np.ndarray) -> structs.Mean:
    """x: uint8 [outer, length, inner] to y [outer, inner]."""
    outer, length, inner = x.shape
    return structs.Mean(op=structs.MEAN, x_zero=x_zero, x=address(x), y=address(y), rescale=rescaling.struct(),
                        outer=outer,
                        length=length, inner=inner)


def mean_reference(x: np.ndarray, x_zero: int, rescaling: Rescaling) -> np.ndarray:
    """Sums over the middle axis, rescaled."""
    return rescaling.reference((x.astype(np.int64) - x_zero).sum(1))
