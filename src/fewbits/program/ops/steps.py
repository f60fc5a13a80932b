"""Steps that the reference kernels of several families share: to codes, around zero points, over windows.

Sums of products are int64, so nothing wraps; what is not an integer is float32, rounded to nearest even after every
operation, in the order written here.
"""

from collections.abc import Iterator

import numpy as np

from fewbits.numerics.encoding import Encoding
from fewbits.numerics.rounding import half_even
from fewbits.program import rescale
from fewbits.program.accumulator import interval
from fewbits.program.fixed_point import ROUNDINGS, Fixed
from fewbits.program.node import Margins, Sizes
from fewbits.program.value import Scope

f32 = np.float32
Codes = np.ndarray


def saturate(v: np.ndarray, zero_point: int, low: int, high: int, encoding: Encoding) -> Codes:
    """clip(half_even(v) + zero_point, low, high): the zero point is added after rounding (eq. 6)."""
    return (half_even(v).astype(np.float64) + zero_point).clip(low, high).astype(encoding.format.dtype)


def rescaled(acc: np.ndarray, factor: rescale.Factor, rounding: str, y: Encoding, low: int, high: int) -> Codes:
    """Integers times a factor, rounded, to codes: in float32 (eq. 6), or by multiplier and shift (eq. 18-20)."""
    if isinstance(factor, Fixed):
        rounded = ROUNDINGS[rounding](acc, factor) + int(y.zero_point)
        return rounded.clip(low, high).astype(y.format.dtype)
    return saturate(acc.astype(f32) * factor, int(y.zero_point), low, high, y)


def centred(program: Scope, name: str, codes: Codes) -> np.ndarray:
    """code − zero_point as int64: the number in units of its scale, so that 0 is the number 0."""
    return codes.astype(np.int64) - int(program.encoding(name).zero_point)


def regridded(program: Scope, codes: Codes, source: str, name: str, low: int, high: int) -> Codes:
    """Codes of `source` on the grid of `name`: float32(code − x_zero) · x_scale / y_scale, rounded (eq. 2, then eq. 1);
    in integer profiles eq. 18 or 19."""
    x, y, profile = program.encoding(source), program.encoding(name), program.profile
    if profile.rescaling == "float":
        return saturate(x.decode(codes) / y.scale, int(y.zero_point), low, high, y)
    factor, rounding = rescale.regrid(x, y), rescale.rounding(profile, "other")
    return rescaled(codes.astype(np.int64) - int(x.zero_point), factor, rounding, y, low, high)


def reach(program: Scope, *names: str) -> int:
    """Largest magnitude of the centred codes of some values."""
    return max(max(-low, high) for low, high in (interval(program.encoding(name)) for name in names))


def coarsest_regrid(program: Scope, names: tuple[str, ...], name: str) -> rescale.Factor:
    """The largest of the factors that bring several values to the grid of `name`."""
    worst = max(names, key=lambda each: float(program.encoding(each).scale))
    return rescale.regrid(program.encoding(worst), program.encoding(name))


def windows(x: np.ndarray, kernel: Sizes, stride: Sizes, padding: Margins, dilation: Sizes,
            fill: float) -> Iterator[tuple[Sizes, np.ndarray]]:
    """Yields (position, x under that position of the kernel for every window): [N, C, ...]."""
    x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    counts = [1 + (size - d * (k - 1) - 1) // s
              for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    for position in np.ndindex(*kernel):
        taps = tuple(slice(i * d, i * d + (count - 1) * s + 1, s)
                     for i, d, s, count in zip(position, dilation, stride, counts, strict=True))
        yield position, x[(slice(None), slice(None), *taps)]


def convolved(x: np.ndarray, w: np.ndarray, stride: Sizes, padding: Margins, dilation: Sizes,
              groups: int) -> np.ndarray:
    """Sums of products of x [N, C, ...] and w [O, C/groups, *kernel], both around 0."""
    kernel = w.shape[2:]
    w = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    acc = None
    for position, taps in windows(x, kernel, stride, padding, dilation, fill=0):
        flat = taps.reshape(len(taps), groups, w.shape[2], -1)
        part = np.einsum("ngcp,goc->ngop", flat, w[(..., *position)])
        part = part.reshape(len(taps), -1, *taps.shape[2:])
        acc = part if acc is None else acc + part
    assert acc is not None, "a kernel has at least one position"
    return acc
