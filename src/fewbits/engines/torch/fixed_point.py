"""Integer requantisation in torch: program/fixed_point.py with int64 tensors, which hold every intermediate exactly."""

from collections.abc import Callable

import numpy as np
import torch

from fewbits.program.fixed_point import Fixed

Rescale = Callable[[torch.Tensor], torch.Tensor]


def rescaler(factor: Fixed, rounding: str) -> Rescale:
    """int64 (or exact floats) → int64, by eq. 18 (`double`), 19 (`single`) or 20 (`wide`) of docs/numerics.md."""
    mantissa, shift = (torch.from_numpy(np.array(part)) for part in (factor.mantissa, factor.shift))
    match rounding:
        case "double":
            return _double(mantissa, shift)
        case "single":
            return _single(mantissa, 31 - shift)
        case _:
            return _shifted(((mantissa + 2**15) >> 16).clamp_(max=2**15 - 1), 15 - shift)


def _shifted(mantissa: torch.Tensor, right: torch.Tensor) -> Rescale:
    half = torch.ones_like(right) << (right - 1)
    return lambda x: (x.long() * mantissa + half) >> right


def _single(mantissa: torch.Tensor, right: torch.Tensor) -> Rescale:
    """Whole steps and the rest apart: x = a · 2^24 + b, of which a · mantissa · 2^24 has its own whole steps."""
    half = torch.ones_like(right) << (right - 1)
    low = (torch.ones_like(right) << (right - 24)) - 1

    def step(x: torch.Tensor) -> torch.Tensor:
        x = x.long()
        high = (x >> 24) * mantissa  # in units of 2^24
        rest = ((high & low) << 24) + (x & (2**24 - 1)) * mantissa + half
        return (high >> (right - 24)) + (rest >> right)

    return step


def _double(mantissa: torch.Tensor, shift: torch.Tensor) -> Rescale:
    left, right = shift.clamp(min=0), (-shift).clamp(min=0)
    half = (torch.ones_like(right) << right) >> 1  # 0 where nothing is shifted out

    def step(x: torch.Tensor) -> torch.Tensor:
        high = ((x.long() << left) * mantissa + 2**30) >> 31
        # Half away from 0: negative numbers get one less before the shift rounds down.
        return (high + half - ((high < 0) & (right > 0)).long()) >> right

    return step
