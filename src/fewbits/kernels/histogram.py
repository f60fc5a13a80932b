"""How often each byte occurs, and how many numbers lie in each of evenly spaced bins."""

import math

import numpy as np

from fewbits.kernels.library import native

_CHUNK = 2**20


def histogram(symbols: np.ndarray) -> np.ndarray:
    """int64 [256] counts of uint8 [n]."""
    library = native()
    if library is None:
        return np.bincount(symbols, minlength=256)
    symbols = np.ascontiguousarray(symbols, np.uint8)
    counts = np.empty(256, np.int64)
    library.fb_histogram(symbols.ctypes.data, symbols.size, counts.ctypes.data)
    return counts


def count_into(counts: np.ndarray, values: np.ndarray, exponent: int, start: int) -> None:
    """Adds each value to its bin: counts[⌊value / 2^exponent⌋ − start] += 1.

    counts: int64 [m], contiguous; values: float32 or float64 [n], whose bins all lie within [start, start + m) and
    within ±2^31. Natively for float32 where the library is there; the bins are exact either way.
    """
    library = native()
    if library is None or values.dtype != np.float32:
        count_into_reference(counts, values, exponent, start)
        return
    assert counts.dtype == np.int64 and counts.flags.c_contiguous
    values = np.ascontiguousarray(values)
    library.fb_count(values.ctypes.data, values.size, exponent, start, counts.ctypes.data)


def count_into_reference(counts: np.ndarray, values: np.ndarray, exponent: int, start: int) -> None:
    """As `count_into`, in NumPy."""
    factor = math.ldexp(1.0, -exponent)
    for first in range(0, len(values), _CHUNK):
        # In float64, where a product with a power of two is exact.
        bins = np.floor(values[first:first + _CHUNK].astype(np.float64) * factor).astype(np.int64)
        counts += np.bincount(bins - start, minlength=len(counts))
