"""Rounding to integers. Every rule has a name, and all of them live in this file."""

from typing import TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def half_even(x: Array) -> Array:
    """Nearest integer, ties to the even one (IEEE 754 roundTiesToEven): 0.5 → 0, 1.5 → 2, -2.5 → -2.

    x: any shape, float; the result keeps its type. NaN and infinities pass through.
    """
    return torch.round(x) if isinstance(x, torch.Tensor) else np.rint(x)
