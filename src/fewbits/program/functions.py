"""Calls that a graph and a program may hold beside ATen's: what `fold` puts in place of larger operators."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch

from fewbits.errors import ProgramError
from fewbits.program.requantize import NO_DIVISOR

Empty = Literal["zero", "uniform", "scores"]
EMPTY: tuple[Empty, ...] = get_args(Empty)
"""What softmax gives in a row of which nothing is seen: 0, the same everywhere, or what it gives where all is seen."""


def masked_softmax(x: torch.Tensor, mask: torch.Tensor | None, factor: float, empty: Empty = "zero",
                   low: float = 0.0) -> torch.Tensor:
    """softmax(factor · x) over the last axis, 0 where the mask is 0. mask: bool, broadcastable to x, or None; empty:
    what a row gives in which the mask is 0 everywhere; low: what was added there to hide its places, which takes the
    last bits of its scores."""
    x = x * factor
    if mask is None:
        return x.softmax(-1)
    seen = mask.bool()
    some = seen.any(-1, keepdim=True)
    if bool(some.all()):
        return x.masked_fill(~seen, -torch.inf).softmax(-1)
    if empty == "uniform":
        x = torch.where(some, x, 0)
    elif low:
        x = torch.where(some, x, (x + low) - low)
    shares = x.masked_fill(~(seen | ~some), -torch.inf).softmax(-1)
    return torch.where(some, shares, 0) if empty == "zero" else shares


def lookup(table: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """table[numbers], of integers [rows]."""
    return table[numbers]


def bounded(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """x between bounds that leave out 0: a function of one number, where a clamp belongs to what is before it."""
    return x.clamp(low, high)


def join(tensors: list[torch.Tensor], dim: int) -> torch.Tensor:
    """torch.cat, a tensor with a batch of 1 standing for every image of the others."""
    batch = max(tensor.shape[0] for tensor in tensors)
    return torch.cat([tensor.expand(batch, *tensor.shape[1:]) for tensor in tensors], dim)


def quotient(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """first / second, a divisor of 0 counting as 2^-64: 0 stays 0, and all else saturates by its sign."""
    return first / torch.where(second == 0, NO_DIVISOR, second)


RELATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne}
"""Comparisons by the names that ATen gives them."""


def two_pieces(x: torch.Tensor, relation: str, bound: float, slope: float, offset: float, other_slope: float,
               other_offset: float) -> torch.Tensor:
    """slope · x + offset where x is in `relation` to `bound`, other_slope · x + other_offset elsewhere."""
    if relation not in RELATIONS:
        raise ProgramError(f"{relation!r} is no comparison: choose one of {', '.join(RELATIONS)}")
    return torch.where(RELATIONS[relation](x, bound), _line(x, slope, offset), _line(x, other_slope, other_offset))


def _line(x: torch.Tensor, slope: float, offset: float) -> torch.Tensor:
    return x * slope + offset if slope else torch.full_like(x, offset)
