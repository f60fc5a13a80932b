"""Signal to quantization noise, in decibels: how far below the numbers their error lies."""

import numpy as np

CEILING = 144.5
"""24 · 20 · log10(2), the resolution of float32. No error at all counts as this, so means stay finite."""


def decibels(signal: np.ndarray | float, noise: np.ndarray | float) -> np.ndarray:
    """10 · log10(signal / noise), between -CEILING and CEILING; float64, shape of the arguments.

    signal, noise: energies (sums of squares) ≥ 0. Without noise the answer is CEILING, silence included.
    """
    signal, noise = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(noise, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10(signal / noise)
    return np.where(noise == 0, CEILING, ratio).clip(-CEILING, CEILING)
