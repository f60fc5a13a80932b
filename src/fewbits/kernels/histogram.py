"""How often each byte occurs."""

import numpy as np

from fewbits.kernels.library import native


def histogram(symbols: np.ndarray) -> np.ndarray:
    """int64 [256] counts of uint8 [n]."""
    library = native()
    if library is None:
        return np.bincount(symbols, minlength=256)
    symbols = np.ascontiguousarray(symbols, np.uint8)
    counts = np.empty(256, np.int64)
    library.fb_histogram(symbols.ctypes.data, symbols.size, counts.ctypes.data)
    return counts
