"""How often each byte occurs."""

import numpy as np


def histogram(symbols: np.ndarray) -> np.ndarray:
    """int64 [256] counts of uint8 [n]."""
    return np.bincount(symbols, minlength=256)
