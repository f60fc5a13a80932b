"""Windows of convolutions and pools: their margins, and what the sum of a pool's window is divided by."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fewbits.program.node import Margins, Sizes


def sizes_of(value: Any, rank: int) -> Sizes:
    """ATen's lists of sizes (`stride`, `dilation`, `kernel_size`): a size for each axis, or one for all of them."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def margins_of(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> Margins:
    """ATen's `padding` as (before, after) of each axis: sizes, "valid" (none), or "same", which pads by
    dilation · (kernel − 1) in all, the odd one behind."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    sizes = sizes_of(0 if padding == "valid" else padding, len(kernel))
    return tuple((size, size) for size in sizes)


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
