"""Windows of pools: what the sum of each is divided by."""

import math

import numpy as np

from fewbits.program.node import Margins, Sizes


def positions(sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Margins, counted: Margins = ()) -> np.ndarray:
    """How many positions of each window lie inside the image, `counted` margins around it included: int64, one axis
    per axis of the image. sizes: of the image; padding: of the windows, at least as wide as what is counted."""
    counts = []
    margins = counted or ((0, 0),) * len(sizes)
    for size, k, s, (before, after), (left, right) in zip(sizes, kernel, stride, padding, margins, strict=True):
        first = np.arange(-before, size + after - k + 1, s)
        counts.append(np.minimum(first + k, size + right) - np.maximum(first, -left))
    return outer(counts)


def outer(counts: list[np.ndarray]) -> np.ndarray:
    """The product of one count from every axis, at all positions: int64."""
    return np.asarray(math.prod(np.ix_(*counts)))


def same_for_all(counts: np.ndarray) -> np.ndarray:
    """int32; a single count where all are equal."""
    equal = bool((counts == counts.flat[0]).all())
    return (counts.reshape(-1)[:1].reshape((1,) * counts.ndim) if equal else counts).astype(np.int32)
